"""Reader of the nodes and constants of an ONNX file, without the `onnx` package.

Field numbers come from `onnx.proto3`, the encoding from the protobuf specification ("wire types").
Attributes, types and everything else that a weight converter can do without are skipped.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.models import ModelError

Array = npt.NDArray[Any]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH: Final = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_OP_TYPE = 1, 3, 4
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_TENSOR_FLOAT_DATA, _TENSOR_INT32_DATA, _TENSOR_INT64_DATA = 4, 5, 7

_DTYPES: Final = {1: "<f4", 2: "<u1", 3: "<i1", 6: "<i4", 7: "<i8"}


@dataclass(frozen=True)
class Node:
    """One operation: what it is called, what it does and what it reads."""

    name: str
    op_type: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Operations in file order, and constants by name."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)


def read_graph(model: bytes) -> Graph:
    """The nodes and the initialisers of a serialised ONNX model.

    Raises:
        ModelError: The bytes are not a protobuf message, or a constant has an element type other
            than float32, uint8, int8, int32 and int64.
    """
    graph = Graph()
    for number, value in _fields(memoryview(model)):
        if number != _MODEL_GRAPH:
            continue
        for part, content in _fields(_as_bytes(value)):
            if part == _GRAPH_NODE:
                graph.nodes.append(_read_node(_as_bytes(content)))
            elif part == _GRAPH_INITIALIZER:
                name, array = _read_tensor(_as_bytes(content))
                graph.constants[name] = array
    return graph


def _read_node(message: memoryview) -> Node:
    name, op_type, inputs = "", "", []
    for number, value in _fields(message):
        if number == _NODE_INPUT:
            inputs.append(_as_text(value))
        elif number == _NODE_NAME:
            name = _as_text(value)
        elif number == _NODE_OP_TYPE:
            op_type = _as_text(value)
    return Node(name, op_type, tuple(inputs))


def _read_tensor(message: memoryview) -> tuple[str, Array]:
    """Values are either raw little-endian bytes or a list in a field of their type's family."""
    name, data_type, shape = "", 0, []
    raw: memoryview | None = None
    values: list[float] = []
    for number, value in _fields(message):
        if number == _TENSOR_NAME:
            name = _as_text(value)
        elif number == _TENSOR_DATA_TYPE:
            data_type = _as_integers(value)[0]
        elif number == _TENSOR_DIMS:
            shape += _as_integers(value)
        elif number == _TENSOR_RAW_DATA:
            raw = _as_bytes(value)
        elif number == _TENSOR_FLOAT_DATA:
            packed = value if isinstance(value, memoryview) else struct.pack("<I", value)
            values += np.frombuffer(packed, "<f4").tolist()
        elif number in (_TENSOR_INT32_DATA, _TENSOR_INT64_DATA):
            values += _as_integers(value)
    if data_type not in _DTYPES:
        raise ModelError(
            f"ONNX constant {name!r} has element type {data_type}, which is not handled; "
            "add it to _DTYPES in tests/models/onnx_reader.py"
        )
    dtype = np.dtype(_DTYPES[data_type])
    array = np.frombuffer(raw, dtype) if raw is not None else np.array(values, dtype)
    return name, array.reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with their values: an unsigned integer, or the bytes of anything longer."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            size, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise ModelError(f"not an ONNX file: wire type {wire_type}; rebuild from the wheels")
        content = message[position : position + size]
        if len(content) != size:
            raise ModelError("the ONNX file ends too early; rebuild from the wheels")
        position += size
        fixed = wire_type != _LENGTH_DELIMITED
        yield number, int.from_bytes(content, "little") if fixed else content


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, lowest first, and the position after it."""
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ModelError("the ONNX file ends too early; rebuild from the wheels")


def _as_integers(value: int | memoryview) -> list[int]:
    """One integer or a packed list of them; negative ones are stored modulo 2**64."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ModelError("the ONNX file has a number where a message should be")
    return value


def _as_text(value: int | memoryview) -> str:
    return bytes(_as_bytes(value)).decode()
