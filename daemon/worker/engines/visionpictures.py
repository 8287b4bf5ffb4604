"""Pictures of the rows of a vision model, whose tensors are bounded while the rows wait.

A picture of 50 KB can be tensors of 300 MB, and 128 rows may wait. So the files stay with a
row until it ends, and its tensors until it goes into the batch if there is room for them; else,
and if it is put back in line later, they are made of the files again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from weakref import WeakSet

import mlx.core as mx
from mlx.utils import tree_flatten

from daemon.wire.errors import Code, MlxdError

TENSORS_BYTES_MAX: Final = 256 << 20
"""Of all rows that wait; one row's may be kept alone whatever they take."""

FILES_BYTES_MAX: Final = 256 << 20
"""Of all rows that wait or run; beyond it requests are refused, but never the only one."""

Tensors = dict[str, Any]
"""A processor's output for pictures: pixel values, grids, …"""


class Pictures:
    """One row's: their files, and their tensors while those are kept."""

    def __init__(self, files: Sequence[bytes], make: Callable[[Sequence[bytes]], Tensors]) -> None:
        self._files = files
        self._make = make
        self._tensors: Tensors | None = None
        self.files_bytes = sum(len(file) for file in files)
        self.tensors_bytes = 0

    def keep(self, tensors: Tensors) -> None:
        """Have the tensors at hand for the next :meth:`take`."""
        self._tensors, self.tensors_bytes = tensors, size_bytes(tensors)

    def take(self) -> Tensors:
        """The tensors, which are the caller's from now on; made again if they were not kept.

        Raises:
            Exception: They cannot be made again, by whatever the processor raises.
        """
        tensors, self._tensors, self.tensors_bytes = self._tensors, None, 0
        return self._make(self._files) if tensors is None else tensors


class PictureLine:
    """The pictures of all rows, each for as long as anything holds its row."""

    def __init__(self) -> None:
        self._rows: WeakSet[Pictures] = WeakSet()

    def check_room(self, files: Iterable[bytes]) -> None:
        """To be asked before a row's tensors are made.

        Raises:
            MlxdError: ``queue_full`` if other rows' files leave no room for these.
        """
        held = self.files_bytes
        asked = sum(len(file) for file in files)
        if held and asked and held + asked > FILES_BYTES_MAX:
            raise MlxdError(
                Code.QUEUE_FULL,
                f"the pictures of other requests for this model take {held >> 20} MiB already; "
                "try again later",
            )

    def add(self, pictures: Pictures, tensors: Tensors) -> None:
        """A further row's pictures; its tensors are kept if there is room."""
        kept = self.tensors_bytes
        if not kept or kept + size_bytes(tensors) <= TENSORS_BYTES_MAX:
            pictures.keep(tensors)
        self._rows.add(pictures)

    @property
    def files_bytes(self) -> int:
        """What the files of all rows take."""
        return sum(pictures.files_bytes for pictures in self._rows)

    @property
    def tensors_bytes(self) -> int:
        """What the kept tensors of all rows take."""
        return sum(pictures.tensors_bytes for pictures in self._rows)


def size_bytes(tensors: Tensors) -> int:
    """What all arrays in a processor's output take."""
    leaves = [leaf for _, leaf in tree_flatten(tensors)]
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, mx.array))
