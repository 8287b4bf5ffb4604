"""What every topic needs: how often to measure, where, on which folders, beside whom."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.folders import stand_in_name
from benchmarks.processes import child_environ
from tests.models import REPO_ROOT, ModelError, model_path
from tests.models.fastblas import fast_blas_env

Side = Callable[[], Awaitable[None]]
T = TypeVar("T")
REAL_MODEL = "smollm2-135m-f32"


class Bench:
    """One run of ``python -m benchmarks``.

    Attributes:
        rounds: How often every figure is measured.
        quick: Whether to measure little: to see that it runs, not for figures to quote.
        soak_s: How long the topic ``soak`` takes.
        folder: For everything that is made; removed at the end.
    """

    def __init__(self, folder: Path, *, rounds: int, quick: bool, soak_s: float) -> None:
        self.folder = folder
        self.rounds = rounds
        self.quick = quick
        self.soak_s = soak_s
        self._asked = 0

    @cached_property
    def blas_env(self) -> dict[str, str]:
        """The same for our workers, the peers and the library alone; empty on a Mac."""
        return fast_blas_env(REPO_ROOT / ".cache" / "fastblas")

    @cached_property
    def folders(self) -> Path:
        """Where the toys and stand-ins are, made by the first who asks."""
        out = self.folder / "models"
        command = [sys.executable, "-m", "benchmarks.folders", str(out)]
        subprocess.run(command, env=child_environ({}), check=True)
        return out

    def toy(self, name: str = "toy") -> Path:
        """A small llama with random weights."""
        return self.folders / name

    def stand_in(self, step_ms: int) -> Path:
        """A model of which only the step time is true."""
        return self.folders / stand_in_name(step_ms)

    def real(self) -> Path | None:
        """The real model, where ``make models`` has built it."""
        try:
            return model_path(REAL_MODEL)
        except ModelError:
            return None

    def log_of(self, program: str) -> Path:
        """Where a child's stderr goes."""
        return self.folder / f"{program}.log"

    def fewer(self, full: int, quick: int) -> int:
        """A count: ``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full

    def prompts(self, count: int) -> list[str]:
        """Prompts that nobody has seen: no prefix cache may help with more than a template."""
        self._asked += count
        numbers = range(self._asked - count, self._asked)
        return [f"{number:06d} is my number. What can you tell me about it?" for number in numbers]

    def long_prompt(self, characters: int) -> str:
        """One more such prompt of just so many characters."""
        (opening,) = self.prompts(1)
        sentence = " The ship sails on, and the captain writes of wind and weather in his log."
        return (opening + sentence * (characters // len(sentence) + 1))[:characters]

    async def interleave(self, sides: list[Side], rounds: int | None = None) -> None:
        """Run every side once a round; who begins changes from round to round."""
        for number in range(rounds or self.rounds):
            turn = number % len(sides)
            for side in [*sides[turn:], *sides[:turn]]:
                await side()


async def in_thread(work: Callable[[], T]) -> T:
    """Wait for something that blocks."""
    return await asyncio.to_thread(work)


def toml(value: object) -> str:
    """A string or number as TOML writes it."""
    return json.dumps(value)


class Pace(msgspec.Struct, frozen=True):
    """What decoding many tokens took.

    Attributes:
        cpu_ms: By role.
    """

    tokens: int
    seconds: float
    cpu_ms: dict[str, float] = {}

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds
