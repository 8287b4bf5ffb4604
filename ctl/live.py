"""``mlxctl top`` at work: the watch, the status and the keys, joined on one screen."""

import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup
from msgspec import structs
from rich.console import Group
from rich.layout import Layout
from rich.live import Live

from ctl.app import CLIENT, App
from ctl.asking import explain
from ctl.dashboard import Dashboard
from ctl.keyboard import read_keys, single_keys
from ctl.pretty import console, renderable
from daemon.wire import control as c
from daemon.wire.client import Control, open_control
from daemon.wire.errors import MlxdError
from daemon.wire.records import read_record
from daemon.wire.units import format_bytes

EVERY_S: Final = 1.0
"""How often the status is asked for, and a daemon that has gone is dialled again."""
FOOT_LINES: Final = 2
RECORDS_BEFORE: Final = 30
"""How much of what happened before is shown."""


def run_top(app: App, view: c.StatusView) -> None:
    """Show the pool until somebody quits; the terminal is then as it was.

    Args:
        view: What the daemon said a moment ago, for the first look.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    fd = sys.stdin.fileno()
    target = console(app.out, app.environ)
    live = Live(console=target, screen=True, auto_refresh=False)

    def draw(board: Dashboard) -> None:
        width, height = target.size
        pages = board.body(width, height - FOOT_LINES), board.foot()
        body, foot = (Group(*(renderable(one, width) for one in page)) for page in pages)
        whole = Layout()
        whole.split_column(Layout(body), Layout(foot, size=FOOT_LINES))
        live.update(whole, refresh=True)

    with single_keys(fd), live:
        anyio.run(_Top(app, view, fd, draw).run)


_Action = Callable[[Control, c.ResidentModel], Awaitable[None]]


class _Top:
    def __init__(
        self, app: App, view: c.StatusView, fd: int, draw: Callable[[Dashboard], None]
    ) -> None:
        self._socket = app.socket
        self._fd = fd
        self._draw = draw
        self._board = Dashboard()
        self._board.take_status(view)
        self._after = max(0, view.seq - RECORDS_BEFORE)
        self._control: Control | None = None

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_on_signal, tasks)
            tasks.start_soon(self._stay_connected)
            await self._obey(tasks)
            tasks.cancel_scope.cancel()

    async def _end_on_signal(self, tasks: TaskGroup) -> None:
        """A program that is told to end gives the terminal back first."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()

    # --- what is shown --------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            try:
                async with open_control(self._socket, CLIENT) as control:
                    self._control = control
                    await self._follow(control)
            except* MlxdError:
                self._board.gone()
                self._draw(self._board)
            finally:
                self._control = None
            await anyio.sleep(EVERY_S)

    async def _follow(self, control: Control) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, control)
            while True:
                self._board.take_status(await control.status())
                self._draw(self._board)
                await anyio.sleep(EVERY_S)

    async def _watch(self, control: Control) -> None:
        """A watch that fell behind goes on where it was."""
        while True:
            async with control.watch(self._after) as answers:
                async for answer in answers:
                    if isinstance(answer, c.LogRecord):
                        self._after = answer.seq
                        self._board.take_record(read_record(answer.line))
                        self._draw(self._board)

    # --- what is done ---------------------------------------------------------------

    async def _obey(self, tasks: TaskGroup) -> None:
        self._draw(self._board)
        while True:
            await anyio.wait_readable(self._fd)
            for key in read_keys(self._fd):
                if key in {"q", "end"}:
                    return
                self._press(key, tasks)
            self._draw(self._board)

    def _press(self, key: str, tasks: TaskGroup) -> None:
        if self._board.page_shown is not None:
            self._board.page_shown = None
        elif key in {"up", "down"}:
            self._board.move(-1 if key == "up" else 1)
        elif (model := self._board.chosen) is not None and (action := self._action(key)):
            tasks.start_soon(self._act, action, model)

    def _action(self, key: str) -> _Action | None:
        actions: dict[str, _Action] = {"u": self._unload, "p": self._pin, "w": self._why}
        return actions.get(key)

    async def _act(self, action: _Action, model: c.ResidentModel) -> None:
        if self._control is None:
            self._board.say("mlxd is not there", "bad")
            return
        try:
            await action(self._control, model)
        except MlxdError as error:
            self._board.say(error.fault.message, "bad")
        self._draw(self._board)

    async def _unload(self, control: Control, model: c.ResidentModel) -> None:
        self._board.say(f"unloading {model.name} …", "busy")
        self._draw(self._board)
        freed = (await control.unload(model.name)).freed_bytes
        self._board.say(f"{model.name} is unloaded: {format_bytes(freed)} freed")

    async def _pin(self, control: Control, model: c.ResidentModel) -> None:
        if model.pinned:
            await control.unpin(model.name)
            self._board.say(f"{model.name} is not pinned")
        else:
            await control.pin(model.name)
            self._board.say(f"{model.name} is pinned: never evicted, never expired")
        self._board.take_status(await control.status())

    async def _why(self, control: Control, model: c.ResidentModel) -> None:
        self._board.page_shown = (await explain(control, model.name)).page()


async def each_change(control: Control, show: Callable[[c.StatusView], None]) -> None:
    """Show the status, and again whenever it has changed; never ends by itself."""
    shown: c.StatusView | None = None
    while True:
        view = await control.status()
        # Clocks and the daemon's own memory always change, and are no news.
        still = structs.replace(view, id=0, now_ms=0, rss_bytes=0)
        if still != shown:
            shown = still
            show(view)
        await anyio.sleep(EVERY_S)
