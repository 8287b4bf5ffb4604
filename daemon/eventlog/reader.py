"""The reading half of the log: history from the files, beside a writer or without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from daemon.eventlog.disk import Disk
from daemon.eventlog.errors import Damage, LogDamaged, LogTooNew
from daemon.eventlog.opening import Findings
from daemon.eventlog.record import LineDecoder, Record
from daemon.eventlog.segment import lines_after, scan_segment, segment_name

DECODER: Final = LineDecoder()


class Line(NamedTuple):
    """One record as it is in the file, without its newline."""

    seq: int
    text: str


class Extent(NamedTuple):
    """What readers may see; replaced as a whole, so that any thread may take it."""

    segments: tuple[int, ...]
    end_bytes: int
    seq: int


class LogReader:
    """Reads what was committed; any thread may, while one writes."""

    def __init__(self, folder: Path, disk: Disk, found: Findings) -> None:
        self._folder = folder
        self._disk = disk
        self._extent = Extent(found.segments, found.end_bytes, found.end.seq)
        self._checked = set(found.checked)

    def replay(self, after_seq: int = 0) -> Iterator[Record]:
        """The committed records after ``after_seq``, one by one, in today's versions.

        Raises:
            LogDamaged: An older segment, which opening did not check, does not hold.
            LogTooNew: A record holds what this version does not know.
            OSError: A file cannot be read.
        """
        decode = DECODER.decode
        for first, lines, path in self._blocks(after_seq):
            for number, line in enumerate(lines, first):
                try:
                    record = decode(line)
                except ValueError as error:
                    raise LogTooNew(f"record {number} in {path}", str(error)) from error
                if record.seq != number:
                    raise _changed(path, number)
                yield record

    def read_after(self, seq: int) -> Iterator[Line]:
        """The lines after record ``seq`` that are committed when the first is taken.

        Safe in any thread beside a writer; a recent ``seq`` costs a few small reads.

        Raises:
            LogDamaged: An older segment, which opening did not check, does not hold.
            OSError: A file cannot be read.
        """
        for first, lines, _ in self._blocks(seq):
            for number, line in enumerate(lines):
                yield Line(first + number, line.decode())

    def _blocks(self, after_seq: int) -> Iterator[tuple[int, list[bytes], Path]]:
        segments, end_bytes, last_seq = self._extent
        if after_seq >= last_seq:
            return
        for number, first in enumerate(segments):
            is_last = number + 1 == len(segments)
            if not is_last and segments[number + 1] <= after_seq + 1:
                continue
            path = self._folder / segment_name(first)
            end = end_bytes if is_last else self._whole_bytes(first, path)
            expected = max(after_seq + 1, first)
            for block_first, lines in lines_after(self._disk, path, end, after_seq):
                if block_first != expected:
                    raise _changed(path, expected)
                expected += len(lines)
                yield block_first, lines, path
            if expected != (last_seq + 1 if is_last else segments[number + 1]):
                raise _changed(path, expected)

    def _whole_bytes(self, first: int, path: Path) -> int:
        """The length of an older segment, which is checked before it is first read."""
        if first not in self._checked:
            scan = scan_segment(self._disk, path, first)
            if scan.damage is not None:
                raise LogDamaged(scan.damage)
            self._checked.add(first)
        return self._disk.size(path)


def _changed(path: Path, seq: int) -> LogDamaged:
    why = "it is not as it was when it was opened"
    return LogDamaged(Damage(file=str(path), offset=0, seq=seq, why=why))
