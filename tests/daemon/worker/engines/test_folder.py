"""Folders that cannot be loaded are refused with the name of the file at fault."""

import json
import re
import struct
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.worker.engines.base import LoadRefused
from daemon.worker.engines.folder import read_config

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"a": mx.ones((64, 64))})
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(LoadRefused) as caught:
        read_config(folder)
    assert caught.value.reason == "incompatible"
    return caught.value.message


def test_a_good_folder(folder: Path) -> None:
    assert read_config(folder)["model_type"] == "llama"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        ("{}", 'has no "model_type"'),
        ('{"model_type": "x", "model_file": "evil.py"}', 'the Python file "evil.py"'),
        (None, "is missing"),
    ],
)
def test_configs(folder: Path, content: str | None, why: str) -> None:
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    assert re.search(f"config.json .*{why}", refusal(folder))


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refusal(folder)


def test_a_missing_shard(folder: Path) -> None:
    files = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    assert "model-00002-of-00002.safetensors is listed in the index but missing" in refusal(folder)


def test_an_index_without_a_map(folder: Path) -> None:
    (folder / INDEX).write_text("{}")
    assert 'index.json has no "weight_map"' in refusal(folder)


def test_a_shard_cut_at_any_byte(folder: Path) -> None:
    shard = folder / "model.safetensors"
    whole = shard.read_bytes()
    for size in [*range(120), len(whole) // 2, len(whole) - 1]:
        shard.write_bytes(whole[:size])
        assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("header", [b"{]", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b"[1]"])
def test_a_damaged_header(folder: Path, header: bytes) -> None:
    data = struct.pack("<Q", len(header)) + header
    (folder / "model.safetensors").write_bytes(data)
    assert "damaged header" in refusal(folder)
