"""Progress bars of loads and downloads, drawn by rich. Imported only when there is one."""

import math
from collections.abc import Mapping
from typing import TextIO

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ctl.pretty import console
from daemon.wire.units import format_duration_ms

_WIDTH = 30
_WIDTH_OF_MANY = 20


def make_bar(stream: TextIO, environ: Mapping[str, str]) -> Progress:
    """A bar on ``stream`` that vanishes when its block ends.

    Tasks have the fields ``amount`` (text) and ``ready_at_s`` (on the bar's own clock, or
    None where nobody knows).
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(_WIDTH),
        TextColumn("{task.fields[amount]}", markup=False),
        _Remaining(),
        console=console(stream, environ),
        transient=True,
    )


def make_download_bar(stream: TextIO, environ: Mapping[str, str]) -> Progress:
    """Bars on ``stream``, one a file, that vanish when their block ends."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(_WIDTH_OF_MANY),  # a line must have room for the "^C" of a terminal
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console(stream, environ),
        transient=True,
    )


class _Remaining(ProgressColumn):
    """How long it will take, counted down between the daemon's reports."""

    def render(self, task: Task) -> Text:
        return Text(describe_remaining(task.fields["ready_at_s"], task.get_time()), style="dim")


def describe_remaining(ready_at_s: float | None, now_s: float) -> str:
    """The rest in words; empty when nobody knows, or when it took longer than foretold."""
    if ready_at_s is None or ready_at_s <= now_s:
        return ""
    seconds = math.ceil(ready_at_s - now_s)
    rest = f"{seconds} s" if seconds < 60 else format_duration_ms(seconds * 1000)
    return f"about {rest} left"
