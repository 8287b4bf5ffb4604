"""Requests as rows of a continuously decoded batch: who waits, who runs, who is put back.

The library that decodes is behind :class:`Decoder`; everything here is plain Python. Rows
join at the next step, first come first served, while the KV allowance holds: rows times
the longest row, because a batch pads its rows to the longest. When running rows outgrow
the allowance, the youngest is taken out and put back in line with what it has decoded so
far; the oldest always goes on, so every row ends. What running rows leave of the allowance is
there for caches of ended ones, so that both together stay within what was reserved.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog

from daemon.wire.data import Delta, Done, Fail, FinishReason, Generate, Usage
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.worker.engines.base import Emission, failed
from daemon.worker.engines.logprobs import Scores
from daemon.worker.engines.output import Piece, TextOutput

log = structlog.get_logger()

KV_STEP_TOKENS: Final = 256
"""Caches of mlx_lm and mlx_vlm grow by this many tokens at a time."""

WAITING_MAX: Final = 128
"""Requests in line beyond those decoded; further ones are refused as ``queue_full``."""


class Token(msgspec.Struct, frozen=True):
    """One row's token of one step; ``finish`` "stop" means an end token, no part of the text."""

    uid: int
    token: int
    finish: Literal["stop", "length"] | None = None
    scores: Scores | None = None


class RowFailed(msgspec.Struct, frozen=True):
    """One row cannot go on; the others can."""

    uid: int
    error: Exception


class Row:
    """One request: its prompt, what it decoded, and how its text comes out.

    Attributes:
        extra: What only the engine that made the row knows of.
        priority: Above 0 goes before the others in line, below 0 after them.
        cached: Prompt tokens whose cache was there already, as the decoder says.
    """

    def __init__(
        self,
        *,
        prompt: list[int],
        tokens_max: int,
        output: TextOutput,
        extra: Any = None,
        priority: int = 0,
    ) -> None:
        self.request_id = -1
        self.priority = priority
        self.cached = 0
        self.prompt = prompt
        self.tokens_max = tokens_max
        self.output = output
        self.extra = extra
        self.decoded: list[int] = []
        self.uid: int | None = None
        self.started_s: float | None = None
        self.first_token_s: float | None = None

    @property
    def length(self) -> int:
        """Tokens of KV that the row takes now."""
        return len(self.prompt) + len(self.decoded)

    def usage(self, now_s: float) -> Usage:
        started = now_s if self.started_s is None else self.started_s
        first = now_s if self.first_token_s is None else self.first_token_s
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=len(self.decoded),
            cached_tokens=self.cached,
            prefill_ms=round((first - started) * 1000),
            decode_ms=round((now_s - first) * 1000),
        )


class Decoder(Protocol):
    """A library's batch generator, as thin as it can be."""

    def insert(self, row: Row) -> int:
        """Add a row with its prompt and what it has decoded; sets ``cached``, gives its uid."""
        ...

    def defers(self, row: Row) -> bool:
        """Whether the row had better wait: a row in the batch is computing its beginning."""
        ...

    def remove(self, uid: int) -> None:
        """Take a row out, at whatever stage it is."""
        ...

    def next(self) -> Sequence[Token | RowFailed]:
        """One decode step of all rows, then at most one prefill chunk.

        Mostly a token a row; a decoder that guesses ahead gives several, in order. A row's
        failure, or its token with ``finish``, is the last that is heard of the row.
        """
        ...

    def keep_within(self, bytes_max: int) -> None:
        """Drop what is kept for later rows beyond so many bytes."""
        ...

    def put_away(self) -> bool:
        """Write a bounded part of what is kept to disk; False if nothing is left to write."""
        ...

    def close(self) -> None: ...


