"""install.sh: nothing is installed before every digest, and the signature if a key is given, was checked."""

from __future__ import annotations

import ensurepip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bundled
import pytest
from airgap import models, sealing, wheels
from airgap.target import target

from goalcover_local.pulling import add

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINE = os.uname().machine
NAMESPACE = ["unshare", "-rn"]

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of an empty file."""

Install = Callable[..., subprocess.CompletedProcess[str]]


def pip_wheel() -> Path | None:
    """The pip that comes with Python, where it does."""
    return next(iter(sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))), None)


def make(out: Path, platform: str = f"manylinux_2_17_{MACHINE}", python: str = HERE) -> Path:
    """A whole bundle: a `goalcover` that writes down how it was called, one dependency, pip, and a model."""
    shelf = bundled.script("bundle").prepare(out) / "wheels"
    project = bundled.wheel(shelf, "goalcover-local", "0.1.0", code=bundled.PRETENDED, command="goalcover")
    found = [wheels.read(project), wheels.read(bundled.wheel(shelf, "rope"))]
    if pip := pip_wheel():
        found.append(wheels.read(Path(shutil.copy(pip, shelf))))
    bundled.script("bundle").write(out, found, models.chosen(["tiny-judge"]), target(platform, python))
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that the tests copy."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOALCOVER_HOME", str(folder / "home"))
        add(bundled.model(folder / "weights"), "tiny-judge")
        return make(folder / "bundle")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "a bundle"))


@pytest.fixture
def install(bundle: Path, tmp_path: Path) -> Install:
    """Runs the bundle's installer in an empty home, with a strict umask and nothing of this environment."""

    def run(
        *arguments: object, code: int = 0, before: tuple[str, ...] = (), **world: str
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "my home").mkdir(exist_ok=True)
        ran = subprocess.run(
            [*before, f"{bundle.name}/install.sh", *map(str, arguments)],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "my home"), **world},
            capture_output=True,
            text=True,
            umask=0o077,
            check=False,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        if code == 1:
            assert len(ran.stderr.splitlines()) == 2, "what is wrong, and how to mend it"
            assert ran.stderr.startswith("Error: ")
        return ran

    return run


def test_a_whole_bundle_is_verified(install: Install) -> None:
    said = install("--verify-only").stdout
    assert "are as listed in SHA256SUMS, and there is no other" in said


def alter(bundle: Path) -> None:
    path = bundle / "home" / "models" / "tiny-judge" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def list_more(bundle: Path, line: str) -> None:
    with (bundle / "SHA256SUMS").open("a") as stream:
        stream.write(line)


def outside(bundle: Path) -> None:
    (bundle.parent / "outside").touch()
    list_more(bundle, f"{NOTHING}  ./../outside\n")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (alter, "home/models/tiny-judge/model.safetensors"),
        (lambda bundle: (bundle / "requirements.txt").unlink(), "requirements.txt"),
        (lambda bundle: (bundle / "wheels" / "more.whl").touch(), "wheels/more.whl"),
        (lambda bundle: (bundle / "wheels" / ".hidden").touch(), "wheels/.hidden"),
        (lambda bundle: (bundle / "wheels" / "link.whl").symlink_to("/etc/passwd"), "wheels/link.whl"),
        (lambda bundle: os.mkfifo(bundle / "pipe"), "pipe"),
        (lambda bundle: (bundle / "docs" / "guide.md\nrequirements.txt").touch(), "docs/guide.md holds a control"),
        (lambda bundle: (bundle / "docs" / "\x1b[2J").touch(), "docs/[2J holds a control character"),
        (lambda bundle: (bundle / "requirements\\.txt").touch(), "holds a control character or a backslash"),
        (lambda bundle: list_more(bundle, f"SHA256 (install.sh) = {NOTHING}\n"), "no digest and name"),
        (lambda bundle: list_more(bundle, f"\\{NOTHING}  two\\nlines\n"), "no digest and name"),
        (lambda bundle: (bundle / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (lambda bundle: (bundle / "SHA256SUMS").write_text("no sums\n"), "is not listed"),
        (outside, "outside the bundle"),
    ],
)
def test_a_bundle_that_is_not_as_listed_is_refused(
    bundle: Path, install: Install, damage: Callable[[Path], object], named: str
) -> None:
    damage(bundle)
    assert named in install("--verify-only", code=1).stderr


