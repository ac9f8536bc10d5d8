"""What a process keeps to itself: modes of files, cores, errors that nobody catches, warnings, log lines."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from goalcover_local import privacy
from goalcover_local.privacy import PrivacyWarning
from goalcover_local.store import Run

CANARY = "Zwiebelkuchen4711"
ROOT = Path(__file__).parents[1]
BEGUN = "from goalcover_local import privacy; privacy.begin(debug={debug})\n"


def process(code: str, *, debug: bool = False, begun: bool = True) -> subprocess.CompletedProcess[str]:
    """A Python that ran this code, private from its beginning, its log level and warnings at their loudest."""
    program = (BEGUN.format(debug=debug) if begun else "") + textwrap.dedent(code)
    loud = dict.fromkeys(("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"), "debug")
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "default", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        umask=0,
        env={**os.environ, **loud},
        timeout=120,
    )


# What is written


def test_files_and_folders_are_made_for_their_owner(tmp_path: Path) -> None:
    place = tmp_path / "place"
    process(f"from pathlib import Path; p = Path({str(place)!r}); p.mkdir(); (p / 'file').touch()")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place, place / "file")] == [0o700, 0o600]


def test_no_core_is_dumped_neither_to_a_file_nor_to_a_pipe() -> None:
    limits = process("import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))").stdout.split()
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert limits == (["0", "0"] if most == 0 else ["1", "1"])


def test_a_limit_that_is_lower_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    privacy._dump_no_core()
    assert told == [(0, 0)]


# What is said

FAILURES = {
    "nobody catches it": "raise ValueError('{canary}')",
    "in a thread": """
        import threading
        def fail(): raise ValueError('{canary}')
        thread = threading.Thread(target=fail); thread.start(); thread.join()
        """,
    "while cleaning up": """
        class Torn:
            def __del__(self): raise ValueError('{canary}')
        Torn()
        """,
    "a warning": "import warnings; warnings.warn('{canary}')",
    "a deprecation": "import warnings; warnings.warn('{canary}', DeprecationWarning)",
    "a log line": "import logging; logging.error('{canary}')",
    "a log line of a library": """
        import logging
        for name in ("transformers", "datasets", "trl", "vllm", "httpx", "matplotlib", "torch", "asyncio"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.addHandler(logging.StreamHandler())
            logger.critical('{canary}')
        """,
    "in an event loop": """
        import asyncio, gc
        async def fail(): raise ValueError('{canary}')
        async def main():
            task = asyncio.ensure_future(fail())
            await asyncio.sleep(0.01)
            del task
            gc.collect()
        asyncio.run(main())
        """,
}


@pytest.mark.parametrize("name", FAILURES)
def test_nothing_that_goes_wrong_quotes_what_it_worked_on(name: str) -> None:
    code = textwrap.dedent(FAILURES[name]).format(canary=CANARY)
    done = process(code)
    assert CANARY not in done.stdout + done.stderr
    assert CANARY in process(code, begun=False).stderr, "else it would prove nothing"
    assert CANARY in process(code, debug=True).stderr, "a person who asks is told"


@pytest.mark.parametrize("name", ["nobody catches it", "in a thread"])
def test_the_kind_of_an_error_is_told_with_its_mend(name: str) -> None:
    said = process(textwrap.dedent(FAILURES[name]).format(canary=CANARY)).stderr
    assert "Error: ValueError, which was not foreseen.\n" in said and "goalcover --debug" in said
    assert "Traceback" not in said


def test_what_libraries_log_at_their_loudest_is_not_said() -> None:
    code = f"""
    import transformers, datasets
    transformers.logging.set_verbosity_debug()
    datasets.logging.set_verbosity_debug()
    transformers.logging.get_logger("transformers.anything").warning("{CANARY}")
    datasets.logging.get_logger("datasets.anything").warning("{CANARY}")
    """
    done = process(code)
    assert done.returncode == 0 and CANARY not in done.stdout + done.stderr


def test_a_device_s_process_that_cannot_load_tells_the_kind_alone() -> None:
    code = f"""
    from multiprocessing import Pipe
    from goalcover_local.engines import loading, pool
    def fail(*_, **__): raise ValueError("{CANARY}")
    loading.load = fail
    here, there = Pipe()
    pool._serve(there, "transformers", {{}})
    print(here.recv().problem)
    """
    done = process(code, begun=False)
    assert done.stdout == "A device's process failed: ValueError.\n" and CANARY not in done.stderr


def test_warnings_of_our_own_are_shown() -> None:
    code = "import warnings; warnings.warn('In our words.', privacy.PrivacyWarning); warnings.warn('Other words.')"
    assert process(code).stderr == "Warning: In our words.\n"


def test_a_closed_stderr_is_no_failure() -> None:
    done = process("import sys; sys.stderr.close(); raise ValueError('x')")
    assert done.returncode == 1 and done.stderr == ""


def test_the_executable_is_private_before_it_does_anything(tmp_path: Path) -> None:
    code = """
    import os, sys, threading, logging
    from goalcover_local import privacy
    from goalcover_local.cli import main
    sys.argv = ["goalcover", "--version"]
    try:
        main.run()
    except SystemExit:
        pass
    print(os.umask(0), sys.excepthook is privacy._tell_kind, logging.root.manager.disable)
    """
    assert process(code, begun=False).stdout.splitlines()[-1] == "63 True 50"


def test_debug_says_first_what_it_may_show() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "goalcover_local.cli.main", "--debug", "show", "nowhere"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.stderr.startswith(f"{privacy.DEBUG}\n") and "Traceback" in done.stderr


# Who may look into a run


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701])
def test_reading_a_run_that_others_may_look_into_warns(tmp_path: Path, mode: int) -> None:
    Run.open(tmp_path / "run", write=True, create=True).close()
    (tmp_path / "run").chmod(mode)
    with pytest.warns(PrivacyWarning, match=rf"mode {mode:04o}\): close it with `chmod 700`"):
        Run.open(tmp_path / "run", write=False).close()


def test_reading_a_run_that_is_closed_to_others_warns_of_nothing(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", write=True, create=True).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run.open(tmp_path / "run", write=False).close()
        privacy.check_folder(tmp_path / "nowhere")
