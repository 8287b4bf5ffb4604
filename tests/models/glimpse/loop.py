"""What both trainings share: their clock, batch maker, optimiser, log and command line."""

from __future__ import annotations

import argparse
import math
import multiprocessing as mp
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

QUEUE_BATCHES = 6  # when it is full the maker waits
LOG_EVERY_STEPS = 100
SAVE_EVERY_STEPS = 200
WARM_UP_STEPS = 50
GRADIENT_NORM_MAX = 1.0

T = TypeVar("T")


class Step(Protocol):
    """Makes the loss of one step, and says what to log of it: (kind, loss, share exact)."""

    def __call__(self, share: float) -> tuple[Tensor, tuple[str, float, float]]: ...


def parser(description: str | None, out: str, minutes: float) -> argparse.ArgumentParser:
    """The options that both trainings have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--init", type=Path, help="checkpoint to go on from")
    made.add_argument("--out", type=Path, default=Path(out), help="checkpoint to write")
    made.add_argument("--minutes", type=float, default=minutes)
    made.add_argument("--hold", type=float, default=0.3, help="share of the run at full rate")
    made.add_argument("--seed", type=int, default=1, help="which pictures are drawn")
    made.add_argument("--threads", type=int, default=2)
    return made


def _fill(make: Callable[[int], T], first_seed: int, queue: mp.Queue[T]) -> None:
    seed = first_seed
    while True:
        queue.put(make(seed))
        seed += 1


def stream(make: Callable[[int], T], first_seed: int) -> Iterator[T]:
    """`make(seed)` of one seed after the other, for ever, made by a second process."""
    queue: mp.Queue[T] = mp.Queue(QUEUE_BATCHES)
    mp.Process(target=_fill, args=(make, first_seed, queue), daemon=True).start()
    while True:
        yield queue.get()


def _rate_factor(step: int, share: float, hold: float) -> float:
    """Warm-up, then flat, then a cosine down to 2 %, by the share of the time that is over."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    if share < hold:
        return warm
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (share - hold) / (1 - hold))))


def _optimizer(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only, embeddings excepted."""
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embed_tokens" not in n]
    kept = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed_tokens" in n]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


class _Log:
    """Means since the last line, by kind of batch."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, name: str, loss: float, exact: float) -> None:
        for i, value in enumerate((loss, exact, 1.0)):
            self._sums[name][i] += value

    def flush(self, step: int, seconds: float, rate: float) -> None:
        means = ", ".join(
            f"{name} {loss / count:.3f}/{exact / count:.2f}"
            for name, (loss, exact, count) in sorted(self._sums.items())
        )
        self._sums.clear()
        print(f"{step} {seconds:.0f}s rate {rate:.1e} loss/exact: {means}", flush=True)


def run(
    model: nn.Module,
    next_step: Step,
    save: Callable[[], None],
    *,
    minutes: float,
    rate: float,
    hold: float,
) -> None:
    """Optimise until `minutes` are over, logging and saving on the way."""
    optimizer, log = _optimizer(model, rate), _Log()
    start, step = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (minutes * 60)) < 1:
        current = rate * _rate_factor(step, share, hold)
        for group in optimizer.param_groups:
            group["lr"] = current
        loss, measured = next_step(share)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
        step += 1
        log.add(*measured)
        if step % LOG_EVERY_STEPS == 0:
            log.flush(step, time.monotonic() - start, current)
        if step % SAVE_EVERY_STEPS == 0:
            save()
    save()
    print(f"{step} steps in {(time.monotonic() - start) / 60:.1f} min", flush=True)
