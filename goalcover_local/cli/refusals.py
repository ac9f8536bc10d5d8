"""Rows that are no samples, told on stderr by file and line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..terms import Refusal

_SHOWN = 10


def tell_refusals(refusals: Sequence[Refusal], more: str = "") -> None:
    """Nothing; tells of the first ten refusals, and how many there are beyond; `more` ends that line."""
    for refusal in refusals[:_SHOWN]:
        click.echo(f"  refused {refusal.source}:{refusal.line}: {refusal.reason}", err=True)
    if len(refusals) > _SHOWN:
        click.echo(f"  and {len(refusals) - _SHOWN} more{more}", err=True)