class Allowance(msgspec.Struct, frozen=True):
    """Rows times longest row within ``kv_tokens``, and at most ``rows_max`` rows.

    Attributes:
        kv_bytes: What ``kv_tokens`` tokens take.
    """

    kv_tokens: int
    rows_max: int
    kv_bytes: int = 0

    def holds(self, lengths: list[int]) -> bool:
        """Whether rows of these lengths may be in the batch together."""
        return len(lengths) <= 1 or (
            len(lengths) <= self.rows_max and len(lengths) * _padded(max(lengths)) <= self.kv_tokens
        )

    def admits(self, lengths: list[int]) -> bool:
        """As :meth:`holds`, with room for each to grow by one step of the cache."""
        return self.holds([length + KV_STEP_TOKENS for length in lengths])

    def left_bytes(self, lengths: list[int]) -> int:
        """What rows of these lengths leave of ``kv_bytes``."""
        used_tokens = len(lengths) * _padded(max(lengths, default=0))
        return self.kv_bytes - min(used_tokens, self.kv_tokens) * self.kv_bytes // self.kv_tokens


def _padded(length: int) -> int:
    return math.ceil(length / KV_STEP_TOKENS) * KV_STEP_TOKENS


class Rows:
    """The rows of one model: submitted, stepped, cancelled.

    Args:
        prepare: Turns a request into a row, or raises MlxdError.
        make_decoder: Makes an empty decoder; called again after a step failed.
    """

    def __init__(
        self,
        prepare: Callable[[Generate], Row],
        make_decoder: Callable[[], Decoder],
        allowance: Allowance,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prepare = prepare
        self._make_decoder = make_decoder
        self._allowance = allowance
        self._clock = clock
        self._decoder = make_decoder()
        self._waiting: deque[Row] = deque()
        self._running: dict[int, Row] = {}

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(self, request_id: int, request: Generate) -> int:
        """Put a request in line; gives the number of its prompt tokens."""
        if len(self._waiting) >= WAITING_MAX:
            raise MlxdError(
                Code.QUEUE_FULL,
                f"{WAITING_MAX} requests already wait for this model; try again later",
            )
        try:
            row = self._prepare(request)
        except MlxdError:
            raise
        except Exception as error:
            log.exception("request.failed", request=request_id)
            raise MlxdError.of(failed("preparing the request", error)) from error
        row.request_id = request_id
        self._line_up(row)
        return len(row.prompt)

    def _line_up(self, row: Row) -> None:
        """Behind those of its priority; rows that have begun stay where they were put back."""
        place = len(self._waiting)
        while place and self._waiting[place - 1].priority < row.priority:
            if self._waiting[place - 1].decoded:
                break
            place -= 1
        self._waiting.insert(place, row)

    def cancel(self, request_id: int) -> Usage | None:
        """Forget a request, waiting or running; None if it is not known."""
        for row in self._waiting:
            if row.request_id == request_id:
                self._waiting.remove(row)
                return row.usage(self._clock())
        for row in self._running.values():
            if row.request_id == request_id:
                self._take_out(row)
                return row.usage(self._clock())
        return None

    def step(self) -> list[Emission]:
        """One step: admit, decode, give out, and keep to the allowance."""
        emissions = self._admit()
        if not self._running:
            return emissions
        try:
            tokens = self._decoder.next()
        except Exception as error:
            log.exception("batch.failed", rows=len(self._running))
            return emissions + self._fail_running(error)
        for uid, results in _by_row(tokens).items():
            row = self._running.get(uid)
            emission = None if row is None else self._result(row, results)
            if emission is not None:
                emissions.append(emission)
        self._put_back()
        self._make_room()
        return emissions

    def trim(self) -> None:
        """Keep nothing for later rows."""
        self._decoder.keep_within(0)

    def put_away(self) -> bool:
        """See :meth:`Decoder.put_away`; for when nothing runs."""
        return self._decoder.put_away()

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._decoder.close()

    def _admit(self) -> list[Emission]:
        """Move rows from the line into the batch; one that cannot be inserted fails alone."""
        emissions: list[Emission] = []
        for row in list(self._waiting):
            lengths = [other.length for other in self._running.values()]
            if not self._allowance.admits([*lengths, row.length]):
                break
            if self._decoder.defers(row):
                continue
            self._waiting.remove(row)
            row.started_s = row.started_s or self._clock()
            try:
                row.uid = self._decoder.insert(row)
            except MlxdError as error:
                emissions.append(self._failure(row, error.fault))
            except Exception as error:
                log.exception("request.failed", request=row.request_id)
                emissions.append(self._failure(row, failed("starting the request", error)))
            else:
                self._running[row.uid] = row
        self._make_room()
        return emissions

    def _result(self, row: Row, results: list[Token | RowFailed]) -> Emission | None:
        last = results[-1]
        if isinstance(last, Token):
            return self._advance(row, [one for one in results if isinstance(one, Token)])
        del self._running[last.uid]
        log.error("request.failed", request=row.request_id, exc_info=last.error)
        _let_go(last.error)
        return self._failure(row, failed("starting the request", last.error))

    def _advance(self, row: Row, tokens: list[Token]) -> Emission | None:
        """What a step's tokens add to their row's answer; a failure here is the row's alone.

        The answer may end before the last of them: what follows is no part of it.
        """
        piece, ended = Piece(), False
        row.first_token_s = row.first_token_s or self._clock()
        try:
            for token in tokens:
                row.decoded.append(token.token)
                if token.finish != "stop":
                    piece += row.output.feed(token.token, token.scores)
                ended = token.finish is not None or row.output.ended
                if ended:
                    piece += row.output.finish(cut=token.finish == "length")
                    break
        except Exception as error:
            log.exception("request.failed", request=row.request_id)
            self._leave(row, tokens[-1])
            return self._failure(row, failed("decoding the answer", error))
        frames = _delta(row, piece)
        if not ended:
            return Emission(row.request_id, frames) if frames else None
        self._leave(row, tokens[-1])
        usage = row.usage(self._clock())
        done = Done(finish_reason=_reason(row, token), usage=usage, stop_text=row.output.stop_text)
        return Emission(row.request_id, (*frames, done), usage)

    def _leave(self, row: Row, last: Token) -> None:
        """The row is out of the batch; the decoder drops those that it finished itself, with
        the last token of the step, even where the answer had ended before it."""
        if last.finish is None:
            self._take_out(row)
        else:
            del self._running[last.uid]

    def _put_back(self) -> None:
        """Take the youngest rows out until the others keep to the allowance."""
        rows = sorted(self._running.values(), key=lambda row: row.request_id)
        while not self._allowance.holds([row.length for row in rows]):
            youngest = rows.pop()
            self._take_out(youngest)
            self._waiting.appendleft(youngest)
            log.info("request.put_back", request=youngest.request_id, tokens=youngest.length)

    def _make_room(self) -> None:
        lengths = [row.length for row in self._running.values()]
        self._decoder.keep_within(self._allowance.left_bytes(lengths))

    def _take_out(self, row: Row) -> None:
        if row.uid is not None and self._running.pop(row.uid, None) is not None:
            self._decoder.remove(row.uid)
        row.uid = None

    def _fail_running(self, error: Exception) -> list[Emission]:
        """The batch is lost with its rows; those in line go on with a new one."""
        fault = failed("decoding", error)
        failures = [self._failure(row, fault) for row in self._running.values()]
        self._running.clear()
        self._decoder.close()
        self._decoder = self._make_decoder()
        return failures

    def _failure(self, row: Row, fault: Fault) -> Emission:
        return Emission(row.request_id, (Fail(fault=fault),), row.usage(self._clock()))


def _let_go(error: Exception) -> None:
    """Drop the frames that a logged error holds: with them rows, and what rows hold, would stay
    until cycles are collected, since the error is in a list that those frames know."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _by_row(tokens: Sequence[Token | RowFailed]) -> dict[int, list[Token | RowFailed]]:
    """A step's results by the row's uid, each row's in order."""
    found: dict[int, list[Token | RowFailed]] = {}
    for token in tokens:
        found.setdefault(token.uid, []).append(token)
    return found


def _delta(row: Row, piece: Piece) -> tuple[Delta, ...]:
    if piece.empty:
        return ()
    return (
        Delta(
            text=piece.text,
            reasoning=piece.reasoning,
            tool_calls=piece.tool_calls,
            tokens=len(row.decoded),
            logprobs=piece.logprobs,
        ),
    )


def _reason(row: Row, token: Token) -> FinishReason:
    if token.finish == "length" and not row.output.ended:
        return "length"
    return "tool_calls" if row.output.called else "stop"
