"""An engine stepped by hand, and what each request got from it."""

from pathlib import Path
from typing import Any

import msgspec

from daemon.wire.data import (
    Begin,
    ChatMessage,
    Delta,
    Done,
    Fail,
    Generate,
    Sampling,
    TextPart,
    Usage,
)
from daemon.worker.engines.base import Engine
from tests.contract.tiny import SPECIAL


class Answer:
    """What one request got, collected."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.done: Done | None = None
        self.fail: Fail | None = None
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(delta.text + delta.reasoning for delta in self.deltas)

    @property
    def ended(self) -> bool:
        return self.done is not None or self.fail is not None


class Bench:
    """An engine, stepped by hand."""

    def __init__(self, engine: Engine, begin: Begin) -> None:
        self.engine = engine
        self.begin = begin
        self.answers: dict[int, Answer] = {}
        self._last = 0

    def ask(self, request: Generate) -> Answer:
        self._last += 1
        self.engine.submit(self._last, request)
        answer = self.answers[self._last] = Answer()
        return answer

    def id_of(self, answer: Answer) -> int:
        return next(number for number, known in self.answers.items() if known is answer)

    def step(self) -> None:
        frames_per_request: dict[int, int] = {}
        for emission in self.engine.step():
            answer = self.answers[emission.request_id]
            assert not answer.ended, "nothing may follow a terminal frame"
            for frame in emission.frames:
                match frame:
                    case Delta():
                        assert frame.text or frame.reasoning or frame.tool_calls or frame.logprobs
                        answer.deltas.append(frame)
                        count = frames_per_request.get(emission.request_id, 0)
                        frames_per_request[emission.request_id] = count + 1
                    case Done():
                        answer.done = frame
                    case Fail():
                        answer.fail = frame
            answer.usage = emission.usage
            assert answer.ended == (emission.usage is not None)
        assert all(count == 1 for count in frames_per_request.values()), "one delta a step"

    def run(self, *until: Answer) -> None:
        for _ in range(5000):
            if all(answer.ended for answer in until or self.answers.values()):
                return
            self.step()
        raise AssertionError("the requests do not end")


def begin(folder: Path, kind: str, **changes: Any) -> Begin:
    told = Begin(
        name="m",
        path=str(folder),
        kind=kind,
        weights_bytes=0,
        kv_tokens=8192,
        kv_bytes=16 << 20,
        context_tokens=2048,
        rows_max=8,
        cache_bytes_max=16 << 20,
    )
    return msgspec.structs.replace(told, **changes)


def ask(text: str = "Tell me a story.", **changes: object) -> Generate:
    fields: dict[str, object] = {"max_tokens": 24, "sampling": Sampling(temperature=0), **changes}
    messages = (ChatMessage(role="user", parts=(TextPart(text),)),)
    return Generate(lease="l", messages=messages, **fields)  # type: ignore[arg-type]


NO_END = Sampling(temperature=0, logit_bias={SPECIAL.index("<|im_end|>"): -1000.0})
"""Greedy, and the answer never ends by itself."""

PROMPTS = ("Tell me a story.", "What is 2 + 2?", "Ping", "A rather longer question about dogs?")


def alone(bench: Bench, request: Generate) -> Answer:
    answer = bench.ask(request)
    bench.run(answer)
    return answer
