"""A goal file edited: what differs is taken from a fresh file, every other byte stays.

The file is cut into statements, the shortest runs of lines that are TOML by themselves: a header, a key with its value,
a comment, a blank line. So no edit depends on how tables are nested or where they stand.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

import tomlkit

from ..terms import Goal, Subgoal

_TOP = {"goal": "text", "specification": "specification", "tau": "tau", "without": "without"}
_ORDER = (*_TOP, "subgoals", "exchanges", "checks", "reviews")


@dataclass(eq=False, slots=True)
class _Block:
    """A table with its header, or one key above all headers; `above` are the blank lines and comments before it.

    `key` is the goal's key that it belongs to. The last block of a file is what stands after everything, under "".
    """

    key: str
    headed: bool
    above: list[str]
    lines: list[str]


def edited(onto: str, old: Goal, wanted: Goal, fresh: str) -> str:
    """The text `onto`, which states the goal `old`, changed to state the one wanted, which `fresh` states."""
    newline = "\r\n" if re.match(r"[^\n]*\r\n", onto) else "\n"
    blocks = _blocks(onto)
    made = _blocks(fresh.replace("\n", newline))
    for key, attribute in _TOP.items():
        if getattr(old, attribute) != getattr(wanted, attribute):
            _set_on_top(blocks, key, made)
    if old.subgoals != wanted.subgoals:
        _put(blocks, "subgoals", _subgoals(blocks, old, wanted, made))
    for key in ("exchanges", "checks", "reviews"):
        if getattr(old, key) != getattr(wanted, key):
            _put(blocks, key, [block for block in made if block.key == key])
    lines = [line for block in blocks for line in (*block.above, *block.lines)]
    return "".join(line if line.endswith("\n") else line + newline for line in lines[:-1]) + "".join(lines[-1:])


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    above: list[str] = []
    for statement in _statements(text):
        values = tomllib.loads(statement)
        headed = statement.lstrip().startswith("[")
        if not values:
            above.append(statement)
        elif headed or not blocks or not blocks[-1].headed:
            blocks.append(_Block(next(iter(values)), headed, above, [statement]))
            above = []
        else:
            blocks[-1].lines += [*above, statement]
            above = []
    return [*blocks, _Block("", True, above, [])]


def _statements(text: str) -> Iterator[str]:
    """The statements of a TOML text. What ends within a value is no TOML, so the first end that is one is theirs."""
    begun = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        may_end = not begun or re.search(r"\"\"\"|'''|[]}]", line)
        begun += line
        if may_end and _is_toml(begun):
            yield begun
            begun = ""


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _set_on_top(blocks: list[_Block], key: str, made: list[_Block]) -> None:
    """Sets a key above all headers to its value in the fresh file."""
    values = [line for block in made if block.key == key for line in block.lines]
    before = _ORDER[: _ORDER.index(key)]
    place = 0
    for number, block in enumerate(blocks):
        if block.key == key:
            return _set(block.lines, key, values)
        place = number + 1 if block.key in before else place
    blocks.insert(place, _Block(key, False, [], values))


def _subgoals(blocks: list[_Block], old: Goal, wanted: Goal, made: list[_Block]) -> list[_Block]:
    """The blocks of the subgoals wanted: those of the file, with the keys that differ set, and new ones."""
    there, new, before = _by_id(blocks), _by_id(made), {subgoal.id: subgoal for subgoal in old.subgoals}
    for subgoal in wanted.subgoals:
        if subgoal.id in there:
            for key in (field.name for field in fields(Subgoal)):
                if getattr(subgoal, key) != getattr(before[subgoal.id], key):
                    _set(there[subgoal.id].lines, key, new[subgoal.id].lines)
    return [there.get(subgoal.id) or new[subgoal.id] for subgoal in wanted.subgoals]


def _by_id(blocks: list[_Block]) -> dict[str, _Block]:
    headed = [block for block in blocks if block.key == "subgoals" and block.headed]
    return {tomllib.loads("".join(block.lines))["subgoals"][0]["id"]: block for block in headed}


def _set(lines: list[str], key: str, values: list[str]) -> None:
    """Gives a key among lines the value that it has among others: in place, at the end if it is new, or not at all."""
    value = next((line for line in values if key in tomllib.loads(line)), None)
    place = next((number for number, line in enumerate(lines) if key in tomllib.loads(line)), None)
    if place is None:
        lines += [value] if value else []
    elif value is None:
        del lines[place]
    else:
        statement = tomlkit.parse(lines[place])
        statement[key] = tomlkit.parse(value)[key]
        lines[place] = tomlkit.dumps(statement)


def _put(blocks: list[_Block], key: str, wanted: list[_Block]) -> None:
    """Puts the blocks wanted in the place of those of a key; of them, those that stay keep the comments above them.

    What stands above the first may speak of them all: it stays above whichever comes first. New blocks follow the one
    that they are wanted after. If none is there yet, they come after the keys that a fresh file has before theirs.
    """
    present = [block for block in blocks if block.key == key]
    headed = [block for block in present if block.headed]
    if headed and wanted and wanted[0] is not headed[0]:
        _swap_above(headed[0], wanted[0], keep=wanted[0] in headed)
    starts = [number for number, block in enumerate(wanted) if block in headed]
    runs = [wanted[start:end] for start, end in pairwise([0, *starts[1:], len(wanted)])]
    places = [block for block in headed if block in wanted] or headed[:1]
    arriving = {id(place): run for place, run in zip(places, runs, strict=False)}
    placed: list[_Block] = []
    carried: list[str] = []
    for block in blocks:
        if block.key == key and block not in wanted:
            carried += _detached(block.above) if block.headed else block.above
        for each in arriving.get(id(block), []) if block.key == key else [block]:
            each.above, carried = carried + each.above, []
            placed.append(each)
    if not places:
        before = _ORDER[: _ORDER.index(key)]
        place = max(number for number, each in enumerate(placed) if each.key in before or not each.headed)
        placed[place + 1 : place + 1] = wanted
    blocks[:] = placed


def _swap_above(first: _Block, head: _Block, keep: bool) -> None:
    """Gives what stands above the first block to the one that comes first now, which may keep comments of its own."""
    comments = [line for line in head.above if line.strip()] if keep else []
    blanks = [line for line in head.above if not line.strip()]
    head.above, first.above = first.above + comments, blanks


def _detached(above: list[str]) -> list[str]:
    """The comments above a block that a blank line parts from it, without that line."""
    lines = list(above)
    while lines and lines[-1].strip():
        lines.pop()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
