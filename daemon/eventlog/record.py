"""One record is one line: JSON that ``jq`` reads, sealed by a hash over exact bytes.

``chain`` of line n is the first 32 hex digits of SHA-256(chain of line n-1, then the
bytes of line n before ``,"chain"``). The first line of a segment also says ``prev``,
the chain before it, so that each segment can be checked on its own. Hashes are always
over the bytes on disk, never over values encoded again.
"""

import re
from binascii import hexlify
from hashlib import sha256
from typing import Any, Final

import msgspec

from daemon.eventlog.upcast import UPCASTERS, Upcasters, current_versions, upcast
from daemon.pool.messages import Cause, DurableEvent

GENESIS: Final = "0" * 32
RECORD_BYTES_MAX: Final = 1_000_000
"""A line must fit in one control frame (1 MiB) on its way to a watcher."""

_SEAL: Final = b',"chain":"%b"}'
_SEAL_BYTES: Final = len(_SEAL % GENESIS.encode())
_PREV: Final = b',"prev":"'
_PREV_BYTES: Final = len(_PREV) + 32 + 1
_LINK: Final = re.compile(rb"[0-9a-f]{32}")
_HEAD: Final = b'{"seq":'


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What one decision made true.

    Attributes:
        seq: 1 for the first record of a log, then without gaps.
        at_ms: Unix time in milliseconds; never less than in an earlier record.
        prev: Chain of the record before, in the first record of a segment only.
        chain: 32 hex digits that depend on every byte of the log so far.
    """

    seq: int
    at_ms: int
    cause: Cause
    events: tuple[DurableEvent, ...]
    prev: str | None = None
    chain: str = ""


_ENCODER: Final = msgspec.json.Encoder()


def seal(
    seq: int,
    at_ms: int,
    cause: Cause,
    events: tuple[DurableEvent, ...],
    chain: str,
    *,
    opens_segment: bool,
) -> tuple[Record, bytes]:
    """The record that follows ``chain``, and its line without the newline.

    Raises:
        ValueError: The line would pass :data:`RECORD_BYTES_MAX`.
    """
    prev = chain if opens_segment else None
    bare = Record(seq=seq, at_ms=at_ms, cause=cause, events=events, prev=prev)
    body = _ENCODER.encode(bare)[:-1]
    link = link_of(chain.encode(), body)
    line = body + _SEAL % link
    if len(line) > RECORD_BYTES_MAX:
        raise ValueError(f"record {seq} takes {len(line)} bytes, over {RECORD_BYTES_MAX}")
    return msgspec.structs.replace(bare, chain=link.decode()), line


def link_of(chain: bytes, body: bytes) -> bytes:
    """The chain of a line whose bytes before ``,"chain"`` are ``body``."""
    return hexlify(sha256(chain + body).digest()[:16])


def check_lines(lines: list[bytes], seq: int, chain: bytes) -> tuple[int, bytes]:
    """How many of ``lines`` follow one another and ``seq``, and the chain of the last.

    The hot loop of opening and verifying: slices and one hash a line, no decoding. A
    line whose hash holds is what was written after the line before it, so the number
    is looked at in the last line alone, and in each only if that one is wrong.
    """
    expected = chain
    good = len(lines)
    for count, line in enumerate(lines):
        link = hexlify(sha256(expected + line[:-_SEAL_BYTES]).digest()[:16])
        if line[-_SEAL_BYTES:] != b',"chain":"' + link + b'"}':
            good = count
            break
        expected = link
    if good and seq_of(lines[good - 1]) != seq + good:
        good = next(n for n, line in enumerate(lines) if seq_of(line) != seq + n + 1)
        expected = (chain_of(lines[good - 1]) or b"") if good else chain
    return good, expected


def explain(line: bytes, seq: int, chain: bytes) -> str:
    """Why ``line`` is not record ``seq`` after ``chain``, for people."""
    found = seq_of(line)
    if found is None:
        return "this is no record"
    if found != seq:
        return f"record {found} is where record {seq} belongs"
    if line[-_SEAL_BYTES:] == _SEAL % link_of(chain, line[:-_SEAL_BYTES]):
        return "nothing is wrong with this line"
    return "its hash does not match its bytes and the line before it"


def seq_of(line: bytes) -> int | None:
    """The sequence number that a line begins with; None if it begins otherwise."""
    digits = line[len(_HEAD) : line.find(b",", 0, 40)]
    return int(digits) if line.startswith(_HEAD) and digits.isdigit() else None


def chain_of(line: bytes) -> bytes | None:
    """The chain that a line states; None if it does not end as lines end."""
    link = line[-34:-2]
    return link if line[-_SEAL_BYTES:] == _SEAL % link and _LINK.fullmatch(link) else None


def prev_of(line: bytes) -> bytes | None:
    """The chain before a segment, as its first line states it; None if it does not."""
    field = line[-_SEAL_BYTES - _PREV_BYTES : -_SEAL_BYTES]
    prev = field[len(_PREV) : -1]
    return prev if field == _PREV + prev + b'"' and _LINK.fullmatch(prev) else None


class LineDecoder:
    """Lines back to records, whatever version their events were written in."""

    def __init__(self, upcasters: Upcasters = UPCASTERS) -> None:
        self._upcasters = upcasters
        self._versions = current_versions()
        self._current = {
            kind: self._versions[kind.__struct_config__.tag] for kind in DurableEvent.__args__
        }
        self._strict = msgspec.json.Decoder(Record)

    def decode(self, line: bytes) -> Record:
        """The record that ``line`` holds; its hash is the caller's business.

        Raises:
            ValueError: It holds what this version does not know, or is no record.
        """
        try:
            record = self._strict.decode(line)
        except msgspec.ValidationError:
            return self._decode_old(line)
        for event in record.events:
            if event.v != self._current[type(event)]:
                return self._decode_old(line)
        return record

    def _decode_old(self, line: bytes) -> Record:
        raw: Any = msgspec.json.decode(line)
        if not isinstance(raw, dict) or not isinstance(raw.get("events"), list):
            raise ValueError("this is no record")  # noqa: TRY004
        if not all(isinstance(event, dict) for event in raw["events"]):
            raise ValueError("an event that is no object")
        raw["events"] = [upcast(event, self._versions, self._upcasters) for event in raw["events"]]
        return msgspec.convert(raw, Record)
