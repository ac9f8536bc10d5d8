"""A server on loopback: what it is asked, that nothing else is, and that its answers are right or refused."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from goalcover_local.engines import opening, server_engine
from goalcover_local.engines.base import Choices, Grammar, Prompt
from goalcover_local.engines.requests import Draw, RequestEngine
from goalcover_local.engines.server_engine import ServerBackend, loopback
from goalcover_local.errors import EngineError
from goalcover_local.terms import ANCHOR_TEXTS

COMPLETIONS = "/v1/completions"
END = 99
SAID = '{"score": 0.8, "explanation": "so it is"}'

Reply = tuple[int, bytes]
Body = Mapping[str, Any]


def log_of(row: Sequence[int], token: int) -> float:
    """The log-probability that the fake server gives a token after a row."""
    return -((sum(row) * 31 + len(row) * 7 + token * 17) % 97) / 7


def choices_of(body: Body) -> list[dict[str, Any]]:
    """What vLLM answers to a request: a choice for each prompt, in any order.

    Asked for log-probabilities, it takes the most probable of the tokens allowed; else it writes the prompt's length
    and sum.
    """
    choices = []
    for index, row in enumerate(body["prompt"]):
        choice = {"index": index, "prompt_token_ids": row, "token_ids": [len(row), sum(row), END]}
        if "logprob_token_ids" in body:
            so_far, places = list(row), []
            for _ in range(body["max_tokens"]):
                places.append({f"token_id:{token}": log_of(so_far, token) for token in body["logprob_token_ids"]})
                allowed = body.get("allowed_token_ids", [2, 3, 4])
                so_far.append(max(allowed, key=lambda token: log_of(so_far, token)))
            choice |= {"token_ids": so_far[len(row) :], "logprobs": {"top_logprobs": places}}
        choices.append(choice)
    return choices[::-1]


class FakeServer:
    """Speaks just enough of vLLM's API on 127.0.0.1, and remembers what it was asked.

    `replies` maps paths to what is answered there instead. `altered` may change what it completes.
    """

    def __init__(self) -> None:
        self.words = tiny.tokenizer()
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.replies: dict[str, Reply] = {}
        self.served: dict[str, Any] = {"data": [{"id": "tiny", "max_model_len": 600}]}
        self.altered: Callable[[dict[str, Any]], object] = lambda answer: answer
        self.complete: Callable[[Body], list[dict[str, Any]]] = choices_of
        self.usage: Callable[[Body], Any] = lambda body: {"prompt_tokens": sum(map(len, body["prompt"]))}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                fake.asked.append((self.path, body))
                fake.headers.append(dict(self.headers))
                status, content = fake.reply(self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client may hang up
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def reply(self, path: str, body: Any) -> Reply:
        if path in self.replies:
            return self.replies[path]
        if path == "/v1/models":
            return 200, json.dumps(self.served).encode()
        if path == "/version":
            return 200, b'{"version": "0.31.0"}'
        if path == "/tokenize":
            return 200, json.dumps({"tokens": self.words.encode(body["prompt"], add_special_tokens=False)}).encode()
        if path != COMPLETIONS:
            return 404, b"{}"
        answer: Any = {"choices": self.complete(body), "usage": self.usage(body)}
        changed = self.altered(answer)
        return 200, json.dumps(answer if changed is None else changed).encode()

    @property
    def bodies(self) -> list[Any]:
        """The requests for completions, in the order in which they came."""
        return [body for path, body in self.asked if path == COMPLETIONS]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def backend(fake: FakeServer) -> Iterator[ServerBackend]:
    """The requests that the fake server answers."""
    client = httpx.Client(base_url=fake.url, trust_env=False, timeout=10)
    yield ServerBackend(client, model="tiny", end=END, described={})
    client.close()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny tokenizer."""
    directory = tmp_path_factory.mktemp("tokens")
    tiny.tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def engine(fake: FakeServer, tokens: Path) -> Iterator[RequestEngine]:
    loaded = server_engine.load(tokens, url=fake.url, context=2000)
    yield loaded
    loaded.close()


