"""Model folders that look right and cannot be loaded."""

import json
import shutil
import struct
from pathlib import Path

from daemon.models.resolve import BUNDLED


def make_model_that_fails_to_load(folder: Path) -> Path:
    """The bundled model with one tensor's shape wrong: only loading it can tell."""
    shutil.copytree(BUNDLED["mlxd/glimpse"], folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = "language_model.model.norm.weight"
    header[name]["shape"] = [2, header[name]["shape"][0] // 2]
    encoded = json.dumps(header).encode().ljust(size)
    weights.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + size :])
    return folder
