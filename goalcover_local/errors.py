"""Every error a user can meet.

    GoalCoverError             what is wrong, and how to mend it
    ├── GoalError              a goal file that cannot be used
    ├── DataError              a dataset file or row that cannot be read
    ├── ModelError             a card or its weights: unknown, incomplete, altered, unsafe
    ├── QuestionError          a question folder that is malformed
    ├── EngineError            an engine that cannot load, or cannot hold the work
    ├── StoreError             a run folder: unreadable, locked, full, of another version
    └── NetworkRefused         something tried to leave the machine

Messages never contain sample text: file, line, column and id only.
"""

from __future__ import annotations


class GoalCoverError(Exception):
    """One sentence that says what is wrong (`problem`) and one that says how to mend it (`mend`)."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.mend = mend

    def __reduce__(self) -> tuple[type[GoalCoverError], tuple[str, str]]:
        return type(self), (self.problem, self.mend)

    def __str__(self) -> str:
        return f"{self.problem} {self.mend}".strip()


class GoalError(GoalCoverError):
    """A goal file that cannot be used."""


class DataError(GoalCoverError):
    """A dataset file or row that cannot be read."""


class ModelError(GoalCoverError):
    """A model card or its weights: unknown, incomplete, altered or unsafe."""


class QuestionError(GoalCoverError):
    """A question folder that is malformed."""


class EngineError(GoalCoverError):
    """An engine that cannot load, or cannot hold the work."""


class StoreError(GoalCoverError):
    """A run folder that cannot be used: unreadable, locked, full, or of another version."""


class NetworkRefused(GoalCoverError):
    """Something tried to leave the machine."""
