"""Drafts of a clarification on disk: every move is kept, so that any can be taken back, and a stop loses nothing."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import GoalError
from .files import replace_file
from .phases.clarify import Draft

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 1


class DraftFile:
    """A file that holds a clarification: the draft before each of a person's moves, and what the model answered.

    It is written anew, whole or not at all, whenever it changes, and only its owner can read it.
    """

    def __init__(self, path: Path, history: list[Draft], memory: dict[str, Any], options: Mapping[str, Any]) -> None:
        self.path = path
        self.memory = memory
        self.options = dict(options)
        self._history = history

    @classmethod
    def begin(cls, path: Path, draft: Draft, options: Mapping[str, Any]) -> DraftFile:
        """A new file. Raises GoalError if it cannot be written."""
        file = cls(path, [draft], {}, options)
        file.save()
        return file

    @classmethod
    def resume(cls, path: Path) -> DraftFile:
        """The file as it was left. Raises GoalError if there is none, or if it is none of ours."""
        from pydantic import ValidationError

        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["version"] != VERSION:
                raise GoalError(f"{path} was written by another version.", "Begin anew, without --resume.")
            history = _histories().validate_python(held["history"])
            if not history:
                raise ValueError("no draft")
            return cls(path, history, dict(held["memory"]), held["options"])
        except FileNotFoundError:
            raise GoalError(f"There is no draft {path}.", "Begin without --resume, or name the same -o.") from None
        except OSError as error:
            raise GoalError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
        except (ValueError, KeyError, TypeError, IndexError, ValidationError):
            raise GoalError(f"{path} is not a draft, or damaged.", "Remove it and begin anew.") from None

    @property
    def draft(self) -> Draft:
        """What is known now."""
        return self._history[-1]

    def work(self, draft: Draft) -> None:
        """Nothing; the model's work brought the draft this far."""
        self._history[-1] = draft
        self.save()

    def move(self, draft: Draft) -> None:
        """Nothing; a person's move made this of the draft."""
        self._history.append(draft)
        self.save()

    def undo(self) -> bool:
        """Whether there was a move to take back; the draft is then what it was before it."""
        if len(self._history) == 1:
            return False
        self._history.pop()
        self.save()
        return True

    def last_asked(self) -> Draft | None:
        """The last draft that waited for the answer to a question, None if there was none; it may be moved to again."""
        return next((draft for draft in reversed(self._history[:-1]) if draft.inquiries), None)

    def save(self) -> None:
        """Nothing; writes the file. Raises GoalError if that cannot be done; the old one then stands."""
        held = {
            "version": VERSION,
            "options": self.options,
            "history": _histories().dump_python(self._history, mode="json"),
            "memory": self.memory,
        }
        replace_file(self.path, json.dumps(held, ensure_ascii=False), mode=0o600)

    def remove(self) -> None:
        """Nothing; the file is no longer needed."""
        self.path.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """A context in which no other process works on this draft. Raises GoalError if one does."""
    name = path.with_name(f"{path.name}.lock")
    try:
        lock = name.open("ab")
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror}."
        raise GoalError(problem, "Check the folder and its permissions.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GoalError(f"{path} is being worked on by another process.", "End that one first.") from None
        try:
            yield
        finally:
            name.unlink(missing_ok=True)


@cache
def _histories() -> TypeAdapter[list[Draft]]:
    """What turns histories into plain values and back."""
    from pydantic import TypeAdapter

    return TypeAdapter(list[Draft])
