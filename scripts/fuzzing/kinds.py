"""What is read, by what, and the valid files that are mutated."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from .mutations import Kind

NAMES = (
    "safetensors",
    "GGUF",
    "model folder",
    "manifest",
    "data, JSONL",
    "data, JSON",
    "data, CSV",
    "data, TSV",
    "data, gzip",
    "data, Parquet",
    "labels",
    "goal",
    "subgoals",
    "answers",
    "review sheet",
    "card",
    "reward",
    "question",
)
"""The kinds of file, as `kinds_of` tells them."""


def kinds_of(data: Path | None, home: Path) -> list[Kind]:
    """Every kind of file, with those of a folder among what is mutated. Imports all that a worker needs, once."""
    import gguf
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    from goalcover_local.cards import load_card
    from goalcover_local.finetune.rubric import load_rubric, rewards
    from goalcover_local.goal_files.reading import parse_goal, read_answers, read_goal, read_subgoals, shipped_goals
    from goalcover_local.goal_files.review_sheets import read_sheet, sheet
    from goalcover_local.goal_files.tables import text_of
    from goalcover_local.headers import check_gguf, check_safetensors
    from goalcover_local.labels import read_labels
    from goalcover_local.model_folder import MANIFEST, model_files
    from goalcover_local.questions import Question, load_question
    from goalcover_local.readers import read, recognise
    from goalcover_local.resources import shipped
    from goalcover_local.weights import verify

    def file(name: str, use: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
        def reading(place: Path, content: bytes) -> object:
            (place / name).write_bytes(content)
            return use(place / name)

        return reading

    def rows(path: Path) -> None:
        for _ in read(path, recognise(path)):
            pass

    def tensors(path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        check_safetensors(path)
        with suppress(SafetensorError), safe_open(path, framework="np") as opened:  # as an engine tells it
            list(opened.keys())

    def gguf_file(path: Path) -> None:
        check_gguf(path)
        with suppress(ValueError):  # as a conversion tells it
            gguf.GGUFReader(path)

    def card(path: Path) -> None:
        (home / "cards").mkdir(parents=True, exist_ok=True)
        path.replace(home / "cards" / "fuzzed.toml")
        load_card("fuzzed")

    def asked(question: Question) -> None:
        texts = dict.fromkeys(question.placeholders, "text")
        question.prompt(texts, asking=question.fields[0])
        question.prompt(texts)

    def folder_with(files: Mapping[str, bytes], use: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
        """Reads a folder of which one file is replaced: by which byte the mutated content begins says which."""

        def reading(place: Path, content: bytes) -> object:
            name, _, mutated = content.partition(b"\n")
            chosen = name.decode("utf-8", "replace")
            for each, whole in files.items():
                (place / each).write_bytes(mutated if each == chosen else whole)
            return use(place)

        return reading

    goals = [path.read_bytes() for path in shipped_goals().values()]
    goal = parse_goal(goals[0].decode(), "goal")
    small = json.dumps(
        {
            name: {"dtype": "F32", "shape": [2, n], "data_offsets": [8 * n * (n - 1) // 2, 8 * n * (n + 1) // 2]}
            for n, name in enumerate(("wte", "lm_head.weight", "norm"), 1)
        }
        | {"__metadata__": {"format": "pt"}}
    )

    def safetensors_of(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + bytes(48)

    model = {
        "config.json": b'{"model_type": "llama", "hidden_size": 32, "text_config": {"vocab_size": 400}}',
        "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}}}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}", "added_tokens_decoder": {"0": {}}}',
        "model.safetensors.index.json": b'{"weight_map": {"wte": "model.safetensors"}}',
        "model.safetensors": safetensors_of(small.encode()),
    }

    def verified(path: Path) -> None:
        target = home / "models" / "prometheus-7b-v2.0"
        target.mkdir(parents=True, exist_ok=True)
        for name, held in model.items():
            if not (target / name).exists():
                (target / name).write_bytes(held)
        path.replace(target / MANIFEST)
        verify(load_card("prometheus-7b-v2.0"))

    dataset = [
        {
            "id": f"r{n}",
            "question": f"What is {n}, “é” 日本?",
            "answer": ["One line.", "Two\nlines.", None][n % 3],
            "n": n,
            "deep": {"list": [n, 0.5, True]},
        }
        for n in range(8)
    ]
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in dataset)
    chat = (
        b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"text": "Ho"}]}]}\n' * 3
    )
    separated = b'id,question,answer\n1,"What, then?","So ""it"" is\nhere"\n2,Why?,Because.\n'
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(dataset), sink)

    def of_suffix(suffix: str) -> list[bytes]:
        found = sorted(data.rglob(f"*{suffix}")) if data else []
        return [b"\n".join(path.read_bytes()[: 1 << 16].split(b"\n")[:40]) for path in found][:50]

    writer_place = home / "seed.gguf"
    writer = gguf.GGUFWriter(writer_place, "llama")
    writer.add_uint32("general.alignment", 32)
    writer.add_array("tokenizer.ggml.tokens", [f"token{n}" for n in range(20)])
    writer.add_array("tokenizer.ggml.token_type", [1] * 20)
    writer.add_string("tokenizer.chat_template", "{{ messages }}")
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(32, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()

    grammars = shipped("grammars")
    rewarding = {
        name: {part.name: part.read_bytes() for part in (grammars / name).iterdir() if part.is_file()}
        for name in rewards()
    }
    asking = {part.name: part.read_bytes() for part in (grammars / "alignment").iterdir() if part.is_file()}

    def named(files: Mapping[str, bytes]) -> list[bytes]:
        return [name.encode() + b"\n" + content for name, content in files.items()]

    reward = next(iter(rewarding.values()))
    records = {name: {"bytes": len(held), "sha256": hashlib.sha256(held).hexdigest()} for name, held in model.items()}
    manifest = json.dumps({"card": "prometheus-7b-v2.0", "written": "2026", "files": records}).encode()
    answers = (
        b'[[exchanges]]\naspect = "audience"\nanswer = "Nurses."\n'
        b'[[accepted]]\nconstraint = "atomicity"\nsubgoals = ["a"]\nreason = "So."\n'
    )
    filled = sheet(goal).replace("[ ] yes", "[x] yes").replace("Reviewer:", "Reviewer: Ann").encode()
    names = re.compile(rb'^name = "[^"]*"', re.MULTILINE)
    cards = [names.sub(b'name = "fuzzed"', each.read_bytes()) for each in sorted(shipped("models").glob("*.toml"))]
    labels = b"id,subgoal,label,drawn\nr1,a,yes,random\nr2,a,0.25,disagreement\n"
    listed = b"- Knots: ties knots.\n2) Bread: bakes.\n# no\nWords\n"
    return [
        Kind("safetensors", [small.encode()], file("model.safetensors", tensors), safetensors_of),
        Kind("GGUF", [writer_place.read_bytes()], file("model.gguf", gguf_file)),
        Kind("model folder", named(model), folder_with(model, model_files)),
        Kind("manifest", [manifest], file(MANIFEST, verified)),
        Kind("data, JSONL", [lines, chat, *of_suffix(".jsonl")], file("data.jsonl", rows)),
        Kind(
            "data, JSON",
            [
                json.dumps(dataset).encode(),
                json.dumps({row["id"]: row for row in dataset}).encode(),
                *of_suffix(".json"),
            ],
            file("data.json", rows),
        ),
        Kind("data, CSV", [separated, *of_suffix(".csv")], file("data.csv", rows)),
        Kind("data, TSV", [separated.replace(b",", b"\t")], file("data.tsv", rows)),
        Kind("data, gzip", [lines], file("data.jsonl.gz", rows), lambda content: gzip.compress(content, 1, mtime=0)),
        Kind("data, Parquet", [sink.getvalue().to_pybytes()], file("data.parquet", rows)),
        Kind("labels", [labels], file("labels.csv", read_labels)),
        Kind("goal", goals, file("goal.toml", read_goal)),
        Kind("subgoals", [listed, goals[0]], file("subgoals.txt", read_subgoals)),
        Kind("answers", [answers, goals[0]], file("answers.toml", read_answers)),
        Kind(
            "review sheet",
            [filled],
            file("sheet.md", lambda path: read_sheet(text_of(path), goal, "sheet")),
        ),
        Kind("card", cards, file("card.toml", card)),
        Kind("reward", named(reward), folder_with(reward, lambda place: asked(load_rubric(str(place)).question))),
        Kind(
            "question",
            named(asking),
            folder_with(asking, lambda place: asked(load_question(place.name, folder=place.parent))),
        ),
    ]
