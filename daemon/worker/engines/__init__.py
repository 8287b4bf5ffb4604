"""Engines: each a thin adapter over its MLX library.

Only modules of this package import mlx, mlx_lm, mlx_vlm or PIL, and only when an engine
is made: importing the package itself loads none of them.
"""

import importlib
from typing import Final

from daemon.worker.engines.base import Engine, Registry, leave_memory_unwired


def import_libraries() -> None:
    """Import what every kind needs and what takes longest, ahead of need (about a second)."""
    leave_memory_unwired()
    importlib.import_module("daemon.worker.engines.text")


def _text() -> Engine:
    leave_memory_unwired()
    from daemon.worker.engines.text import TextEngine  # noqa: PLC0415  (mlx only when needed)

    return TextEngine()


def _vision() -> Engine:
    leave_memory_unwired()
    from daemon.worker.engines.vision import VisionEngine  # noqa: PLC0415

    return VisionEngine()


def _embeddings() -> Engine:
    leave_memory_unwired()
    from daemon.worker.engines.embeddings import EmbeddingsEngine  # noqa: PLC0415

    return EmbeddingsEngine()


def _speech() -> Engine:
    leave_memory_unwired()
    from daemon.worker.engines.speech import SpeechEngine  # noqa: PLC0415

    return SpeechEngine()


def _transcription() -> Engine:
    leave_memory_unwired()
    from daemon.worker.engines.transcription import TranscriptionEngine  # noqa: PLC0415

    return TranscriptionEngine()


REGISTRY: Final[Registry] = {
    "text": _text,
    "vision": _vision,
    "embeddings": _embeddings,
    "speech": _speech,
    "transcription": _transcription,
}
"""What ``begin`` may name as a kind."""
