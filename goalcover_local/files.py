"""Files: written whole or not at all, and told apart by their digests."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .errors import GoalError


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits, read in pieces. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, text: str, *, mode: int | None = None) -> None:
    """Nothing; the file now holds this text, in UTF-8. `mode` is its permissions; None keeps those of an old one.

    Written beside it, flushed to the disk and renamed: whatever happens, the old file or the new one stands. Raises
    GoalError if it cannot be written.
    """
    try:
        if mode is None:
            umask = os.umask(0)
            os.umask(umask)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except UnicodeEncodeError:
        raise GoalError(
            f"{path} cannot be written: its text holds half a character.", "Type the text that was pasted again."
        ) from None
    except OSError as error:
        raise GoalError(
            f"{path} cannot be written: {error.strerror}.", "Check the folder, its permissions and its free space."
        ) from None
