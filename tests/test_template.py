"""A chat template may be a bomb: it renders within bounds of time and memory, whatever it waits for to go off."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny

from goalcover_local.engines import template
from goalcover_local.engines.base import Message, Prompt
from goalcover_local.engines.template import bounded
from goalcover_local.engines.tokens import PromptTokenizer
from goalcover_local.errors import EngineError


def tokenizer(chat_template: str) -> Any:
    words = tiny.tokenizer()
    words.chat_template = chat_template
    return words


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Half a second; afterwards everything is as it was."""
    monkeypatch.setattr(template, "SECONDS", 0.5)
    signals = (signal.SIGVTALRM, signal.SIGPROF)
    before = [*map(signal.getsignal, signals)], resource.getrlimit(resource.RLIMIT_AS)
    yield
    assert ([*map(signal.getsignal, signals)], resource.getrlimit(resource.RLIMIT_AS)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


BOMBS = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a text many times": "{% set n = 10 %}{{ ('a' * n ** 10)|length }}",
    "a text many times, computed while it is compiled": "{{ 'a' * 10 ** 10 }}",
    "a power": "{{ (10 ** (10 ** 10)) % 7 }}",
    "a rounding": "{{ 1|round(9999999999, 'ceil') }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "a width": "{{ '%9999999999d' % 1 }}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_ends(name: str) -> None:
    began = time.process_time()
    with pytest.raises(EngineError, match=r"takes more than 0\.5 s or 1 GB to render") as caught:
        PromptTokenizer(tokenizer(BOMBS[name] + tiny.TEMPLATE))
    assert time.process_time() - began < 20 and caught.value.mend


@pytest.mark.usefixtures("impatient")
def test_a_bomb_that_waits_for_its_sample_is_refused_then() -> None:
    waiting = "{% if 'Go' in messages[0].content %}" + BOMBS["loops in loops"] + "{% endif %}"
    prompts = PromptTokenizer(tokenizer(waiting + tiny.TEMPLATE))
    prompts.text(Prompt((Message("user", "Stay"),)))
    with pytest.raises(EngineError, match="takes more than"):
        prompts.text(Prompt((Message("user", "Go"),)))


NEVER_BACK = {
    "a comparison": "{% set n = namespace(a=[0], b=[0]) %}{% for i in range(40) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "a hash": "{% set n = namespace(a=(0,)) %}{% for i in range(40) %}{% set n.a = (n.a, n.a) %}{% endfor %}"
    "{{ {n.a: 1} }}",
}


@pytest.mark.parametrize("name", NEVER_BACK)
def test_a_template_that_never_comes_back_to_python_ends_the_process(name: str) -> None:
    code = (
        "import sys, jinja2.sandbox; from goalcover_local.engines import template\n"
        "made = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(sys.argv[1])\n"
        "template.SECONDS, template.LAST_SECONDS = 0.2, 0.8\n"
        "with template.bounded(): made.render()\n"
    )
    command = [sys.executable, "-c", code, NEVER_BACK[name]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGPROF, "", "")


def test_the_timer_that_ran_before_runs_on() -> None:
    def ring(number: int, frame: object) -> None:
        """Nothing."""

    before = signal.signal(signal.SIGPROF, ring)
    try:
        signal.setitimer(signal.ITIMER_PROF, 100, 50)
        with bounded():
            assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
            assert 0 < signal.getitimer(signal.ITIMER_PROF)[0] <= template.LAST_SECONDS + 0.1
            began = time.process_time()
            while time.process_time() - began < 0.3:
                pass
        left, interval = signal.setitimer(signal.ITIMER_PROF, 0)
        assert 90 < left < 99.8 and interval == 50 and signal.getsignal(signal.SIGPROF) is ring
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_threads_that_render_at_once_leave_the_memorys_limit_as_it_was() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    first_in, second_tried = threading.Event(), threading.Event()

    def first() -> None:
        with bounded():
            first_in.set()
            second_tried.wait(1)

    def second() -> None:
        first_in.wait()
        with bounded():
            second_tried.set()
            threads[0].join(1)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_template_that_writes_without_end_is_refused() -> None:
    with pytest.raises(EngineError, match=r"makes 5,000,\d+ characters of \d+"):
        PromptTokenizer(tokenizer("{{ 'a' * 5000000 }}" + tiny.TEMPLATE))


def test_a_long_conversation_is_none_that_swells() -> None:
    prompts = PromptTokenizer(tokenizer(tiny.TEMPLATE))
    assert len(prompts.text(Prompt((Message("user", "long " * 600_000),)))) > 3_000_000


def test_why_a_template_refuses_is_cut() -> None:
    with pytest.raises(EngineError, match=r"refuses an ordinary conversation: a{200}\. ") as caught:
        PromptTokenizer(tokenizer("{{ raise_exception('a' * 1000000) }}"))
    assert len(caught.value.problem) < 300


def test_in_another_thread_the_memory_is_bounded() -> None:
    seen: list[BaseException] = []

    def render() -> None:
        try:
            with bounded():
                bytearray(1 << 34)
        except EngineError as error:
            seen.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert len(seen) == 1


def test_a_limit_that_is_lower_already_stays() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 29), hard))
    try:
        with bounded():
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == held + (1 << 29)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


REAL = ("llama3", "llama3_1", "qwen2_5", "qwen3", "phi3", "glm4moe", "gptoss", "deepseekv3")
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe of help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template of the form of SmolLM2's."""

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Turns must alternate.') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""A template of the form of Mistral's and Prometheus'."""


def test_templates_of_the_judges_families_take_no_time() -> None:
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "chat_templates"
    texts = {name: (folder / f"{name}.jinja").read_text("utf-8") for name in REAL}
    long = Prompt((Message("user", "words " * 20_000), Message("assistant", "yes"), Message("user", "more")))
    for name, text in {**texts, "smollm2": SMOLLM2, "mistral": MISTRAL}.items():
        words = tokenizer(text)
        words.bos_token = words.bos_token or "<|im_start|>"
        began = time.process_time()
        with bounded():
            turns = [{"role": m.role, "content": m.content} for m in long.messages]
            assert "words words" in words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), name
        assert time.process_time() - began < template.SECONDS / 5, name
