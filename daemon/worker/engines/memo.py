"""What a vision tower computed, kept for the next turn about the same pictures.

Conversations send all of their pictures with every turn. A tower is a function of its
arguments, so its output is kept by a digest of them; the models' own code is not touched.
"""

import hashlib
from collections import OrderedDict
from typing import Any

import mlx.core as mx
import numpy as np


class TowerMemo:
    """Stands in for a model's vision tower.

    Args:
        bytes_max: Of all outputs that are kept; beyond it those not used for longest go.

    Attributes:
        hits: How often an output was there already.
    """

    def __init__(self, tower: Any, bytes_max: int) -> None:
        self._tower = tower
        self._bytes_max = bytes_max
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self.nbytes = 0
        self.hits = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        digest = hashlib.blake2b(digest_size=16)
        if not _feed(digest, [args, sorted(kwargs.items())]):
            return self._tower(*args, **kwargs)
        key = digest.digest()
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return _aliases(self._kept[key])
        output = self._tower(*args, **kwargs)
        self._keep(key, output)
        return _aliases(output)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tower, name)

    def _keep(self, key: bytes, output: Any) -> None:
        arrays = _arrays(output)
        size = sum(array.nbytes for array in arrays or ())
        if arrays is None or size > self._bytes_max:
            return
        mx.eval(arrays)
        self._kept[key] = output
        self.nbytes += size
        self.trim(self._bytes_max)

    def trim(self, bytes_max: int) -> None:
        """Drop what was not used for longest, until the rest fits."""
        while self._kept and self.nbytes > bytes_max:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= sum(array.nbytes for array in _arrays(dropped) or ())


def _feed(digest: Any, value: Any) -> bool:
    """Put a value into the digest; False if it is of a kind that is not known to be one."""
    if isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        return all(_feed(digest, one) for one in value)
    if isinstance(value, mx.array):
        digest.update(str(value.dtype).encode())
        value = np.array(value.astype(mx.float32) if value.dtype == mx.bfloat16 else value)
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.name}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
        return True
    if value is None or isinstance(value, bool | int | float | str):
        digest.update(repr(value).encode())
        return True
    return False


def _arrays(output: Any) -> list[mx.array] | None:
    """All arrays of an output; None if there is anything else in it."""
    if isinstance(output, mx.array):
        return [output]
    if output is None:
        return []
    if not isinstance(output, list | tuple):
        return None
    found: list[mx.array] = []
    for one in output:
        arrays = _arrays(one)
        if arrays is None:
            return None
        found += arrays
    return found


def _aliases(output: Any) -> Any:
    """The same values as other array objects: a model may assign into those that it gets."""
    if isinstance(output, mx.array):
        return output.view(output.dtype)
    if type(output) in {list, tuple}:
        return type(output)(_aliases(one) for one in output)
    return output
