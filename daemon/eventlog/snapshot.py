"""Snapshots: the state after some record, so that start-up need not replay it all.

A snapshot is a convenience; the log is the truth. One that cannot be used is ignored
with a reason, and an older one or the whole log serves instead.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from daemon.eventlog.disk import Disk, put_file

KEEP: Final = 2
_SUFFIX: Final = ".snapshot"
_DIGITS: Final = 16
_SEAL: Final = b',"sha256":"%b"}'
_SEAL_BYTES: Final = len(_SEAL) - 2 + 64


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place between two records: after ``seq``, which was written at ``at_ms``."""

    seq: int
    at_ms: int
    chain: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's state after one record.

    Attributes:
        state_version: Of the caller's encoding of ``state``.
    """

    position: Position
    state_version: int
    state: bytes


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    snapshot: int
    seq: int
    at_ms: int
    chain: str
    state_version: int
    state_bytes: int
    sha256: str


def snapshot_name(seq: int) -> str:
    """The name of the snapshot after record ``seq``; names sort by it."""
    return f"{seq:0{_DIGITS}d}{_SUFFIX}"


def snapshots_in(disk: Disk, folder: Path) -> tuple[int, ...]:
    """The records after which there are snapshots, newest first."""
    stems = (n.removesuffix(_SUFFIX) for n in disk.names(folder) if n.endswith(_SUFFIX))
    found = (int(s) for s in stems if len(s) == _DIGITS and s.isdecimal())
    return tuple(sorted(found, reverse=True))


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """One line of JSON, then the state; the hash covers every other byte."""
    at = snapshot.position
    header = _Header(
        snapshot=1,
        seq=at.seq,
        at_ms=at.at_ms,
        chain=at.chain,
        state_version=snapshot.state_version,
        state_bytes=len(snapshot.state),
        sha256="",
    )
    body = msgspec.json.encode(header)[: -len(b',"sha256":""}')]
    return body + _SEAL % _digest(body, snapshot.state) + b"\n" + snapshot.state


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot in ``data``.

    Raises:
        ValueError: It is not, byte for byte, what was written.
    """
    line, newline, state = data.partition(b"\n")
    body = line[:-_SEAL_BYTES]
    if not newline or line[-_SEAL_BYTES:] != _SEAL % _digest(body, state):
        raise ValueError("its hash does not match its bytes")
    header = msgspec.json.decode(line, type=_Header)
    position = Position(seq=header.seq, at_ms=header.at_ms, chain=header.chain)
    return Snapshot(position=position, state_version=header.state_version, state=state)


def _digest(body: bytes, state: bytes) -> bytes:
    return sha256(body + b"\n" + state).hexdigest().encode()


def write_snapshot(disk: Disk, folder: Path, snapshot: Snapshot) -> None:
    """Put ``snapshot`` in place whole or not at all, and keep the two newest.

    Snapshots of later records go too: the caller's log ends before them, so they tell
    of records that were lost.

    Raises:
        OSError: Nothing was put in place.
    """
    name = snapshot_name(snapshot.position.seq)
    temporary = folder / f"{name}.tmp"
    put_file(disk, temporary, encode_snapshot(snapshot))
    disk.rename(temporary, folder / name)
    disk.sync_folder(folder)
    _prune(disk, folder, snapshot.position.seq)


def _prune(disk: Disk, folder: Path, newest: int) -> None:
    kept = {newest, *[seq for seq in snapshots_in(disk, folder) if seq < newest][: KEEP - 1]}
    keep = {snapshot_name(seq) for seq in kept}
    for name in disk.names(folder):
        if name.endswith((_SUFFIX, f"{_SUFFIX}.tmp")) and name not in keep:
            disk.remove(folder / name)


def read_snapshot(disk: Disk, folder: Path, seq: int, state_version: int | None) -> Snapshot:
    """The snapshot after record ``seq``, if its state is of ``state_version`` (None: any).

    Raises:
        ValueError: Why it cannot be used.
    """
    path = folder / snapshot_name(seq)
    try:
        snapshot = decode_snapshot(disk.read(path, 0, disk.size(path)))
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    if snapshot.position.seq != seq:
        raise ValueError(f"it is of record {snapshot.position.seq}")
    if state_version is not None and snapshot.state_version != state_version:
        raise ValueError(
            f"its state has version {snapshot.state_version}, this program's has {state_version}"
        )
    return snapshot
