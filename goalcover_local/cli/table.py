"""Results on stdout: tables, rich ones on a terminal, aligned plain text elsewhere; and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Nothing; prints the rows under their header, columns in `right` aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number in right else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)


def as_text(value: Any, indent: int | None = 2) -> str:
    """A value as JSON, on one line without `indent`; control characters that a terminal would obey are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[\x7F-\x9F\uD800-\uDFFF]", lambda found: f"\\u{ord(found[0]):04x}", text)
