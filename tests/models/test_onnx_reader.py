"""The ONNX reader, on messages encoded here by the rules of the protobuf specification."""

import struct

import numpy as np
import pytest

from tests.models import ModelError
from tests.models.onnx_reader import Node, read_graph


def varint(value: int) -> bytes:
    value %= 1 << 64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(name: str, data_type: int, *parts: bytes) -> bytes:
    return message(5, b"".join([number(2, data_type), message(8, name.encode()), *parts]))


def model(*graph_parts: bytes) -> bytes:
    ir_version, producer = number(1, 8), message(2, b"hand")
    return ir_version + producer + message(7, b"".join(graph_parts))


def test_the_specification_s_example() -> None:
    assert varint(150) == b"\x96\x01"


def test_nodes_keep_their_inputs_in_order() -> None:
    attribute, output = message(5, b"\x0a\x04perm"), message(2, b"y")
    node = message(1, b"x") + message(1, b"w") + output + message(3, b"/a/MatMul")
    graph = read_graph(model(message(1, node + message(4, b"MatMul") + attribute)))
    assert graph.nodes == [Node("/a/MatMul", "MatMul", ("x", "w"))]


def test_raw_data() -> None:
    raw = np.arange(6, dtype="<f4").tobytes()
    graph = read_graph(model(tensor("w", 1, number(1, 2), number(1, 3), message(9, raw))))
    assert graph.constants["w"].dtype == np.float32
    assert graph.constants["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_packed_dimensions() -> None:
    raw = bytes([1, 2, 255])
    graph = read_graph(model(tensor("w", 3, message(1, varint(1) + varint(3)), message(9, raw))))
    assert graph.constants["w"].tolist() == [[1, 2, -1]]


def test_typed_integers_packed_and_not() -> None:
    packed = tensor("a", 3, number(1, 2), message(5, varint(-5) + varint(300 - 256)))
    single = tensor("b", 7, number(7, -1))
    constants = read_graph(model(packed, single)).constants
    assert constants["a"].tolist() == [-5, 44]
    assert (constants["b"].shape, int(constants["b"])) == ((), -1)


def test_typed_floats_packed_and_not() -> None:
    packed = tensor("a", 1, number(1, 2), message(4, struct.pack("<2f", 0.5, -2)))
    single = tensor("b", 1, varint(4 << 3 | 5) + struct.pack("<f", 0.25))
    constants = read_graph(model(packed, single)).constants
    assert constants["a"].tolist() == [0.5, -2]
    assert float(constants["b"]) == 0.25


def test_an_unknown_element_type_is_refused() -> None:
    with pytest.raises(ModelError, match="'h' has element type 10"):
        read_graph(model(tensor("h", 10)))


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_file_is_refused(cut: int) -> None:
    whole = model(tensor("w", 1, number(1, 6), message(9, bytes(24))))
    with pytest.raises(ModelError, match="ends too early"):
        read_graph(whole[:-cut])


def test_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="wire type"):
        read_graph(b"\x0b\x0b")
