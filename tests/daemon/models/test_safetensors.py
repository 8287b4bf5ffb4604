import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.models.safetensors import Tensor, parse_header, read_header
from daemon.wire.errors import Code, MlxdError
from tests.daemon.models.folders import safetensors


def test_header_gives_names_types_shapes_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({"a": ("F32", (2, 3)), "b": ("U32", (5,))}))
    tensors = read_header(path)
    assert list(tensors) == ["a", "b"]
    assert (tensors["a"].dtype, tensors["a"].shape, tensors["a"].size_bytes) == ("F32", (2, 3), 24)
    assert tensors["b"].size_bytes == 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has only 0 bytes"),
        (b"\x01\x02", "has only 2 bytes"),
        (struct.pack("<Q", 1 << 40) + b"{}", "announces a header of"),
        (struct.pack("<Q", 2) + b"[]", "broken header"),
        (struct.pack("<Q", 3) + b"{x}", "broken header"),
        (safetensors({"a": ("F32", (4,))})[:-1], "is truncated: tensor 'a' ends at byte 16 of 15"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model-00002-of-00002.safetensors"
    path.write_bytes(content)
    with pytest.raises(MlxdError, match=reason) as caught:
        read_header(path)
    assert caught.value.code is Code.INCOMPATIBLE
    assert caught.value.fault.field == "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 32]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": 1, "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [1 << 70], "data_offsets": [0, 16]},
        "text",
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"w": entry}).encode()
    with pytest.raises(MlxdError, match="broken header"):
        parse_header(text, 64, tmp_path / "model.safetensors")


def test_a_pipe_of_that_name_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    with pytest.raises(MlxdError, match="not a regular file"):
        read_header(path)


def parse_or_refuse(text: bytes) -> dict[str, Tensor]:
    """The tensors; none if the header is refused in the one way that is allowed."""
    try:
        return parse_header(text, 1000, Path("model.safetensors"))
    except MlxdError as refusal:
        if refusal.code is not Code.INCOMPATIBLE:
            raise
        return {}


@given(st.binary(max_size=300))
def test_random_headers_never_crash(text: bytes) -> None:
    parse_or_refuse(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "w"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=4))
def test_random_json_never_crashes(header: dict[str, object]) -> None:
    tensors = parse_or_refuse(json.dumps(header).encode())
    assert all(0 <= tensor.size_bytes <= 1000 for tensor in tensors.values())


@given(cut=st.integers(min_value=0, max_value=170))
def test_every_cut_of_a_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    whole = safetensors({"a": ("F32", (2, 3)), "b": ("U32", (5,))})
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(MlxdError):
        read_header(path)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MlxdError):
        parse_header(b'{"a":' + b"[" * 100_000, 10, Path("model.safetensors"))
