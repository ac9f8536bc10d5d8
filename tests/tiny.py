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
    "<sample>\nInput: ${input}\nOutput: ${output}\n</sample>\n",
    "${name}: ${description}",
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
