"""`goalcover doctor`: proves that a judge is ready to work here, and says what to mend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from .judging import Models, judge_options, named_card, reads_all
from .terminal import one_line

if TYPE_CHECKING:
    from ..cards import Card
    from ..judges import Judge


class Check(NamedTuple):
    """One thing looked at: whether it is well, and what was found (with the mend where it is not)."""

    name: str
    well: bool
    found: str


@click.command("doctor", short_help="Prove that a judge is ready: weights, grammar, sockets, memory, run folder.")
@judge_options
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run folders are to lie.",
)
@click.option("--repeat", is_flag=True, help="Also judge 100 pairs twice, in other batches, and tell what changed.")
@click.option(
    "--prove-offline",
    is_flag=True,
    help="Instead: assess rows that ship under the guard, and in an empty network namespace; tell what that proves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Check the judge's weights, its grammar, the shut network, the memory and the place for runs.

    Exit code 0 if all is well, else 1. What --prove-offline can not prove here it says, and that is no failure.

    --json also tells when and where: time, host, kernel, GoalCover's version, the judge and the digest of its weights
    (null where they are not here, or a server's), and whether it judged in a namespace with no network but a loopback.

    \b
    Example:
      goalcover doctor
      goalcover doctor --judge prometheus-7b-v2.0 --engine vllm --repeat --run /data/runs
      goalcover doctor --prove-offline
    """
    if options["prove_offline"]:
        from .proving import prove

        _refuse_ignored(ctx)
        ctx.exit(0 if prove(named_card(options), options) else 1)
    checks, card = [], named_card(options)
    for check in _checks(card, options):
        checks.append(check)
        if not options["as_json"]:
            click.echo(one_line(f"{'ok  ' if check.well else 'FAIL'}  {check.name}: {check.found}"))
    well = all(check.well for check in checks)
    if options["as_json"]:
        from .proving import circumstances, is_alone

        told = {**circumstances(card, options), "namespace": is_alone(), "well": well}
        click.echo(json.dumps({**told, "checks": [check._asdict() for check in checks]}, indent=2))
    ctx.exit(0 if well else 1)


def _refuse_ignored(ctx: click.Context) -> None:
    """Nothing. Raises UsageError if an option was given that has no meaning with --prove-offline."""
    for name, option in {"run_folder": "--run", "repeat": "--repeat"}.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} has no meaning with --prove-offline: leave one of them out.")


def _checks(card: Card, options: Mapping[str, Any]) -> Iterator[Check]:
    from ..errors import GoalCoverError
    from ..offline import refused
    from ..weights import verify

    def told(name: str, look: Callable[[], str]) -> Check:
        try:
            return Check(name, True, look())
        except GoalCoverError as error:
            return Check(name, False, str(error))

    yield told("network", _network)
    n_refused = len(refused)
    yield told("run folder", lambda: _place(options["run_folder"]))
    weights = told("weights", lambda: f"{card.name} verified, digest {verify(card, reads_all(options)).digest[:16]}…")
    yield weights
    if not weights.well:
        return
    if options["engine"] != "server":
        size = sum(f.stat().st_size for f in verify(card).directory.glob("*.safetensors"))
        yield told("memory", lambda: _memory(size))
    yield from (told(name, look) for name, look in _for_vllm(options))
    with Models(options) as models:
        try:
            judge = models.judge(card)
        except GoalCoverError as error:
            yield Check("engine", False, str(error))
            return
        yield Check("engine", True, _engine(judge))
        yield told("grammar", lambda: _grammar(judge))
        yield told("thinking", lambda: _thinking(judge))
        yield told("anchors", lambda: _anchors(judge))
        if options["repeat"]:
            yield told("repetition", lambda: _repetition(judge))
    n_refused = len(refused) - n_refused
    yield Check("while judging", n_refused == 0, f"{n_refused} attempts to leave the machine")


def _engine(judge: Judge) -> str:
    identity = judge.identity
    name = str(identity["engine"])
    version = identity.get(name) or identity.get("vllm") or ""
    told = f"{name} {version}, {identity['precision']} on {identity['device']}"
    return told + (", its weights unverified" if identity.get("weights") == "unverified" else "")


