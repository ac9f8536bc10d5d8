"""The seal of a bundle: SHA256SUMS over every file, and a signature over SHA256SUMS by OpenSSL."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Collection
from pathlib import Path

from goalcover_local.errors import GoalCoverError
from goalcover_local.files import digest_of_file

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"


def refuse_others(bundle: Path, known: Collection[str]) -> None:
    """Nothing. Raises GoalCoverError for the first link, or unknown file, in the bundle: it would be signed too.

    `known` are names of files in the bundle, and of folders in it of which everything is known.
    """
    for path in sorted(bundle.rglob("*")):
        inside = path.relative_to(bundle)
        names = {inside.as_posix(), *(folder.as_posix() for folder in inside.parents)}
        if path.is_symlink() or not (path.is_dir() or names.intersection(known)):
            raise GoalCoverError(
                f"{inside.as_posix()!r} in {bundle} is no part of this bundle.", "Remove it, or name a new folder."
            )


def write_sums(bundle: Path) -> str:
    """The digest of SHA256SUMS, which now lists every other file, by name. Raises GoalCoverError for an odd one."""
    (bundle / SIGNATURE).unlink(missing_ok=True)
    lines = []
    for root, folders, files in os.walk(bundle):
        for name in (*folders, *files):
            path = Path(root, name)
            inside = path.relative_to(bundle).as_posix()
            kind = path.lstat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or not inside.isprintable() or "\\" in inside:
                raise GoalCoverError(f"{inside!r} cannot lie in a bundle.", "Remove it: only plain files are listed.")
            if stat.S_ISREG(kind) and inside != SUMS:
                lines.append(f"{digest_of_file(path)}  {inside}\n")
    (bundle / SUMS).write_text("".join(sorted(lines, key=lambda line: line[66:])), encoding="utf-8")
    return digest_of_file(bundle / SUMS)


def sign(bundle: Path, key: Path) -> None:
    """Nothing; SHA256SUMS.sig now holds the key's signature over SHA256SUMS.

    `key` is a private key in PEM form: Ed25519, or another that `openssl dgst -sign` takes. Raises GoalCoverError if
    OpenSSL refuses.
    """
    said = _openssl("pkey", "-in", str(key), "-noout", "-text")
    sums, signature = str(bundle / SUMS), str(bundle / SIGNATURE)
    if said.startswith("ED25519"):
        _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(key), "-in", sums, "-out", signature)
    else:
        _openssl("dgst", "-sha256", "-sign", str(key), "-out", signature, sums)


def _openssl(*arguments: str) -> str:
    try:
        ran = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise GoalCoverError("There is no openssl on this machine.", "Install OpenSSL 3 to sign.") from None
    if ran.returncode != 0:
        raise GoalCoverError(
            "OpenSSL could not sign with this key.",
            "Give a private key in PEM form: `openssl genpkey -algorithm ed25519 -out release.key` makes one.",
        )
    return ran.stdout
