"""The `model.bin` reader, on files put together by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.models import ModelError
from tests.models.ctranslate2 import read_variables


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def model_bin() -> bytes:
    """A half-precision matrix, a scalar byte, and another name for the matrix."""
    matrix = struct.pack("<6e", 0, 0.5, 1, 1.5, 2, 2.5)
    return b"".join(
        [
            struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 2),
            text("a/weight") + struct.pack("<BIIBI", 2, 2, 3, 4, len(matrix)) + matrix,
            text("a/num_heads") + struct.pack("<BBIb", 0, 1, 1, 6),
            struct.pack("<I", 1) + text("b/weight") + text("a/weight"),
        ]
    )


def test_reads_shapes_types_and_aliases(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin())
    variables = read_variables(tmp_path / "model.bin", "WhisperSpec")
    assert list(variables) == ["a/weight", "a/num_heads", "b/weight"]
    assert variables["a/weight"].dtype == np.float16
    assert variables["b/weight"].tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
    assert int(variables["a/num_heads"]) == 6


def test_refuses_another_specification(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin())
    with pytest.raises(ModelError, match="follows 'WhisperSpec', not 'TransformerSpec'"):
        read_variables(tmp_path / "model.bin", "TransformerSpec")


@pytest.mark.parametrize("kept", [3, 30, 60, 90])
def test_refuses_a_torn_file(tmp_path: Path, kept: int) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin()[:kept])
    with pytest.raises(ModelError, match="ends too early"):
        read_variables(tmp_path / "model.bin", "WhisperSpec")