def _network() -> str:
    """Proof that the guard refuses: an address that belongs to nobody (RFC 5737) is tried, and must be refused."""
    import socket

    from .. import offline
    from ..errors import GoalCoverError, NetworkRefused

    if not offline.is_shut():
        offline.shut()
    try:
        with offline.knocking(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
    except NetworkRefused:
        return "shut: a connection to 192.0.2.1 was refused before it left this process"
    raise GoalCoverError("The network guard let a connection out.", "Please report this; do not judge private data.")


def _place(folder: Path) -> str:
    from ..errors import StoreError
    from ..store import Run

    problem = Run.check_place(folder)
    if problem:
        raise StoreError(problem)
    return f"{folder} can hold runs"


def _memory(weights: int) -> str:
    from ..errors import EngineError
    from ..finetune.memory import available as free_memory

    available = free_memory("cpu")
    needed = int(weights * 1.2) + 1_000_000_000
    if available is not None and available < needed:
        raise EngineError(
            f"The judge needs about {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free.",
            "Close other programs, or use a smaller judge.",
        )
    free = "unknown" if available is None else f"{available / 1e9:.1f} GB"
    return f"about {needed / 1e9:.1f} GB needed, {free} free"


def _grammar(judge: Judge) -> str:
    from ..canary import binds

    return f"binds: asked for a poem, the judge answered {binds(judge.engine, judge.question)} tokens of a legal answer"


def _thinking(judge: Judge) -> str:
    from ..canary import answers_at_once

    return f"answers at once, with {answers_at_once(judge.engine, judge.question):.0%} against thinking aloud"


def _anchors(judge: Judge) -> str:
    from ..trials import tells_a_clear_case

    fitting, alien = tells_a_clear_case(judge)
    return f"a fitting capability gets {fitting:.2f}, an alien one {alien:.2f}"


def _repetition(judge: Judge) -> str:
    from ..trials import repeated

    found = repeated(judge)
    return (
        f"{found.n_pairs} pairs judged twice in other batches: {found.n_verdicts_changed} scores changed, the "
        f"expectation moved by at most {found.largest_move:.4f}, {found.n_failed} failed"
    )


def _for_vllm(options: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    """What vLLM needs on a machine with a GPU, where it is the engine."""
    from importlib.util import find_spec

    if options["engine"] not in ("auto", "vllm") or find_spec("vllm") is None:
        return
    import torch

    if not torch.cuda.is_available() and torch.version.cuda is None:
        return
    yield "driver", _driver
    yield "compiler", _compiler
    yield "kernels", _kernels


def _driver() -> str:
    """Whether the driver knows the CUDA that torch was built for."""
    import torch

    from ..errors import EngineError

    built = torch.version.cuda or "0.0"
    driver = int(getattr(torch._C, "_cuda_getDriverVersion", int)())
    known = f"{driver // 1000}.{driver % 1000 // 10}"
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch is built for CUDA {built} and finds no GPU to use; the driver knows CUDA {known}.",
            "Install an NVIDIA driver for that CUDA or a newer one, or use --engine transformers on the CPU.",
        )
    if driver // 1000 < int(built.partition(".")[0]):
        raise EngineError(
            f"The driver knows CUDA {known}; torch is built for CUDA {built}.",
            "Install a newer driver, or a torch and vLLM built for that CUDA.",
        )
    return f"CUDA {known}, torch built for {built}, {torch.cuda.get_device_name(0)}"


def _compiler() -> str:
    """Whether there is a C compiler, which Triton needs to build its kernels' launchers."""
    import os
    import shutil

    from ..errors import EngineError

    found = next(
        (path for name in (os.environ.get("CC"), "gcc", "cc", "clang") if name and (path := shutil.which(name))), None
    )
    if found is None:
        raise EngineError(
            "There is no C compiler, and Triton builds its launchers with one.", "Install gcc, or set CC to a compiler."
        )
    return found


def _kernels() -> str:
    """Whether FlashInfer, if vLLM would use it, has its kernels with it: else it fetches them on first use."""
    import shutil
    from importlib.util import find_spec

    from ..errors import EngineError

    if find_spec("flashinfer") is None:
        return "FlashInfer is not installed; vLLM brings its own attention kernels"
    if find_spec("flashinfer_cubin") is not None:
        return "FlashInfer has its kernels with it"
    if shutil.which("nvcc") is None or shutil.which("ninja") is None:
        return "FlashInfer is here without its kernels and without nvcc to build them, so vLLM leaves it out"
    raise EngineError(
        "FlashInfer is installed without its kernels and would build or download them when they are first used.",
        "Install flashinfer-cubin of the same version, or remove flashinfer-python.",
    )
