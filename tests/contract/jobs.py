"""An engine whose requests are jobs, stepped by hand."""

from typing import Any

from daemon.wire.data import Done, Fail, Usage, WorkRequest
from daemon.worker.engines.base import Engine


class Result:
    """What one request got."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.end: Done | Fail | None = None
        self.usage: Usage | None = None
        self.steps = 0


class JobBench:
    """Asks and steps."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.results: dict[int, Result] = {}

    def ask(self, request: WorkRequest) -> Result:
        number = len(self.results) + 1
        self.engine.submit(number, request)
        self.results[number] = Result()
        return self.results[number]

    def step(self) -> None:
        for emission in self.engine.step():
            result = self.results[emission.request_id]
            assert result.end is None, "nothing may follow a terminal frame"
            *frames, last = emission.frames
            if isinstance(last, Done | Fail):
                result.end = last
                result.usage = emission.usage
            else:
                assert emission.usage is None
                frames.append(last)
            result.frames += frames
        for result in self.results.values():
            result.steps += result.end is None

    def run(self, *until: Result) -> None:
        for _ in range(5000):
            if all(result.end is not None for result in until or self.results.values()):
                return
            self.step()
        raise AssertionError("the requests do not end")

    def whole(self, request: WorkRequest) -> Result:
        result = self.ask(request)
        self.run(result)
        return result
