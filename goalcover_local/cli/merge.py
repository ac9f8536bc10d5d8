"""`goalcover merge`: a trained policy as a model of its own, for any program that reads safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .judging import reads_all, verify_option

MERGED = "policy merged"


@click.command("merge", short_help="Write a trained policy as a plain model, its adapter merged in.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write; a new one.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]), help="The base's if not given.")
@verify_option
@click.option("--json", "as_json", is_flag=True, help="Print the digest of each file as JSON.")
def command(run: Path, name: str, output: Path, **options: Any) -> None:
    """Write the policy NAME, which `goalcover train` made in folder RUN, as a model without an adapter.

    The folder holds safetensors, configuration, tokenizer and chat template: transformers and vLLM load it as they load
    any model. Nothing in it is a pickle. The base is that of the card it was trained from, verified; the adapter must
    be the one that the training wrote.

    With --json: run, name, folder, and files with their SHA-256.

    \b
    Example:
      goalcover merge runs/lay original -o merged
    """
    from ..cards import load_card
    from ..errors import StoreError
    from ..finetune.merge import merge
    from ..store import Run
    from ..terms import UNTUNED
    from ..trainings import Trainings
    from ..weights import verify
    from .table import as_text
    from .terminal import plain
    from .training import adapter_folder, check_policy

    if name == UNTUNED:
        raise StoreError(
            f'"{UNTUNED}" is the policy before any training: there is nothing to merge.',
            "Name a policy that `goalcover train` made, as `goalcover status` lists them.",
        )
    with Run.open(run, write=True) as opened:
        trainings = Trainings(opened)
        card = load_card(trainings.settings(name)["policy"]["card"])
        base = verify(card, reads_all(options))
        check_policy(trainings, name, card)
        files = merge(base.directory, adapter_folder(trainings, name), output, precision=options["precision"] or "auto")
        opened.event(MERGED, {"name": name, "base": base.digest, "files": files}, "goalcover merge")
    if options["as_json"]:
        click.echo(as_text({"run": str(run), "name": name, "folder": str(output), "files": files}))
    else:
        for file, digest in files.items():
            click.echo(f"{digest}  {plain(file)}")
        click.echo(f"written to {plain(str(output))}")
