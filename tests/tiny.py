"""Small things for tests: a question of a few words, samples, subgoals, and random models of a few kilobytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from goalcover_local.answers import JsonForm
from goalcover_local.engines.base import Prompt
from goalcover_local.questions import Question
from goalcover_local.terms import ANCHORS, Sample, Subgoal

PROPERTIES = {"score": {"enum": list(ANCHORS)}, "explanation": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "properties": PROPERTIES,
    "required": ["score", "explanation"],
    "additionalProperties": False,
}
EXAMPLE = {
    "fields": {"input": "Sky?", "output": "Blue.", "name": "Colours", "description": "Names colours."},
    "answer": {"score": 1.0, "explanation": "It names one."},
}
QUESTION = Question(
    "tiny",
    "Score the sample from 0.0 to 1.0.",
    ("<sample>\nInput: ${input}\nOutput: ${output}\n</sample>\n", "${name}: ${description}"),
    JsonForm(SCHEMA),
    (EXAMPLE,),
)
SAMPLES = (
    Sample("knots", "Which knot joins two ropes?", "The sheet bend does."),
    Sample("bread", "How long does bread rise?", "An hour, in a warm place."),
    Sample("words", "Was heißt „naïve“ 日本 😀?", "Jemand ohne Arg."),
)
SUBGOALS = (
    Subgoal("ropes", "Ropes", "Explains knots."),
    Subgoal("food", "Food", "Cooking and baking, told step by step."),
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>")


def prompt(
    sample: Sample,
    subgoal: Subgoal,
    asking: str | None = "score",
    known: dict[str, Any] | None = None,
    question: Question = QUESTION,
) -> Prompt:
    """The tiny question, or another, about one pair."""
    texts = {"input": sample.input, "output": sample.output, "name": subgoal.name, "description": subgoal.description}
    return question.prompt(texts, known, asking=asking)


def prompts(samples: Iterable[Sample] = SAMPLES, subgoals: Iterable[Subgoal] = SUBGOALS) -> list[Prompt]:
    """The tiny question about every pair, sample outermost."""
    subgoals = list(subgoals)
    return [prompt(sample, subgoal) for sample in samples for subgoal in subgoals]


def tokenizer() -> Any:
    """A byte-level tokenizer of some 400 tokens, in which " 0" is one: a token that spans the answer's border."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    answers = [json.dumps({"score": score, "explanation": "it is the sample of a capability"}) for score in ANCHORS]
    texts = [
        *answers * 3,
        QUESTION.shared,
        *(f"{s.input} {s.output}" for s in SAMPLES),
        "user assistant system",
        "</sample> " * 9,
    ]
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token=MARKS[0], eos_token=MARKS[1], chat_template=TEMPLATE
    )


def write_checkpoint(directory: Path, kind: str = "llama", **settings: Any) -> Path:
    """The folder, holding a random model of an architecture and the tiny tokenizer, as safetensors."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tokenizer()
    words.save_pretrained(directory)
    common = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.eos_token_id,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**common, **settings}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.fill_(6.0)
    model.to(torch.float32).save_pretrained(directory, safe_serialization=True)
    return directory


MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def sentencepiece_tokenizer() -> Any:
    """A tokenizer of Llama's and Mistral's first kind: words behind a mark, bytes where it knows no piece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<unk>", "<s>", "</s>"]
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE())
    learner.normalizer = spaces
    texts = [QUESTION.shared, "Feedback: it is the sample of a capability. [RESULT] 0 1 2 3 4 5"] * 3
    texts += [json.dumps({"score": score, "explanation": "it is so"}) for score in ANCHORS]
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    built = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    built.normalizer = spaces
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.add_special_tokens(marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=MISTRAL_TEMPLATE,
    )


def write_prometheus(directory: Path) -> Path:
    """The folder, laid out as Prometheus 2 is: a random Mistral in several files, a Llama tokenizer, no system role."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    words = sentencepiece_tokenizer()
    words.save_pretrained(directory)
    settings = directory / "tokenizer_config.json"
    told = json.loads(settings.read_text("utf-8")) | {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    settings.write_text(json.dumps(told), "utf-8")
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=32768,
        sliding_window=None,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    model = MistralForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="60KB")
    return directory


def quantise_by_gptq(source: Path, target: Path, group: int = 32) -> tuple[Path, Path]:
    """Two folders: the checkpoint with its linear layers in GPTQ's 4-bit layout, and the same values written out.

    The layout: eight nibbles an int32 along the inputs, a scale for each group and output, a zero of 8 stored as 7.
    """
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    packed, plain = target / "packed", target / "plain"
    for folder in (packed, plain):
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    stored: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for name, weight in ((n, w) for f in sorted(source.glob("*.safetensors")) for n, w in load_file(f).items()):
        if "_proj." not in name:
            stored[name] = written[name] = weight
            continue
        n_out, n_in = weight.shape
        grouped = weight.float().reshape(n_out, n_in // group, group)
        scales = (grouped.abs().amax(-1) / 7).half()
        levels = (grouped / scales.float()[..., None]).round().clamp(-8, 7)
        written[name] = (levels * scales.float()[..., None]).reshape(n_out, n_in).to(weight.dtype)
        nibbles = (levels.reshape(n_out, n_in).t() + 8).to(torch.int64).reshape(n_in // 8, 8, n_out)
        words = sum(nibbles[:, k] << (4 * k) for k in range(8))
        stem = name.removesuffix("weight")
        stored[stem + "qweight"] = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
        stored[stem + "qzeros"] = torch.full((n_in // group, n_out // 8), 0x77777777, dtype=torch.int32)
        stored[stem + "scales"] = scales.t().contiguous()
        stored[stem + "g_idx"] = torch.arange(n_in, dtype=torch.int32) // group
    for folder, tensors in ((packed, stored), (plain, written)):
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((packed / "config.json").read_text("utf-8"))
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
    }
    (packed / "config.json").write_text(json.dumps(config), "utf-8")
    return packed, plain
