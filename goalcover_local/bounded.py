"""Small files that a stranger may have written, read within bounds of length and depth."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}[ \t]*+\.[ \t]*+){{64}}")
"""A dotted key of 64 parts: the library takes memory in proportion to the square of their number."""

_MOST_BRACKETS = 400_000
_MOST_COMMAS = 1_000_000
"""What a JSON text may have of each: an object of a few bytes takes some hundred of memory."""


def text_of(path: Path, most: int) -> str:
    """The text of a file of at most so many bytes, its line ends as they are.

    Raises OSError if it cannot be read, ValueError if it is larger or not UTF-8.
    """
    return content_of(path, most).decode("utf-8")


def content_of(path: Path, most: int) -> bytes:
    """The bytes of a file, at most so many. Raises OSError if it cannot be read, ValueError if it is larger."""
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return content


def toml_of(text: str) -> dict[str, Any]:
    """The table that a TOML text states. Raises ValueError if it is no TOML, or too deep or long-winded a one."""
    if _LONG_KEY.search(text):
        raise ValueError("it has a key of 64 parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_of(text: bytes, *, most_brackets: int = _MOST_BRACKETS, most_commas: int = _MOST_COMMAS, **hooks: Any) -> Any:
    """The value that a JSON text states; `hooks` go to `json.loads`.

    Raises ValueError if it is no JSON in UTF-8, nested too deeply, or has more than 400,000 lists and objects or
    1,000,000 commas, unless told otherwise: a header of safetensors has three and seven for each tensor.
    """
    if text.count(b"[") + text.count(b"{") > most_brackets or text.count(b",") > most_commas:
        raise ValueError("it has too many parts")
    try:
        return json.loads(text.decode(), **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
