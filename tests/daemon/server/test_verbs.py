"""Requests about one model become the commands that people mean."""

import math
from typing import Any

import pytest

from daemon.pool import messages as m
from daemon.server.verbs import ModelVerb, asked_idle, command_of, milliseconds
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError

ABOUT: dict[str, Any] = {"ticket": 7, "client": "mlxctl", "key": "/models/a", "name": "a"}


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (c.UnloadModel(id=1, model="a"), m.Unload(**ABOUT)),
        (c.EvictModel(id=1, model="a"), m.Evict(**ABOUT)),
        (c.PinModel(id=1, model="a"), m.Pin(**ABOUT)),
        (c.UnpinModel(id=1, model="a"), m.Unpin(**ABOUT)),
        (c.UnquarantineModel(id=1, model="a"), m.Unquarantine(**ABOUT)),
        (c.SetTtl(id=1, model="a", ttl_s=1.5), m.SetTtl(**ABOUT, ttl_ms=1500)),
        (c.SetTtl(id=1, model="a", ttl_s=None), m.SetTtl(**ABOUT, ttl_ms=None)),
    ],
)
def test_each_request_is_its_command(request_: ModelVerb, command: m.AnyCommand) -> None:
    assert command_of(request_, "/models/a", "mlxctl", 7) == command


@pytest.mark.parametrize("ttl_s", [-1.0, math.nan, math.inf, 1e12])
def test_a_time_to_live_that_is_none_is_refused(ttl_s: float) -> None:
    with pytest.raises(MlxdError) as caught:
        milliseconds(ttl_s)
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "ttl_s"


@pytest.mark.parametrize(
    ("ttl_s", "asked"), [(None, None), ("never", "never"), (0.0, 0), (1.5, 1500)]
)
def test_an_idle_time_may_be_left_out_or_never_end(ttl_s: c.Ttl, asked: m.AskedIdle) -> None:
    assert asked_idle(ttl_s) == asked
