"""Reader of CTranslate2's `model.bin`.

Layout (CTranslate2's `python/ctranslate2/specs/model_spec.py`, `_serialize`), all little-endian:
format version u32, specification name, revision u32, variable count u32, the variables, alias
count u32, the aliases. A string is its length u16 including a closing NUL, then its bytes. A
variable is name, rank u8, that many dimensions u32, type u8, byte count u32, data. An alias is two
strings: the other name and the name of an earlier variable.
"""

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.models import ModelError

Array = npt.NDArray[Any]

_DTYPES: Final = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_variables(path: Path, expected_spec: str) -> dict[str, Array]:
    """All variables of a `model.bin` by name, aliases included.

    Args:
        path: The file.
        expected_spec: The specification it must follow, such as `WhisperSpec`.

    Raises:
        ModelError: The file follows another specification or ends too early.
    """
    reader = _Reader(path)
    reader.u32()  # format version
    spec = reader.string()
    if spec != expected_spec:
        raise ModelError(
            f"{path.name} follows {spec!r}, not {expected_spec!r}; "
            "the pinned wheel in tests/models/recipes.py is not the one this was written for"
        )
    reader.u32()  # revision of the specification
    variables: dict[str, Array] = {}
    for _ in range(reader.u32()):
        name = reader.string()
        shape = [reader.u32() for _ in range(reader.u8())]
        dtype = _DTYPES[reader.u8()]
        variables[name] = np.frombuffer(reader.take(reader.u32()), dtype=dtype).reshape(shape)
    for _ in range(reader.u32()):
        alias, target = reader.string(), reader.string()
        variables[alias] = variables[target]
    return variables


class _Reader:
    """A cursor over the file's bytes."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._rest = memoryview(path.read_bytes())

    def take(self, count: int) -> memoryview:
        if count > len(self._rest):
            raise ModelError(f"{self._name} ends too early; delete it and run `make models`")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(struct.unpack("<H", self.take(2))[0])

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def string(self) -> str:
        return bytes(self.take(self.u16())).rstrip(b"\0").decode()
