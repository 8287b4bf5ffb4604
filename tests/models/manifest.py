"""What was built: `MANIFEST.json` beside the model folders, and the comparison with the disk.

Sizes and modification times answer the everyday question in no time. A file whose time differs is
hashed, so a copied or restored cache counts as whole, and a changed file does not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tests.models.wheels import file_sha256

MANIFEST_NAME: Final = "MANIFEST.json"


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file as it was when its folder was built."""

    sha256: str
    size_bytes: int
    mtime_ns: int


class FolderRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model folder: what it was made from and what it consists of."""

    converter_version: int
    sources: dict[str, str]  # wheel file name -> SHA-256
    files: dict[str, FileRecord]  # path inside the folder, with "/" -> record

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files.values())


Manifest = dict[str, FolderRecord]


def read_manifest(root: Path) -> Manifest:
    """The manifest in `root`; empty if there is none or it cannot be understood.

    A manifest that cannot be read costs a rebuild, never a wrong answer.
    """
    path = root / MANIFEST_NAME
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError:
        return {}


def write_manifest(root: Path, manifest: Mapping[str, FolderRecord]) -> None:
    """Replace the manifest in `root` in one step."""
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)
    fresh = root / f".{MANIFEST_NAME}.new"
    fresh.write_bytes(text + b"\n")
    fresh.replace(root / MANIFEST_NAME)


def record_folder(folder: Path, converter_version: int, sources: Mapping[str, str]) -> FolderRecord:
    """Describe a folder that was just built."""
    files = {name: _record_file(path) for name, path in _files_in(folder).items()}
    return FolderRecord(converter_version, dict(sources), files)


def damage(folder: Path, record: FolderRecord, *, thorough: bool = False) -> str | None:
    """How the folder differs from its record, or None if it does not.

    Args:
        folder: The model folder.
        record: What it was when built.
        thorough: Hash every file, not only those with another modification time.
    """
    present = _files_in(folder)
    for name, expected in record.files.items():
        if name not in present:
            return f"{name} is missing"
        status = present[name].stat()
        if status.st_size != expected.size_bytes:
            return f"{name} has {status.st_size} bytes instead of {expected.size_bytes}"
        touched = status.st_mtime_ns != expected.mtime_ns
        if (touched or thorough) and file_sha256(present[name]) != expected.sha256:
            return f"{name} has other contents than when it was built"
    extra = sorted(present.keys() - record.files.keys())
    return f"{extra[0]} does not belong there" if extra else None


def _record_file(path: Path) -> FileRecord:
    status = path.stat()
    return FileRecord(file_sha256(path), status.st_size, status.st_mtime_ns)


def _files_in(folder: Path) -> dict[str, Path]:
    """Files by relative path; hidden ones are the desktop's, not ours."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
