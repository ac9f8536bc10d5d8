"""Results on stdout: tables, rich ones on a terminal, aligned plain text elsewhere; and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Nothing; prints the rows under their header, columns in `right` aligned to the right.

    A row with nothing but its first cell is a heading of those that follow: it may run on over the other columns.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.measure import Measurement
    from rich.segment import Segment, SegmentLines
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number in right else "left", no_wrap=number > 0)
    headings = {place: f" {row[0]}" for place, row in enumerate(rows) if len(row) > 1 and not any(row[1:])}
    for place, row in enumerate(rows):
        table.add_row(*([] if place in headings else row))
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console.width = max(console.width, needed, *map(cell_len, headings.values()))
    lines = [Segment.adjust_line_length(line, needed - 1) for line in console.render_lines(table, pad=False)]
    for place, heading in headings.items():
        lines[place - len(rows) - 1] = [Segment(heading)]
    console.print(SegmentLines(lines, new_lines=True), end="")


def as_text(value: Any, indent: int | None = 2) -> str:
    """A value as JSON, on one line without `indent`; control characters that a terminal would obey are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[\x7F-\x9F\uD800-\uDFFF]", lambda found: f"\\u{ord(found[0]):04x}", text)
