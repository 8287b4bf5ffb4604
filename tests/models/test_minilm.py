"""Unpacking MiniLM."""

import zipfile
from pathlib import Path

import pytest

from tests.models import ModelError
from tests.models.minilm import convert

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def archive_of(path: Path, names: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, f"contents of {name}")
    return path


def test_unpacks_everything(tmp_path: Path) -> None:
    source = archive_of(tmp_path / "model.zip", (*FILES, "1_Pooling/config.json"))
    convert(source, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "contents of tokenizer.json"
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()


def test_names_what_an_archive_lacks(tmp_path: Path) -> None:
    source = archive_of(tmp_path / "model.zip", FILES[:-1])
    with pytest.raises(ModelError, match=r"model\.zip lacks tokenizer_config.json"):
        convert(source, tmp_path / "out")
