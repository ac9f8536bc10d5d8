"""What is done to the bytes of a valid file; a case is a function of seed and number alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

Wrap = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file: valid ones, what reads one, and how one is made whole around what is mutated in it."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[Path, bytes], object]
    wrap: Wrap = bytes
    """Makes a file of its mutated content; most cases mutate within, the others the file as a whole."""


def _flipped(random: Random, content: bytearray) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def _cut(random: Random, content: bytearray) -> None:
    start = random.randrange(len(content))
    del content[start : None if random.random() < 0.5 else start + random.choice((1, 2, 8, 100))]


def _spliced(random: Random, content: bytearray) -> None:
    start, length, at = random.randrange(len(content)), random.choice((4, 30, 300)), random.randrange(len(content))
    content[at : at + random.choice((0, length))] = content[start : start + length]


def _repeated(random: Random, content: bytearray) -> None:
    start = random.randrange(len(content))
    part = bytes(content[start : start + random.choice((1, 3, 20, 200))])
    content[start:start] = part * min(random.choice((2, 50, 5000)), 1_000_000 // len(part))


def _extreme_length(random: Random, content: bytearray) -> None:
    width = random.choice((1, 2, 4, 8))
    number = random.choice(
        (0, 1, 2, (1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, 1 << 16, 1 << 30)
    )
    at = random.choice((0, 4, 8, 16, 24, len(content) - 8, random.randrange(len(content))))
    content[max(0, at) : max(0, at) + width] = (number % (1 << 8 * width)).to_bytes(width, "little")


def _extreme_number(random: Random, content: bytearray) -> None:
    numbers = list(islice(re.finditer(rb"\d+", content), 1000))
    number = random.choice(
        (b"-1", b"0", b"1e999", b"NaN", b"1" * 30, b"9223372036854775808", b"9" * 5000, b"0.1", b"-0")
    )
    place = random.choice(numbers).span() if numbers else (0, 0)
    content[slice(*place)] = number


def _nested(random: Random, content: bytearray) -> None:
    opening, closing = random.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"), (b"(", b")"), (b"[[", b"]]"), (b"a.", b""))
    )
    depth = random.choice((3, 200, 1200, 20_000, 100_000))
    whole = random.random() < 0.7
    values = list(islice(re.finditer(rb'"[^"\n]*"|\d+', content), 1000))
    place = random.choice(values).span() if values and random.random() < 0.7 else (random.randrange(len(content)),) * 2
    content[slice(*place)] = opening * depth + (b"1" + closing * depth if whole else b"")


def _strange(random: Random, content: bytearray) -> None:
    strange = (
        b"\0",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\\ud800",
        b"\\u0000",
        b'"',
        b"'",
    )
    strange += (
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"=",
        b"#",
        b"${",
        b"$",
        b'"""',
        b"\xf4\x90\x80\x80",
        "́".encode() * 3000,
    )
    strange += (
        b"null",
        b"true",
        b'""',
        b"{}",
        b"[]",
        b"inf",
        b"1979-05-27",
        b"\x1b[31m",
        "‮".encode(),
        b"(?P<a>",
        b"(a*)*b",
    )
    at = random.randrange(len(content))
    content[at : at + random.choice((0, 1, 4))] = random.choice(strange)


def _lengthened(random: Random, content: bytearray) -> None:
    at = random.randrange(len(content))
    sign = random.choice(
        (b"a", b" ", b"\n", b'"', b",", b"0", b"\t", b"\\", b"#", b"<", b"- ", b"\xcc\x81", b"{", b"a,")
    )
    lengths = (*(1000, 70_000, 1_000_000) * 4, 1_000_000 if sign == b"\n" else 40_000_000)
    content[at:at] = sign * (random.choice(lengths) // len(sign))


def _recoded(random: Random, content: bytearray) -> None:
    content[:] = content.decode("utf-8", "replace").encode(random.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))


MUTATIONS: Mapping[Callable[[Random, bytearray], None], int] = {
    _flipped: 5,
    _cut: 4,
    _spliced: 4,
    _repeated: 3,
    _extreme_length: 4,
    _extreme_number: 4,
    _nested: 3,
    _strange: 5,
    _lengthened: 2,
    _recoded: 1,
}
"""What is done to a file's bytes, and how often in relation to the others."""


def made(kinds: Sequence[Kind], seed: int, number: int) -> tuple[Kind, bytes]:
    """The kind and the bytes of a case."""
    random = Random(f"{seed}:{number}")
    kind = kinds[number % len(kinds)]
    content = bytearray(random.choice(kind.seeds))
    within = random.random() < 0.8
    if not within:
        content[:] = kind.wrap(bytes(content))
    for mutate in random.choices(list(MUTATIONS), list(MUTATIONS.values()), k=random.choice((1, 1, 2, 3))):
        if content:
            mutate(random, content)
    return kind, kind.wrap(bytes(content)) if within else bytes(content)