def refused(ask: Callable[[], object]) -> EngineError:
    """The error in which that ends."""
    with pytest.raises(EngineError) as caught:
        ask()
    assert caught.value.mend
    return caught.value


FOREIGN = [
    "http://10.0.0.1",
    "http://10.0.0.1:8000",
    "https://127.0.0.1",
    "https://127.0.0.1:8000",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://evil.example",
    "http://0.0.0.0:8000",
    "http://[::]:8000",
    "http://[::ffff:10.0.0.1]:8000",
    "http://169.254.169.254",
    "http://128.0.0.1",
    "http://2130706433",
    "http://127.0.0.1@evil.example",
    "http://127.0.0.1:8000@evil.example:8000",
    "http://localhost:80@evil.example",
    "http://127.0.0.1\\@evil.example",
    "http://127.0.0.1%2eevil.example",
    "http://127.0.0.1%00.evil.example",
    "http:///127.0.0.1",
    "//127.0.0.1",
    "127.0.0.1:8000",
    "localhost:8000",
    "unix:///tmp/socket",
    "",
    "http://[::1]@x[127.0.0.1].evil.example:8000",
    "http://[::1]@evil.example[127.0.0.1",
    "http://evil.example@127.0.0.1:8000",
    "http://evil.example:80@localhost:8000",
    "http://evil.example\\@127.0.0.1:8000",
    "http://127.0.0.1:8000/@evil.example",
    "http://127.0.0.1?@evil.example",
    "http://127.0.0.1#@evil.example",
    "http://127.0.0.1:8000/v1",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_an_address_off_this_machine_is_refused_before_anything_is_sent(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sends(*arguments: object, **_: object) -> None:
        pytest.fail(f"something was looked up or reached: {arguments}")

    for name in ("getaddrinfo", "gethostbyname", "create_connection", "socket"):
        monkeypatch.setattr(socket, name, sends)
    error = refused(lambda: server_engine.load(tmp_path, url=url, context=100))
    assert "nothing was sent" in error.problem and "127.0.0.1" in error.mend


LOOPBACK = [
    "http://127.0.0.1",
    "http://127.0.0.1:8000",
    "http://127.9.9.9:8000/",
    "http://localhost:8000",
    "HTTP://LOCALHOST:8000",
    "http://[::1]:1",
]


def is_loopback(host: str) -> bool:
    """Whether a name or number, as the client would connect to it, is this machine's own."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


@pytest.mark.parametrize("url", LOOPBACK)
def test_an_address_on_loopback_may_be_asked(url: str) -> None:
    assert is_loopback(httpx.URL(loopback(url)).host)


SHARDS = ["http://", "https:", "127.0.0.1", "localhost", "[::1]", "evil.example", "10.0.0.1", "::1", "@", "[", "]"]
SHARDS += [":", ":80", "/", "//", "\\", "?", "#", ".", "%40", "%2f", "%00", "\t", " ", "é", "。", "／"]


@settings(max_examples=500)
@given(shards=st.lists(st.sampled_from(SHARDS), max_size=7))
def test_what_passes_for_loopback_is_loopback_to_the_client_too(shards: list[str]) -> None:
    """Two readers of one address may disagree; then nothing must be sent to where the other one reads it."""
    try:
        address = loopback("http://" + "".join(shards))
    except EngineError:
        return
    assert is_loopback(httpx.URL(address).host)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://[::1"),
        pytest.param("http://[::1].evil.example"),
        pytest.param("http://127.0.0.1:port"),
        pytest.param("http://127.0.0.1:8000\n"),
    ],
)
def test_an_address_that_cannot_be_read_is_an_error_that_a_user_can_read(url: str, tmp_path: Path) -> None:
    refused(lambda: server_engine.load(tmp_path, url=url, context=100))


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_where_nothing_answers_the_user_is_told_how_to_start_it(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    error = refused(lambda: server_engine.load(tmp_path, url=url, context=100))
    assert f"Nothing answers at {url}" in error.problem and "vllm serve" in error.mend
    assert error.__cause__ is None


def test_a_server_is_asked_for_its_model_and_version_and_told_nothing(fake: FakeServer, engine: RequestEngine) -> None:
    assert [path for path, _ in fake.asked] == ["/v1/models", "/version", "/tokenize"]
    assert "Which judge are you?" in fake.asked[2][1]["prompt"], "a text of our own"
    described = engine.describe()
    assert described["served"] == "tiny" and described["vllm"] == "0.31.0"
    assert (described["weights"], described["precision"]) == ("unverified", "unknown")


def test_what_identifies_the_judge_does_not_pass_for_verified(fake: FakeServer, tokens: Path) -> None:
    identity = {"card": "tiny", "weights": "0123"}
    loaded = server_engine.load(tokens, url=fake.url, context=2000, identity=identity)
    assert (loaded.describe()["card"], loaded.describe()["weights"]) == ("tiny", "unverified")
    loaded.close()


@pytest.mark.parametrize(("told", "context"), [(600, 600), (4096, 2000), (None, 2000)])
def test_the_context_is_what_both_card_and_server_hold(
    fake: FakeServer, tokens: Path, told: int | None, context: int
) -> None:
    fake.served["data"][0]["max_model_len"] = told
    loaded = server_engine.load(tokens, url=fake.url, context=2000)
    assert loaded.context == context
    loaded.close()


@pytest.mark.parametrize(
    "served",
    [
        {"data": []},
        {"data": None},
        {},
        {"data": [{}]},
        {"data": [{"id": ""}]},
        pytest.param({"data": ["tiny"]}),
        pytest.param({"data": {"id": "tiny"}}),
    ],
)
def test_a_server_without_a_model_is_an_error(fake: FakeServer, tmp_path: Path, served: dict[str, Any]) -> None:
    fake.served = served
    refused(lambda: server_engine.load(tmp_path, url=fake.url, context=100))
    assert not fake.bodies


PATHS = ["/v1/models", "/version", COMPLETIONS]


def asked(fake: FakeServer, tokens: Path) -> EngineError:
    """The error in which loading an engine, and asking it once, ends."""

    def ask() -> None:
        loaded = server_engine.load(tokens, url=fake.url, context=600)
        try:
            loaded.choose(tiny.prompts()[:2], ANCHOR_TEXTS)
        finally:
            loaded.close()

    return refused(ask)


@pytest.mark.parametrize("status", [500, 404, 401, 302, 307, 204])
@pytest.mark.parametrize("path", PATHS)
def test_another_status_is_told_without_what_came_with_it(
    fake: FakeServer, tokens: Path, path: str, status: int
) -> None:
    """A redirection too: samples are not sent wherever a server points."""
    fake.replies[path] = status, b"" if status == 204 else b'{"error": "in the prompt: Which knot joins two ropes?"}'
    error = asked(fake, tokens)
    assert path in error.problem and str(status) in error.problem
    assert "knot" not in str(error)
    assert "/elsewhere" not in {path for path, _ in fake.asked}


@pytest.mark.parametrize("content", [b"", b"<html>It works!</html>", b"[]", b'"ok"', b"null", b"\xff\xfe", b'{"data":'])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_json_object_is_no_answer(fake: FakeServer, tokens: Path, path: str, content: bytes) -> None:
    fake.replies[path] = 200, content
    assert "does not speak vLLM's API" in asked(fake, tokens).problem


ROWS = [[5, 6, 7], [8, 9], [10], [11, 12, 13, 14]]
DRAW = Draw(9, 0.0, (4, 3, 2, 1))
DRAWN = Draw(9, 0.7, (4, 3, 2, 1))


def choose(engine: RequestEngine) -> Choices:
    """What the engine chooses for the tiny prompts."""
    return engine.choose(tiny.prompts(), ANCHOR_TEXTS)


def dropped(answer: dict[str, Any]) -> None:
    answer["choices"].pop()


def doubled(answer: dict[str, Any]) -> None:
    answer["choices"].append(answer["choices"][0])


@pytest.mark.parametrize(
    "altered",
    [
        dropped,
        doubled,
        lambda answer: answer["choices"].clear(),
        lambda answer: {"usage": {}},
        pytest.param(lambda answer: {"choices": None}),
        pytest.param(lambda answer: {"choices": 4}),
        pytest.param(lambda answer: {"choices": ["so" for _ in answer["choices"]]}),
    ],
)
def test_another_number_of_answers_than_prompts_is_refused(
    fake: FakeServer, engine: RequestEngine, altered: Callable[[dict[str, Any]], object]
) -> None:
    fake.altered = altered
    assert "number of prompts" in refused(lambda: choose(engine)).problem


def with_bos(answer: dict[str, Any]) -> None:
    for choice in answer["choices"]:
        choice["prompt_token_ids"] = [0, *choice["prompt_token_ids"]]


def swapped(answer: dict[str, Any]) -> None:
    for choice in answer["choices"]:
        choice["index"] = len(answer["choices"]) - 1 - choice["index"]


def without(name: str, value: Any = ...) -> Callable[[dict[str, Any]], None]:
    """One of the choices lacks that, or has this value for it."""

    def altered(answer: dict[str, Any]) -> None:
        answer["choices"][-1].pop(name)
        if value is not ...:
            answer["choices"][-1][name] = value

    return altered


@pytest.mark.parametrize(
    "altered",
    [
        with_bos,
        swapped,
        without("prompt_token_ids"),
        without("prompt_token_ids", None),
        without("prompt_token_ids", []),
        without("token_ids"),
        without("token_ids", None),
    ],
)
@pytest.mark.parametrize("verb", ["choose", "generate", "pick"])
def test_a_server_that_changes_a_prompt_or_hides_what_it_read_is_refused(
    fake: FakeServer, engine: RequestEngine, altered: Callable[[dict[str, Any]], object], verb: str
) -> None:
    """Such as one that puts its own template around it, or another beginning of sequence before it."""
    fake.altered = altered
    ask: dict[str, Callable[[], object]] = {
        "choose": lambda: choose(engine),
        "generate": lambda: engine.generate(tiny.prompts(), tiny.QUESTION.grammar(), max_tokens=90),
        "pick": lambda: engine.backend.pick(ROWS, [[3, 4]] * 4, DRAW),
    }
    assert "changed a prompt" in refused(ask[verb]).problem


@pytest.mark.parametrize(
    "logs",
    [
        ...,
        None,
        {},
        {"top_logprobs": None},
        pytest.param({"top_logprobs": []}),
        {"top_logprobs": [None]},
        {"top_logprobs": [{}]},
        {"top_logprobs": [dict.fromkeys((f"token_id:{token}" for token in range(300)), -1.0)]},
        {"top_logprobs": [dict.fromkeys(f"token_id:{token}" for token in range(1000))]},
        {"top_logprobs": [dict.fromkeys((f"token_id:{token}" for token in range(1000)), "low")]},
        {"top_logprobs": [{" 0": -1.0, "0": -1.0, ".": -2.0}]},
    ],
)
def test_a_log_probability_that_is_missing_is_an_error(fake: FakeServer, engine: RequestEngine, logs: Any) -> None:
    """None is ever taken for 0."""
    fake.altered = without("logprobs", logs)
    error = refused(lambda: choose(engine))
    assert "log-probabilities" in error.problem and "0.31" in error.mend


def expected(prompt: Prompt, answers: Sequence[str]) -> np.ndarray:
    """Of each answer the sum of what the server says along its tokens, renormalised once."""
    words = tiny.tokenizer()
    text = words.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in prompt.messages],
        tokenize=False,
        add_generation_prompt=True,
    )
    whole = [words.encode(text + prompt.prefill + answer, add_special_tokens=False) for answer in answers]
    common = next(k for k, column in enumerate(zip(*whole, strict=False)) if len(set(column)) > 1)
    logs = np.array([sum(log_of(ids[:k], ids[k]) for k in range(common, len(ids))) for ids in whole])
    weights = np.exp(logs - logs.max())
    shares: np.ndarray = weights / weights.sum()
    return shares


WORDY = ["the", "this", "sample", "scores", "0.8", "0.4", "the sample"]
"""Answers of several tokens that part early and late."""


@pytest.mark.parametrize("answers", [ANCHOR_TEXTS, WORDY])
def test_probabilities_are_those_of_the_answers_paths(
    fake: FakeServer, engine: RequestEngine, answers: Sequence[str]
) -> None:
    """Wherever the server would rather have gone, the log-probabilities are those of the answers' own tokens."""
    choices = engine.choose(tiny.prompts(), answers)
    assert choices.failures == (None,) * len(tiny.prompts())
    for prompt, found in zip(tiny.prompts(), choices.probabilities, strict=True):
        np.testing.assert_allclose(found, expected(prompt, answers), atol=1e-9)
    assert choices.n_tokens == sum(len(row) for body in fake.bodies for row in body["prompt"])


def test_answers_keep_their_order_across_groups_and_calls(
    fake: FakeServer, engine: RequestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows travel in groups of equal wishes, a few at a time, and the calls that were made first answer last."""
    monkeypatch.setattr(server_engine, "PROMPTS_PER_CALL", 3)
    number = count()

    def late(body: Body) -> list[dict[str, Any]]:
        time.sleep(max(0.0, 0.05 - 0.005 * next(number)))
        return choices_of(body)

    fake.complete = late
    prompts = tiny.prompts([tiny.Sample(str(n), "so " * n, f"It is {n}.") for n in range(10)])
    choices = engine.choose(prompts, WORDY)
    for prompt, found in zip(prompts, choices.probabilities, strict=True):
        np.testing.assert_allclose(found, expected(prompt, WORDY), atol=1e-9)
    sizes = [len(body["prompt"]) for body in fake.bodies]
    assert max(sizes) == 3 and len(sizes) < sum(sizes) / 2, "rows with the same wishes travel together"
    wishes = {json.dumps({**body, "prompt": None}, sort_keys=True) for body in fake.bodies}
    assert len(wishes) > 1


def test_prompts_travel_as_token_ids_that_nothing_may_be_added_to(fake: FakeServer, engine: RequestEngine) -> None:
    choose(engine)
    counts = engine.count_tokens(tiny.prompts())
    for body in fake.bodies:
        assert body["model"] == "tiny" and body["temperature"] == 0.0
        assert body["add_special_tokens"] is False
        assert body["return_token_ids"] is True and body["return_tokens_as_token_ids"] is True
        for row in body["prompt"]:
            assert all(type(token) is int for token in row)
            assert min(counts) - 2 <= len(row) <= max(counts) + 3
            assert body["logprobs"] == len(body["logprob_token_ids"]) > 0


def test_what_is_written_is_asked_for_under_the_grammar_and_comes_without_its_end(
    fake: FakeServer, backend: ServerBackend
) -> None:
    assert backend.write(ROWS, Grammar("[a-z]+"), DRAW) == [[len(r), sum(r)] for r in ROWS]
    (body,) = fake.bodies
    assert body["structured_outputs"] == {"regex": "[a-z]+"} and body["max_tokens"] == 9
    assert body["temperature"] == 0.0 and "seed" not in body


def test_drawn_answers_have_each_their_own_seed(fake: FakeServer, backend: ServerBackend) -> None:
    """So a row's answer hangs on its own seed, whoever travels with it."""
    assert backend.write(ROWS, Grammar("[a-z]+"), DRAWN) == [[len(r), sum(r)] for r in ROWS]
    assert backend.pick(ROWS, [[len(row)] for row in ROWS], DRAWN) == [len(row) for row in ROWS]
    assert len(fake.bodies) == 8
    for body in fake.bodies:
        assert body["temperature"] == 0.7
        assert [body["seed"]] == [4 - ROWS.index(row) for row in body["prompt"]]


def test_a_token_is_picked_of_those_permitted_there(fake: FakeServer, backend: ServerBackend) -> None:
    permitted = [[len(row), 300 + k % 2] for k, row in enumerate(ROWS)]
    assert backend.pick(ROWS, permitted, DRAW) == [len(row) for row in ROWS]
    sent = {tuple(row): body["allowed_token_ids"] for body in fake.bodies for row in body["prompt"]}
    assert sent == {tuple(row): tokens for row, tokens in zip(ROWS, permitted, strict=True)}
    assert all(body["max_tokens"] == 1 for body in fake.bodies)


def test_a_server_that_picks_nothing_is_an_error(fake: FakeServer, backend: ServerBackend) -> None:
    fake.altered = without("token_ids", [])
    refused(lambda: backend.pick(ROWS, [[3, 4]] * 4, DRAW))


def test_a_written_answer_is_legal_or_a_failure(fake: FakeServer, engine: RequestEngine) -> None:
    """Whatever grammar the server says that it holds to."""
    words = tiny.tokenizer()
    said = iter([SAID, "It is so."])

    def says(body: Body) -> list[dict[str, Any]]:
        return [{**choice, "token_ids": [*words.encode(next(said)), words.eos_token_id]} for choice in choices_of(body)]

    fake.complete = says
    first, second = tiny.prompts()[::3]
    completions = [engine.generate([p], tiny.QUESTION.grammar(), max_tokens=90)[0] for p in (first, second)]
    assert (completions[0].text, completions[0].failure) == (SAID, None)
    assert completions[1].text == "" and "grammar" in str(completions[1].failure)


def test_an_answer_that_its_budget_cuts_off_is_ended_token_by_token(fake: FakeServer, engine: RequestEngine) -> None:
    words = tiny.tokenizer()
    endless = words.encode('{"score": 0.8, "explanation": "' + "so it is and " * 20)

    def says(body: Body) -> list[dict[str, Any]]:
        tokens = body.get("allowed_token_ids", endless)[: body["max_tokens"]]
        return [{**choice, "token_ids": tokens} for choice in choices_of(body)]

    fake.complete = says
    (completion,) = engine.generate(tiny.prompts()[:1], tiny.QUESTION.grammar(), max_tokens=50)
    assert completion.failure is None and completion.n_tokens <= 50
    answer = tiny.QUESTION.read(completion.text)
    assert answer is not None and answer["explanation"].startswith("so it is")
    assert fake.bodies[0]["structured_outputs"] and len(fake.bodies) > 1


def test_a_server_that_picks_what_is_not_permitted_is_an_error(fake: FakeServer, engine: RequestEngine) -> None:
    words = tiny.tokenizer()
    endless = words.encode('{"score": 0.8, "explanation": "' + "so it is and " * 20)
    fake.complete = lambda body: [{**c, "token_ids": endless[: body["max_tokens"]]} for c in choices_of(body)]
    try:
        (completion,) = engine.generate(tiny.prompts()[:1], tiny.QUESTION.grammar(), max_tokens=50)
    except EngineError:
        return
    assert completion.failure


def test_what_the_cache_served_is_told_and_not_counted(fake: FakeServer, engine: RequestEngine) -> None:
    assert engine.report() == {}
    fake.usage = lambda body: {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
    n_tokens = choose(engine).n_tokens
    n_sent, n_cached = sum(len(row) for body in fake.bodies for row in body["prompt"]), 4 * len(fake.bodies)
    assert n_tokens == n_sent - n_cached
    assert engine.report() == {"prefix cache": f"{n_cached / n_sent:.1%} of {n_sent} prompt tokens"}


@pytest.mark.parametrize("details", [{}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {}}])
def test_a_server_that_does_not_tell_what_it_cached_is_taken_to_compute_all(
    fake: FakeServer, engine: RequestEngine, details: dict[str, Any]
) -> None:
    fake.usage = lambda _: {"prompt_tokens": 10, **details}
    n_tokens = choose(engine).n_tokens
    assert n_tokens == sum(len(row) for body in fake.bodies for row in body["prompt"])
    assert engine.report() == {}


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_is_ignored(
    fake: FakeServer, tokens: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would carry the samples off; here it would answer nothing."""
    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{fake.url}/version")
    loaded = server_engine.load(tokens, url=fake.url, context=2000)
    assert loaded.choose(tiny.prompts(), ANCHOR_TEXTS).failures == (None,) * len(tiny.prompts())
    loaded.close()


def echoed(answer: dict[str, Any]) -> object:
    return {"choices": [{**choice, "prompt_token_ids": None, "text": "sheet bend"} for choice in answer["choices"]]}


@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_error_quotes_a_prompt(fake: FakeServer, tokens: Path, status: int) -> None:
    """Neither its words nor its tokens, in whatever is printed of it."""
    words = tiny.tokenizer()
    quoted = "Which knot joins two ropes? The sheet bend does."
    if status == 200:
        fake.altered = echoed
    else:
        fake.replies[COMPLETIONS] = status, json.dumps({"error": quoted, "prompt": words.encode(quoted)}).encode()
    error = asked(fake, tokens)
    printed = "".join(traceback.format_exception(error))
    sent = fake.bodies[0]["prompt"][0]
    for secret in ("sheet bend", "knot joins", str(sent)[1:40], str(words.encode(quoted))[1:30]):
        assert secret not in str(error) and secret not in printed


def test_a_server_that_goes_away_is_an_error(fake: FakeServer, engine: RequestEngine) -> None:
    fake.close()
    error = refused(lambda: engine.choose(tiny.prompts(), ANCHOR_TEXTS))
    assert "Nothing answers" in error.problem


def test_closing_the_engine_leaves_the_server_to_others(fake: FakeServer, tokens: Path) -> None:
    server_engine.load(tokens, url=fake.url, context=2000).close()
    again = server_engine.load(tokens, url=fake.url, context=2000)
    assert again.choose(tiny.prompts()[:1], ANCHOR_TEXTS).failures == (None,)
    again.close()


def test_a_server_needs_an_address_and_no_other_engine_takes_one(fake: FakeServer, tokens: Path) -> None:
    assert "--url" in refused(lambda: opening.open_engine("server", settings={}, directory=tokens, context=9)).mend
    elsewhere = refused(lambda: opening.open_engine("transformers", url=fake.url, settings={}, directory=tokens))
    assert "--engine server" in elsewhere.mend and not fake.asked


def test_a_server_of_another_model_is_refused(fake: FakeServer, tmp_path: Path) -> None:
    """Its token ids would be in range, and its log-probabilities would be of other words."""
    tiny.tokenizer().save_pretrained(tmp_path)
    fake.words = tiny.sentencepiece_tokenizer()
    assert "another model" in refused(lambda: server_engine.load(tmp_path, url=fake.url, context=600)).problem
    fake.words = tiny.tokenizer()
    own = {"card": "tiny", "weights": "ab" * 32}
    for digest, well in (("ab" * 8, True), ("cd" * 8, False)):
        fake.served = {"data": [{"id": f"tiny@{digest}", "max_model_len": 600}]}
        if well:
            told = server_engine.load(tmp_path, url=fake.url, context=600, identity=own).describe()
            assert (told["weights"], told["files"]) == ("unverified", "ab" * 32)
        else:
            refused(lambda: server_engine.load(tmp_path, url=fake.url, context=600, identity=own))


def test_no_setting_is_left_to_the_model_that_is_served(fake: FakeServer, engine: RequestEngine) -> None:
    """vLLM would take what is not said from generation_config.json."""
    choose(engine)
    for body in fake.bodies:
        assert (body["repetition_penalty"], body["top_p"], body["top_k"], body["min_p"]) == (1.0, 1.0, 0, 0.0)


def test_a_server_is_started_on_loopback_whatever_the_card_says(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    how: dict[str, Any] = {"name": "tiny", "port": 8000, "context": 600, "precision": "float32"}
    arguments, variables = server_engine.command(tmp_path, options={"max_num_seqs": 8}, **how)
    assert "--max-num-seqs=8" in arguments and arguments[-2:] == ["--host=127.0.0.1", "--port=8000"]
    assert variables["GOALCOVER_SHUT"] == "1"
    for smuggled in ({"enforce_eager": "--host=0.0.0.0"}, {"quantization": "--host=0.0.0.0"}, {"host": "0.0.0.0"}):
        error = refused(lambda smuggled=smuggled: server_engine.command(tmp_path, options=smuggled, **how))
        assert min(smuggled) in error.problem
