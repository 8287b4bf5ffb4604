"""What must be true of a model folder before a library is let near it.

The libraries find a missing shard late or not at all (mlx_vlm skips it), and a shard that
was cut short can end the process while it is read; here each is one sentence that names
the file.
"""

import json
import struct
from pathlib import Path
from typing import Any, Final

from daemon.worker.engines.base import LoadRefused

_HEADER_BYTES_MAX: Final = 100_000_000
"""The safetensors format's own bound on its header."""


def read_config(folder: Path, *, typed: bool = True, allow_code: bool = False) -> dict[str, Any]:
    """The folder's ``config.json``, after everything that can be checked was checked.

    Args:
        typed: Whether a ``model_type`` must be in it; some audio models have none.
        allow_code: Whether the folder may bring a Python file of its own for its architecture.

    Raises:
        LoadRefused: ``incompatible``, naming the file and what is wrong with it.
    """
    config = read_json(folder / "config.json")
    if config is None:
        raise _incompatible(folder / "config.json", "is missing; is this a model folder?")
    if typed and not isinstance(config.get("model_type"), str):
        raise _incompatible(folder / "config.json", 'has no "model_type"')
    if config.get("model_file") is not None and not allow_code:
        raise _incompatible(
            folder / "config.json",
            f'asks to run the Python file "{config["model_file"]}" from the folder; use a '
            "conversion of a built-in architecture, or allow_code in config.toml if you trust it",
        )
    for shard in _shards(folder):
        _check_shard(shard)
    return config


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or None if there is no such file.

    Raises:
        LoadRefused: ``incompatible`` if it is not a JSON object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _incompatible(path, f"cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise _incompatible(path, "is not a JSON object")
    return value


def _shards(folder: Path) -> list[Path]:
    """The weight files: as the index lists them, else every safetensors file."""
    index_file = folder / "model.safetensors.index.json"
    index = read_json(index_file)
    if index is None:
        shards = sorted(folder.glob("*.safetensors"))
        if not shards:
            raise _incompatible(folder, "holds no *.safetensors weights")
        return shards
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise _incompatible(index_file, 'has no "weight_map"')
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not (folder / name).is_file():
            raise _incompatible(
                folder / name, "is listed in the index but missing; download the model again"
            )
    return [folder / name for name in names]


def _check_shard(shard: Path) -> None:
    """Header and length agree (safetensors: u64 little-endian length, JSON, data)."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if not 2 <= header_bytes <= min(_HEADER_BYTES_MAX, size - 8):
            raise _incompatible(shard, "is not a safetensors file, or was cut short")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [
                tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _incompatible(shard, f"has a damaged header ({error})") from error
    needed = 8 + header_bytes + max(ends, default=0)
    if size < needed:
        raise _incompatible(
            shard, f"was cut short: {size} of {needed} bytes; download the model again"
        )


def _incompatible(path: Path, what: str) -> LoadRefused:
    return LoadRefused("incompatible", f"{path} {what}")
