"""`goalcover serve`: a judge's weights behind vLLM's server on loopback, warm for many runs and for a trainer."""

from __future__ import annotations

from typing import Any

import click

from .judging import reads_all, verify_option


@click.command("serve", short_help="Keep a judge warm in a vLLM server on this machine's loopback.")
@click.option("--judge", "card_name", help="The judge's card; the embedded one if not given.")
@click.option("--port", type=click.IntRange(1024, 65535), default=8000, show_default=True, help="Port on 127.0.0.1.")
@verify_option
def command(card_name: str | None, port: int, **options: Any) -> None:
    """Serve the verified weights of a judge until Ctrl-C, for any number of runs with --engine server.

    It is vLLM's own server with the settings that GoalCover needs, and its processes are shut as all of GoalCover's
    are: only this machine can reach it, and it can reach nothing else. It takes token ids, as GoalCover sends them, and
    refuses conversations, which vLLM would render by the model's own template, without a bound.

    \b
    Example:
      goalcover serve --judge qwen2.5-coder-1.5b-instruct --port 8000
      goalcover assess goal.toml data.jsonl --judge qwen2.5-coder-1.5b-instruct \\
          --engine server --url http://127.0.0.1:8000 --run runs/served
    """
    import os

    from ..cards import DEFAULT_CARD, load_card
    from ..engines import server_engine
    from ..weights import verify

    card = load_card(card_name or DEFAULT_CARD)
    weights = verify(card, reads_all(options))
    arguments, variables = server_engine.command(
        weights.directory,
        name=server_engine.served_name(card.name, weights.digest),
        port=port,
        context=card.context,
        precision=card.precision,
        options=card.engine_options.get("vllm"),
    )
    click.echo(f"Serving {card.name} at http://127.0.0.1:{port} in a minute or so. Ctrl-C ends it.", err=True)
    os.execve(arguments[0], arguments, {**os.environ, **variables})
