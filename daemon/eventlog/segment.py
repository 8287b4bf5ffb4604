"""One file of the log: its name, its lines, whether they hold, and where a record is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from daemon.eventlog.disk import BLOCK_BYTES, Disk
from daemon.eventlog.errors import Damage, LogDamaged
from daemon.eventlog.record import (
    GENESIS,
    RECORD_BYTES_MAX,
    chain_of,
    check_lines,
    explain,
    prev_of,
    seq_of,
)

PROBE_BYTES: Final = 1 << 16
_SUFFIX: Final = ".jsonl"
_DIGITS: Final = 16

Visit = Callable[[list[bytes], int, int], None]
"""Takes good lines, the seq of the first, and the byte at which it begins."""


def segment_name(first_seq: int) -> str:
    """The name of the segment that begins with record ``first_seq``; names sort by it."""
    return f"{first_seq:0{_DIGITS}d}{_SUFFIX}"


def segments_in(disk: Disk, folder: Path) -> tuple[int, ...]:
    """First record of each segment in ``folder``, ascending, by their names."""
    stems = (name.removesuffix(_SUFFIX) for name in disk.names(folder) if name.endswith(_SUFFIX))
    return tuple(sorted(int(s) for s in stems if len(s) == _DIGITS and s.isdecimal()))


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What one segment holds, as far as it holds.

    Attributes:
        prev: The chain before the segment, as its first line states it; "" if unknown.
        last_seq: Last good record; one less than ``first_seq`` if there is none.
        chain: Chain of the last good record; "" if there is none.
        good_bytes: Length of the lines that are good.
        size_bytes: Length of the file.
        one_line: Whether what is bad is a single line, whole or not.
    """

    first_seq: int
    prev: str
    last_seq: int
    chain: str
    good_bytes: int
    size_bytes: int
    damage: Damage | None = None
    one_line: bool = False


def scan_segment(disk: Disk, path: Path, first_seq: int, visit: Visit | None = None) -> Scan:
    """Check every line of a segment against its own ``prev``, streaming.

    Args:
        visit: Is shown the good lines, block by block.
    """
    size = disk.size(path)
    seq, good, prev, chain = first_seq - 1, 0, b"", b""
    why, rest = "", 0
    for lines in line_blocks(disk, path, 0, size):
        if not good:
            prev = chain = prev_of(lines[0]) or b""
        count, chain = check_lines(lines, seq, chain) if chain else (0, chain)
        if count:
            if visit is not None:
                visit(lines[:count], seq + 1, good)
            good += sum(map(len, lines[:count])) + count
            seq += count
        if count < len(lines):
            why = explain(lines[count], seq + 1, chain)
            rest = len(lines[count]) + 1
            break
    if not why and good < size:
        why, rest = "the last line has no end", size - good
    return Scan(
        first_seq=first_seq,
        prev=prev.decode() if good else "",
        last_seq=seq,
        chain=chain.decode() if good else "",
        good_bytes=good,
        size_bytes=size,
        damage=Damage(file=str(path), offset=good, seq=seq + 1, why=why) if why else None,
        one_line=bool(why) and good + rest >= size and rest <= RECORD_BYTES_MAX + 1,
    )


def line_blocks(disk: Disk, path: Path, start: int, end: int) -> Iterator[list[bytes]]:
    """The whole lines between two bytes of a file, in blocks, without their newlines.

    Stops at a line that is longer than any record can be; what follows the last
    newline is left out.
    """
    carry = b""
    while start < end:
        data = disk.read(path, start, min(BLOCK_BYTES, end - start))
        if not data:
            return
        start += len(data)
        lines = (carry + data).split(b"\n")
        carry = lines.pop()
        if lines:
            yield lines
        if len(carry) > RECORD_BYTES_MAX:
            return


