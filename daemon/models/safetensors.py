"""The headers of safetensors files: which tensors, how large, of what type.

A file is a ``u64`` little-endian length, that many bytes of JSON, then the data
(https://github.com/huggingface/safetensors#format). Only the header is read, so a folder of
500 GB is measured in milliseconds, and no library that could execute anything is involved.
"""

import math
import os
import stat
import struct
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from daemon.wire.errors import Code, MlxdError

HEADER_BYTES_MAX: Final = 100_000_000
"""The bound of the reference implementation."""

_LENGTH: Final = struct.Struct("<Q")
_ITEM_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}

_Offset = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]


class Tensor(msgspec.Struct, frozen=True):
    """One tensor as its header describes it."""

    dtype: str
    shape: tuple[_Offset, ...]
    data_offsets: tuple[_Offset, _Offset]

    @property
    def size_bytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name; the header is checked against the file's size.

    Raises:
        MlxdError: ``incompatible`` naming the file if it is missing, unreadable, truncated or
            not a safetensors file.
    """
    try:
        # Not blocking: a FIFO of that name must not hang the daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", closefd=True) as file:  # noqa: PTH123 - takes a descriptor
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _corrupt(path, "is not a regular file")
            header = file.read(_LENGTH.size)
            if len(header) < _LENGTH.size:
                raise _corrupt(path, f"has only {found.st_size} bytes")
            (size_bytes,) = _LENGTH.unpack(header)
            data_bytes = found.st_size - _LENGTH.size - size_bytes
            if size_bytes > HEADER_BYTES_MAX or data_bytes < 0:
                raise _corrupt(path, f"announces a header of {size_bytes} bytes")
            text = file.read(size_bytes)
    except OSError as error:
        raise _corrupt(path, f"cannot be read ({error.strerror})") from error
    return parse_header(text, data_bytes, path)


def parse_header(text: bytes, data_bytes: int, path: Path) -> dict[str, Tensor]:
    """The tensors that a header's JSON text describes.

    Args:
        text: The header, without its length.
        data_bytes: How many bytes follow it in the file.
        path: For error messages.

    Raises:
        MlxdError: ``incompatible`` if the text is no header, or describes more than there is.
    """
    try:
        table: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
        table.pop("__metadata__", None)
        tensors = msgspec.convert(table, dict[str, Tensor])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(path, f"has a broken header ({error})") from error
    for name, tensor in tensors.items():
        start, end = tensor.data_offsets
        if end > data_bytes:
            raise _corrupt(
                path,
                f"is truncated: tensor {name!r} ends at byte {end} of {data_bytes}",
            )
        bits = _ITEM_BITS.get(tensor.dtype)
        if start > end or (bits and math.prod(tensor.shape) * bits // 8 != end - start):
            raise _corrupt(path, f"has a broken header (tensor {name!r} has a wrong size)")
    return tensors


def _corrupt(path: Path, what: str) -> MlxdError:
    hint = "download or convert the file again"
    return MlxdError(
        Code.INCOMPATIBLE,
        f"{path.name} in {path.parent} {what}; {hint}",
        hint=hint,
        field=path.name,
    )
