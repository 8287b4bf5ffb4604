"""Reading weights with honest progress, and giving the memory back."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten

from daemon.worker.engines.base import LoadCancelled, LoadRefused, Progress, is_out_of_memory

GROUP_BYTES: Final = 64 << 20
"""Weights read between two calls of progress: 10 to 100 ms from a local disk."""


def weights_bytes(model: Any) -> int:
    """What a model's weights take."""
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def read_weights(model: Any, progress: Progress, draft: Any = None) -> None:
    """Read the weights of a model that was loaded lazily, and those of its draft.

    MLX maps a safetensors file to arrays that are read when they are evaluated; so
    evaluating them a group at a time reads them, and what was evaluated was read.

    Raises:
        LoadCancelled: As raised by ``progress``; between any two groups.
    """
    models = [model] if draft is None else [model, draft]
    arrays = [array for one in models for _, array in tree_flatten(one.parameters())]
    total = sum(array.nbytes for array in arrays)
    done = 0
    progress(done, total)
    for group in _groups(arrays):
        mx.eval(group)
        done += sum(array.nbytes for array in group)
        progress(done, total)


def _groups(arrays: list[mx.array]) -> Iterator[list[mx.array]]:
    group: list[mx.array] = []
    size = 0
    for array in arrays:
        group.append(array)
        size += array.nbytes
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextlib.contextmanager
def naming_failures(folder: Path) -> Iterator[None]:
    """Turn whatever a library raises while it loads ``folder`` into LoadRefused."""
    try:
        yield
    except (LoadRefused, LoadCancelled):
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip()
        if is_out_of_memory(error):
            raise LoadRefused(
                "out_of_memory", f"{folder}: memory ran out while loading ({text})"
            ) from error
        hint = "correct its files, or get the model again"
        raise LoadRefused("incompatible", f"{folder}: {text}; {hint}") from error


def held_bytes() -> int:
    """What MLX holds now: arrays, and freed buffers that it keeps for reuse."""
    return int(mx.get_active_memory() + mx.get_cache_memory())


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    mx.clear_cache()
