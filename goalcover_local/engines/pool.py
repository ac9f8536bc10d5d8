"""Several devices as one engine: a process for each, every batch split between them in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError, GoalCoverError
from .base import SEED_STEP, Choices, Completion, Grammar, Prompt

if TYPE_CHECKING:
    from .loading import Kind

_DIE_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG: a worker whose parent was killed goes at once, whatever it is doing."""

_MEND = "Look at the device's memory, or leave it out of --devices; what was judged is stored."


class Pool:
    """An engine made of one engine of a kind for each device. The parent process alone writes results."""

    def __init__(self, kind: Kind, devices: Sequence[str], options: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.context: int = options["context"]
        self._workers: list[tuple[Any, Connection]] = []
        for device in devices:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, kind, {**options, "device": device}), daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))
        try:
            self._identity = self._answers(len(devices))[0]
        except BaseException:
            self.close()
            raise

    def describe(self) -> Mapping[str, str]:
        """The identity of one worker, and how many there are."""
        return {**self._identity, "n_devices": str(len(self._workers))}

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """The number of tokens of each prompt."""
        counts: list[int] = self._ask(0, "count_tokens", prompts)
        return counts

    def shorten(self, text: str, n_tokens: int) -> tuple[str, int]:
        """The text cut in its middle to at most `n_tokens`, with a mark, and how many tokens were left out."""
        shortened: tuple[str, int] = self._ask(0, "shorten", text, n_tokens)
        return shortened

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Choices:
        """Each answer's probability, renormalised: shape (n_prompts, n_answers)."""
        parts: list[Choices] = self._split("choose", prompts, answers)
        if not parts:
            return Choices(np.empty((0, len(answers))), (), 0)
        failures = tuple(failure for part in parts for failure in part.failures)
        return Choices(np.concatenate([p.probabilities for p in parts]), failures, sum(p.n_tokens for p in parts))

    def generate(
        self,
        prompts: Sequence[Prompt],
        grammar: Grammar,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One answer for each prompt, complete under the grammar and within `max_tokens`, or a failure."""
        options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        return [c for part in self._split("generate", prompts, grammar, **options) for c in part]

    def report(self) -> Mapping[str, str]:
        """What each device's engine has to say."""
        told: dict[str, str] = {}
        for number in range(len(self._workers)):
            told |= {f"{name}, device {number + 1}": said for name, said in self._ask(number, "report").items()}
        return told

    def close(self) -> None:
        """Nothing; ends the processes."""
        for process, connection in self._workers:
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._workers = []

    def _split(self, verb: str, prompts: Sequence[Prompt], *arguments: Any, **options: Any) -> list[Any]:
        size = -(-len(prompts) // len(self._workers)) if prompts else 1
        starts = range(0, len(prompts), size)
        for number, start in enumerate(starts):
            named = {**options, "seed": options["seed"] + start * SEED_STEP} if "seed" in options else options
            self._send(number, verb, (prompts[start : start + size], *arguments), named)
        return self._answers(len(starts))

    def _answers(self, n_workers: int) -> list[Any]:
        """The answers of the first workers; an error is raised once all have answered, so that none is left behind."""
        answers: list[Any] = []
        errors: list[GoalCoverError] = []
        for number in range(n_workers):
            try:
                answers.append(self._answer(number))
            except GoalCoverError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def _ask(self, number: int, verb: str, *arguments: Any) -> Any:
        self._send(number, verb, arguments, {})
        return self._answer(number)

    def _send(self, number: int, verb: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        try:
            self._workers[number][1].send((verb, arguments, options))
        except (BrokenPipeError, OSError) as error:
            raise EngineError(f"The process of device {number + 1} has ended.", _MEND) from error

    def _answer(self, number: int) -> Any:
        try:
            answer = self._workers[number][1].recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"The process of device {number + 1} has ended.", _MEND) from error
        if isinstance(answer, GoalCoverError):
            raise answer
        return answer


def _serve(connection: Connection, kind: Kind, options: dict[str, Any]) -> None:
    """Nothing; answers the parent's calls until it hangs up."""
    import ctypes
    import signal

    from .. import offline, privacy

    privacy.begin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and hangs up
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    offline.switch_offline()
    offline.shut()
    from .loading import load

    try:
        engine = load(kind, **options)
    except GoalCoverError as error:
        connection.send(error)
        return
    except Exception as error:
        connection.send(_failed(error))
        return
    connection.send(dict(engine.describe()))
    with suppress(EOFError, OSError):
        while True:
            verb, arguments, named = connection.recv()
            try:
                answer: Any = getattr(engine, verb)(*arguments, **named)
            except GoalCoverError as error:
                answer = error
            except Exception as error:
                answer = _failed(error)
            connection.send(answer)


def _failed(error: Exception) -> EngineError:
    """What is said of an error: message and traceback may quote a sample, and do not leave the process."""
    return EngineError(f"A device's process failed: {type(error).__name__}.", _MEND)
