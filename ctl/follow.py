"""Reading the event log through the daemon: a stretch of it, then what comes."""

from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec

from ctl.app import App
from ctl.filter import Filter
from ctl.timeline import Timeline
from daemon.wire import control as c
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.moments import parse_moment_ms
from daemon.wire.records import Event, ModelNames, Record, read_record


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the log.

    Attributes:
        after: Every record after this seq; None takes the ``last`` ones.
        since: Only records since this moment, as people write it.
        last: How many records from the end, counted after filtering; None takes all.
        follow: Go on with what comes.
    """

    after: int | None
    since: str | None
    last: int | None
    follow: bool


async def show_events(app: App, control: Control, span: Range, wanted: Filter) -> None:
    """Print the records of ``span`` that ``wanted`` lets through.

    Raises:
        MlxdError: ``lagged`` if the daemon outran this program; it names where to go on.
            ``invalid_request`` if ``span.since`` is no moment.
    """
    status = await control.status()
    if span.since is not None:
        since_ms = parse_moment_ms(span.since, status.now_ms)
        wanted = msgspec.structs.replace(wanted, since_ms=since_ms)
    names = ModelNames({model.worker: model.name for model in status.models})
    printer = _Printer(app, wanted, names)
    if span.after is not None or span.last is None:
        printer.print([])
        await _print_all(control, span.after or 0, span.follow, printer)
        return
    # Only a filter can make it necessary to read more than is shown.
    start = 0 if wanted.narrow else max(0, status.seq - span.last)
    held: deque[_Shown] = deque(maxlen=span.last)
    seq = await _gather(control, start, printer, held)
    printer.print(list(held))
    if span.follow:
        await _print_all(control, seq, True, printer)


class _Shown(msgspec.Struct, frozen=True):
    line: str
    record: Record
    events: tuple[Event, ...]


class _Printer:
    """Prints the wanted records, batch after batch."""

    def __init__(self, app: App, wanted: Filter, names: ModelNames) -> None:
        self._app = app
        self._wanted = wanted
        self._names = names
        self._timeline = Timeline(names, app.width)

    def take(self, answer: c.LogRecord) -> _Shown | None:
        """The record if any of its events is wanted."""
        record = read_record(answer.line)
        self._names.learn(record)
        events = self._wanted.events(record, self._names)
        if not events and self._wanted.narrow:
            return None
        return _Shown(answer.line, record, events)

    def print(self, batch: Sequence[_Shown]) -> None:
        """Print a batch; the first one, empty or not, brings the heading."""
        if self._app.as_json:
            self._app.write("".join(shown.line + "\n" for shown in batch))
        else:
            self._app.show(*self._timeline.page([(one.record, one.events) for one in batch]))


async def _print_all(control: Control, after: int, follow: bool, printer: _Printer) -> None:
    async with control.watch(after, follow=follow) as answers:
        async for answer in answers:
            if isinstance(answer, c.LogRecord):
                shown = printer.take(answer)
                if shown is not None:
                    printer.print([shown])
            elif isinstance(answer, c.WatchEnded):
                check_end(answer)


async def _gather(control: Control, after: int, printer: _Printer, held: "deque[_Shown]") -> int:
    """Read to the end of the log; ``held`` keeps the last wanted records.

    Returns:
        The seq of the last record read.
    """
    seq = after
    async with control.watch(after, follow=False) as answers:
        async for answer in answers:
            if isinstance(answer, c.LogRecord):
                seq = answer.seq
                shown = printer.take(answer)
                if shown is not None:
                    held.append(shown)
            elif isinstance(answer, c.WatchEnded):
                check_end(answer)
    return seq


async def read_log(control: Control) -> AsyncIterator[Record]:
    """Every record of the log, from the first to the last there is now.

    Raises:
        MlxdError: ``lagged`` if the log came faster than it could be read.
    """
    async with control.watch(0, follow=False) as answers:
        async for answer in answers:
            if isinstance(answer, c.LogRecord):
                yield read_record(answer.line)
            elif isinstance(answer, c.WatchEnded):
                check_end(answer)


def check_end(answer: c.WatchEnded) -> None:
    """Raise ``lagged`` where the daemon says that it ended a watch for that."""
    if answer.reason == "lagged":
        raise MlxdError(
            Code.LAGGED,
            f"the daemon wrote events faster than they could be shown, up to record {answer.seq}",
            hint=f"go on with: mlxctl events -f --after {answer.seq}",
        )