def glance_segment(disk: Disk, path: Path, first_seq: int) -> Scan:
    """The two ends of a segment without what lies between: enough to check its links."""
    size = disk.size(path)
    first = next(line_blocks(disk, path, 0, min(size, RECORD_BYTES_MAX + 1)), [b""])[0]
    last, offset = _last_line(disk, path, size)
    prev, chain, last_seq = prev_of(first), chain_of(last), seq_of(last)
    why = ""
    if seq_of(first) != first_seq or prev is None:
        why, offset, seq = "its first line is not as it was written", 0, first_seq
    elif last_seq is None or chain is None:
        why, seq = "its last line is not as it was written", first_seq
    return Scan(
        first_seq=first_seq,
        prev=(prev or b"").decode(),
        last_seq=last_seq or first_seq - 1,
        chain=(chain or b"").decode(),
        good_bytes=size,
        size_bytes=size,
        damage=Damage(file=str(path), offset=offset, seq=seq, why=why) if why else None,
    )


def _last_line(disk: Disk, path: Path, size: int) -> tuple[bytes, int]:
    """The last line (b"" if the file does not end in a newline) and where it begins."""
    take = PROBE_BYTES
    while True:
        start = max(0, size - take)
        data = disk.read(path, start, size - start)
        if not data.endswith(b"\n"):
            return b"", start
        before = data.rfind(b"\n", 0, -1)
        if before >= 0 or start == 0 or take > RECORD_BYTES_MAX:
            return data[before + 1 : -1], start + before + 1
        take *= 4


def link_damage(folder: Path, before: Scan | None, after: Scan) -> Damage | None:
    """What is wrong between two good neighbours, from what each says of the other.

    Args:
        before: None if ``after`` is the first segment of the log.
    """
    last_seq, chain = (0, GENESIS) if before is None else (before.last_seq, before.chain)
    expected = last_seq + 1
    at = str(folder / segment_name(after.first_seq if before is None else before.first_seq))
    offset = 0 if before is None else before.good_bytes
    if after.first_seq != expected:
        missing = f"records {expected} to {after.first_seq - 1} are missing before the next segment"
        twice = f"the next segment begins with record {after.first_seq} again"
        why = missing if after.first_seq > expected else twice
    elif after.prev and after.prev != chain:
        why = f"the next segment ({segment_name(after.first_seq)}) follows other records than these"
    else:
        return None
    return Damage(file=at, offset=offset, seq=expected, why=why)


def locate(disk: Disk, path: Path, end: int, seq: int) -> int:
    """A byte at which a line begins, at or shortly before record ``seq``.

    Bisects the file, so it costs a few small reads wherever the record lies.
    """
    low, high = 0, end
    while high - low > PROBE_BYTES:
        middle = (low + high) // 2
        start, found = _line_after(disk, path, middle, high)
        if found is not None and found <= seq:
            low = start
        else:
            high = middle
    return low


def _line_after(disk: Disk, path: Path, offset: int, end: int) -> tuple[int, int | None]:
    """The first line that begins after ``offset`` and before ``end``, and its seq."""
    while offset < end:
        data = disk.read(path, offset, min(PROBE_BYTES, end - offset))
        newline = data.find(b"\n")
        if newline >= 0:
            start = offset + newline + 1
            head = data[newline + 1 : newline + 41]
            if len(head) < 40:
                head = disk.read(path, start, min(40, max(0, end - start)))
            return start, seq_of(head)
        if not data:
            break
        offset += len(data)
    return end, None


def lines_after(disk: Disk, path: Path, end: int, seq: int) -> Iterator[tuple[int, list[bytes]]]:
    """Blocks of whole lines after record ``seq`` and before byte ``end``.

    Yields:
        The sequence number of a block's first line, and its lines.

    Raises:
        LogDamaged: No record is found where one was; the caller had the file checked.
    """
    following = 0
    start = locate(disk, path, end, seq)
    for lines in line_blocks(disk, path, start, end):
        first = following or seq_of(lines[0])
        if first is None:
            why = "it is not as it was when it was checked"
            raise LogDamaged(Damage(file=str(path), offset=start, seq=seq + 1, why=why))
        following = first + len(lines)
        skip = max(0, seq + 1 - first)
        if skip < len(lines):
            yield first + skip, lines[skip:] if skip else lines
