"""Tables on stdout: rich ones on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Nothing; prints the rows under their header, columns in `right` aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number in right else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)
