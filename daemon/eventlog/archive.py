"""The log in one file, to keep or to send: lines as they are, or everything as it lies."""

import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec

from daemon.eventlog.audit import scan_patiently
from daemon.eventlog.disk import Disk
from daemon.eventlog.errors import Damage
from daemon.eventlog.segment import Scan, line_blocks, segment_name, segments_in


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What went into an export.

    Attributes:
        files: Of the log, in the export.
        records: Good ones.
        damages: What a ``.jsonl`` leaves out, and a ``.tar.gz`` holds as it is.
    """

    target: str
    files: int
    records: int
    bytes: int
    damages: tuple[Damage, ...]


def export(disk: Disk, folder: Path, target: Path) -> ExportReport:
    """Copy the log to ``target``, which appears whole or not at all.

    Args:
        target: ``NAME.jsonl``: all good lines, exactly as they are, in one file whose
            chain still holds. ``NAME.tar.gz``: every file of the log.

    Raises:
        ValueError: ``target`` ends otherwise, or its folder takes no file.
        FileExistsError: ``target`` is there; nothing is overwritten.
        OSError: A file cannot be read or written.
    """
    fill: Callable[[Disk, Path, list[Scan], IO[bytes]], int]
    if target.name.endswith(".jsonl"):
        fill = _fill_lines
    elif target.name.endswith(".tar.gz"):
        fill = _fill_tar
    else:
        raise ValueError(f"{target} should end in .jsonl or .tar.gz")
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name")
    segments = segments_in(disk, folder)
    scans = [scan_patiently(disk, folder / segment_name(s), s) for s in segments]
    part = target.with_name(f"{target.name}.part")
    descriptor = _created(part)
    try:
        with os.fdopen(descriptor, "wb") as out:
            files = fill(disk, folder, scans, out)
            out.flush()
            os.fsync(descriptor)
        target.hardlink_to(part)  # unlike a rename, it replaces nothing
    finally:
        part.unlink()
    return ExportReport(
        target=str(target),
        files=files,
        records=sum(scan.last_seq - scan.first_seq + 1 for scan in scans),
        bytes=target.stat().st_size,
        damages=tuple(scan.damage for scan in scans if scan.damage is not None),
    )


def _created(part: Path) -> int:
    try:
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ValueError(
            f"{part} cannot be made ({error.strerror}); name another TARGET"
        ) from error


def _fill_lines(disk: Disk, folder: Path, scans: list[Scan], out: IO[bytes]) -> int:
    for scan in scans:
        path = folder / segment_name(scan.first_seq)
        for lines in line_blocks(disk, path, 0, scan.good_bytes):
            out.write(b"\n".join(lines) + b"\n")
    return len(scans)


def _fill_tar(disk: Disk, folder: Path, scans: list[Scan], out: IO[bytes]) -> int:
    """Files are cut where they ended when they were scanned, so that none is half a line."""
    sizes = {segment_name(scan.first_seq): scan.size_bytes for scan in scans}
    names = [name for name in disk.names(folder) if not name.endswith((".tmp", ".probe"))]
    names = [name for name in names if name in sizes or not name.endswith(".jsonl")]
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names:
            data = disk.read(folder / name, 0, sizes.get(name) or disk.size(folder / name))
            entry = tarfile.TarInfo(f"events/{name}")
            entry.size = len(data)
            entry.mode = 0o600
            archive.addfile(entry, BytesIO(data))
    return len(names)
