"""Engines: each a thin adapter over its MLX library.

Only modules of this package import mlx, mlx_lm, mlx_vlm, mlx_audio or PIL, and only when an
engine is made: importing the package itself loads none of them.
"""

import importlib
from collections.abc import Callable
from typing import Final

from daemon.worker.engines.base import Engine, Registry, leave_memory_unwired


def import_libraries(any_kind: bool) -> None:
    """Import what takes longest, ahead of need (about a second).

    Args:
        any_kind: Also what vision models and others need: 14 MB, and a tenth of a second,
            which only a worker without a model has to spare.
    """
    leave_memory_unwired()
    importlib.import_module("daemon.worker.engines.text")
    if any_kind:
        importlib.import_module("daemon.worker.engines.vision")


def _maker(kind: str, name: str) -> Callable[[], Engine]:
    def make() -> Engine:
        leave_memory_unwired()
        engine: Engine = getattr(importlib.import_module(f"daemon.worker.engines.{kind}"), name)()
        return engine

    return make


REGISTRY: Final[Registry] = {
    "text": _maker("text", "TextEngine"),
    "vision": _maker("vision", "VisionEngine"),
    "embeddings": _maker("embeddings", "EmbeddingsEngine"),
    "speech": _maker("speech", "SpeechEngine"),
    "transcription": _maker("transcription", "TranscriptionEngine"),
}
"""What ``begin`` may name as a kind."""