@pytest.fixture(scope="module", params=["ed25519", "P-256"])
def keys(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A private key, its public key, and another's public key."""
    folder = tmp_path_factory.mktemp("keys")
    kind = ["ed25519"] if request.param == "ed25519" else ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    for name in ("ours", "theirs"):
        secret, public = str(folder / f"{name}.key"), str(folder / f"{name}.pub")
        subprocess.run(["openssl", "genpkey", "-algorithm", *kind, "-out", secret], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
    return folder / "ours.key", folder / "ours.pub", folder / "theirs.pub"


def test_a_signature_is_checked_with_the_key_that_is_given(
    bundle: Path, install: Install, keys: tuple[Path, Path, Path]
) -> None:
    secret, ours, theirs = keys
    assert "not signed" in install("--verify-only", "--key", ours, code=1).stderr
    sealing.sign(bundle, secret)
    assert "The signature of SHA256SUMS is the key's." in install("--verify-only", "--key", ours).stdout
    assert "not signed with this key" in install("--verify-only", "--key", theirs, code=1).stderr
    assert "not signed with this key" in install("--verify-only", "--key", secret, code=1).stderr
    assert "no key" in install("--verify-only", "--key", bundle / "nowhere", code=1).stderr
    assert "the signature was not checked" in install("--verify-only").stdout
    sums, signature = bundle / "SHA256SUMS", bundle / "SHA256SUMS.sig"
    alter(bundle)
    sealed = signature.read_bytes()
    sealing.write_sums(bundle)
    assert sums.is_file(), "whoever alters a file can list it again"
    signature.write_bytes(sealed)
    assert "altered since" in install("--verify-only", "--key", ours, code=1).stderr
    signature.write_bytes(b"")
    assert "altered since" in install("--verify-only", "--key", ours, code=1).stderr


def test_another_machine_or_python_is_refused_before_anything_else(
    made: Path, bundle: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (bundle / "install.sh").read_text(encoding="utf-8")
    for old, new, told in (
        (f"machine_wanted='{MACHINE}'", "machine_wanted='s390x'", "is for Linux on s390x"),
        ("glibc_wanted='2.17'", "glibc_wanted='2.99'", "needs glibc 2.99 or newer"),
        (f"python_wanted='{HERE}'", "python_wanted='3.99'", "needs CPython 3.99"),
    ):
        assert old in text
        (bundle / "install.sh").write_text(text.replace(old, new), encoding="utf-8")
        sealing.write_sums(bundle)
        assert told in install("--python", sys.executable, code=1).stderr
    (bundle / "install.sh").write_text(text, encoding="utf-8")
    sealing.write_sums(bundle)
    assert "needs CPython" in install("--python", tmp_path / "nowhere", code=1).stderr
    assert not (tmp_path / "my home" / "goalcover-venv").exists()


PLANTED = "import pathlib; pathlib.Path({!r}).touch()\n"


def plant(bundle: Path, marker: Path) -> None:
    """Nothing; Python modules lie in the bundle's folder that leave a mark if one of them is run."""
    for name in ("venv", "pip", "sitecustomize", "runpy"):
        (bundle / f"{name}.py").write_text(PLANTED.format(str(marker)), encoding="utf-8")


@pytest.mark.parametrize("signed", [False, True])
def test_nothing_of_the_bundle_is_run_before_it_is_verified(
    bundle: Path, install: Install, keys: tuple[Path, Path, Path], tmp_path: Path, signed: bool
) -> None:
    secret, ours, _ = keys
    sealing.sign(bundle, secret)
    plant(bundle, tmp_path / "marker")
    python = bundle / "python"
    python.write_text(f"#!/bin/sh\ntouch '{tmp_path}/marker'\n", encoding="utf-8")
    python.chmod(0o755)
    given = ("--key", ours) if signed else ()
    assert "is not listed" in install("--python", python, *given, code=1, PYTHONPATH=str(bundle)).stderr
    assert "is not listed" in install("--python", sys.executable, *given, code=1).stderr
    assert not (tmp_path / "marker").exists()


def test_no_module_of_the_bundle_stands_in_for_pythons(bundle: Path, install: Install, tmp_path: Path) -> None:
    plant(bundle, tmp_path / "marker")
    sealing.write_sums(bundle)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    said = install("--python", sys.executable, "--venv", "mine", code=1, PYTHONPATH=str(bundle)).stderr
    assert "was not made by this installer" in said, "Python was asked for its version"
    assert not (tmp_path / "marker").exists()


def test_where_folders_and_programs_are_sought_leads_nowhere_else(
    bundle: Path, install: Install, tmp_path: Path
) -> None:
    (tmp_path / "decoys" / bundle.name).mkdir(parents=True)
    assert "are as listed" in install("--verify-only", CDPATH=str(tmp_path / "decoys")).stdout
    for path in (".:/usr/bin:/bin", "/usr/bin::/bin", "/usr/bin:/bin:", "/usr/bin:/bin:programs"):
        assert "PATH names a folder that is not absolute" in install("--verify-only", code=1, PATH=path).stderr


MISLEADING = (
    "LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT GCONV_PATH LOCPATH OPENSSL_CONF OPENSSL_MODULES OPENSSL_ENGINES BASH_ENV ENV"
)


def stand_in(folder: Path, program: str, text: str) -> str:
    """The PATH by which a program of that name is the script `text` with the rest of the line, then the true one."""
    folder.mkdir(exist_ok=True)
    path = folder / program
    path.write_text(f'#!/bin/sh\n{text}\nexec {shutil.which(program)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_no_program_is_told_where_to_seek_libraries_and_settings(install: Install, tmp_path: Path) -> None:
    programs = ("find", "awk", "grep", "sha256sum", "wc")
    for program in programs:
        path = stand_in(tmp_path / "watched", program, f"env >>'{tmp_path}/seen.{program}'")
    install("--verify-only", PATH=path, **dict.fromkeys(MISLEADING.split(), f"{tmp_path}/nowhere:"))
    for program in programs:
        seen = dict(line.partition("=")[::2] for line in (tmp_path / f"seen.{program}").read_text("utf-8").splitlines())
        assert seen["LC_ALL"] == "C" and not set(MISLEADING.split()) & set(seen), program


@pytest.mark.parametrize(
    ("given", "kept"), [("/libs:/more", True), ("/libs:", False), ("libs", False), ("/l;.", False)]
)
def test_python_is_given_the_absolute_folders_of_libraries_again(
    bundle: Path, install: Install, tmp_path: Path, given: str, kept: bool
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho \"${{LD_LIBRARY_PATH-none}}\" >'{tmp_path}/seen'\n", encoding="utf-8")
    python.chmod(0o755)
    install("--python", python, code=1, LD_LIBRARY_PATH=given)
    assert (tmp_path / "seen").read_text("utf-8") == f"{given if kept else 'none'}\n"


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        ("find", "-name"),
        ("find", "-d"),
        ("find", "-path"),
        ("awk", "-"),
        ("grep", "-v"),
        ("grep", "outside"),
        ("sha256sum", "--check"),
        ("wc", "-l"),
    ],
)
def test_a_check_that_dies_finds_no_bundle_whole(install: Install, tmp_path: Path, program: str, argument: str) -> None:
    pattern = {"outside": "*{66}*", "-d": "*-type*-type*"}.get(argument, f"*{argument}*")
    path = stand_in(tmp_path / "dying", program, f"case $* in {pattern}) exit 2 ;; esac")
    ran = install("--verify-only", code=1, PATH=path)
    assert "there is no other" not in ran.stdout
    assert f"could not be checked: {program} failed" in ran.stderr or program == "sha256sum"


def test_places_that_are_not_the_installers_are_left_alone(bundle: Path, install: Install, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    assert (
        "was not made by this installer"
        in install("--python", sys.executable, "--venv", "mine", "--home", "models", code=1).stderr
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work"]
    assert "lies in the bundle" in install("--python", sys.executable, "--venv", bundle / "venv", code=1).stderr
    assert "There is no option --unknown." in install("--unknown", code=2).stderr
    assert "needs a value" in install("--venv", code=1).stderr


def test_a_folder_that_cannot_be_listed_is_not_the_installers(install: Install, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    path = stand_in(tmp_path / "dying", "ls", "exit 2")
    said = install("--python", sys.executable, "--venv", "mine", code=1, PATH=path).stderr
    assert "was not made by this installer" in said and (tmp_path / "mine" / "work").exists()


@pytest.mark.skipif(pip_wheel() is None, reason="this Python comes without pip")
def test_it_installs_without_a_network_and_twice_the_same(bundle: Path, install: Install, tmp_path: Path) -> None:
    plant(bundle, tmp_path / "marker")
    sealing.write_sums(bundle)
    has_namespaces = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    before = tuple(NAMESPACE) if has_namespaces else ()
    venv, home = tmp_path / "an environment", tmp_path / "the models"
    places = ("--python", sys.executable, "--venv", venv.name, "--home", home.name)
    said = install(*places, before=before)
    assert "3 packages are installed" in said.stdout and f"GOALCOVER_HOME='{home}'" in said.stdout
    lines = ["models verify tiny-judge --full", f"doctor --judge tiny-judge --run {home}"]
    assert (home / "calls").read_text(encoding="utf-8").splitlines() == lines
    assert (home / "cards" / "tiny-judge.toml").is_file()
    assert home.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "marker").exists(), "no module of the bundle was run in place of Python's"
    program = subprocess.run([venv / "bin" / "python", "-c", "import rope"], check=False)
    assert program.returncode == 0

    (venv / "kept").touch()
    assert "The packages are installed" in install(*places, before=before).stdout
    assert (venv / "kept").exists(), "nothing is done twice"
    (venv / ".goalcover-bundle").write_text("unfinished", encoding="utf-8")
    shutil.rmtree(home / "models" / "tiny-judge")
    (home / "models" / ".tiny-judge.arriving").mkdir()
    install(*places, before=before)
    assert not (venv / "kept").exists(), "what was interrupted is made anew"

    manifest = home / "models" / "tiny-judge" / "goalcover-manifest.json"
    manifest.write_text("{}", encoding="utf-8")
    assert "holds other weights of tiny-judge" in install(*places, before=before, code=1).stderr
    shutil.rmtree(manifest.parent)
    (home / "unwell").touch()
    assert "tiny-judge is not ready" in install(*places, before=before, code=1).stderr

    card = home / "cards" / "tiny-judge.toml"
    card.write_text("# mine", encoding="utf-8")
    assert f"{card} is another card of that name." in install(*places, before=before, code=1).stderr
    assert card.read_text(encoding="utf-8") == "# mine"
