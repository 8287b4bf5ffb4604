"""Options that several verbs share, and the types that parse them."""

import enum
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ctl.app import App
from daemon.wire.errors import MlxdError
from daemon.wire.units import parse_duration_s

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    app = ctx.find_object(App)
    assert app is not None
    app.as_json |= value


def json_option(command: Decorated) -> Decorated:
    """``--json``: documented JSON on stdout, and failures as JSON on stderr."""
    option = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_json,
        help="Print documented JSON (docs/mlxctl.md).",
    )
    return option(command)


class Duration(click.ParamType[float]):
    """Seconds, from "90s", "10m", "2h" or a plain number."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return parse_duration_s(value)
        except MlxdError as error:
            self.fail(error.fault.message, param, ctx)


class Bounded(click.ParamType[float]):
    """A number of an answer, within the bounds that HTTP has for it.

    Args:
        setting: Its name in a request.
        kind: ``int`` or ``float``.
    """

    def __init__(self, setting: str, kind: type[float]) -> None:
        self._setting = setting
        self._number: click.ParamType[Any] = click.INT if kind is int else click.FLOAT
        self.name = self._number.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from daemon.wire.bounds import out_of_bounds  # noqa: PLC0415

        number: float = self._number.convert(value, param, ctx)
        if wrong := out_of_bounds(self._setting, number):
            self.fail(wrong, param, ctx)
        return number


class Never(enum.Enum):
    """ "never", where a time could stand."""

    NEVER = "never"


NEVER: Final = Never.NEVER


SHORTEST_IDLE_S: Final = 0.001


class IdleTime(click.ParamType[float | Never]):
    """Seconds, or "never"."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Never:
        if value in ("never", NEVER):
            return NEVER
        idle_s = DURATION.convert(value, param, ctx)
        if 0 < idle_s < SHORTEST_IDLE_S:  # it would be counted as no time at all
            self.fail(f"{value!r} is less than 1 ms, the shortest time", param, ctx)
        return idle_s


DURATION: Final = Duration()
IDLE_TIME: Final = IdleTime()


def milliseconds(duration_s: float | None) -> int | None:
    """A parsed duration as the wire wants it."""
    return None if duration_s is None else round(duration_s * 1000)
