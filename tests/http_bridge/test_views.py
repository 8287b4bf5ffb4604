"""Models and health in HTTP's words."""

import msgspec
import pytest

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.views import find_model, health, model_list, model_object, unhealthy

MODEL = c.KnownModel(
    name="org/m",
    path="/models/m",
    source="bundled",
    kind="vision",
    capabilities=("text", "vision"),
    weights_bytes=10,
    context_tokens=512,
    state=None,
    created_at_ms=1_790_000_000_999,
)


def test_a_model_says_what_it_is_and_not_where() -> None:
    assert model_object(MODEL) == {
        "id": "org/m",
        "object": "model",
        "created": 1_790_000_000,
        "owned_by": "mlxd",
        "kind": "vision",
        "capabilities": ["text", "vision"],
        "context_length": 512,
        "weights_bytes": 10,
        "source": "bundled",
        "state": "cold",
    }


def test_a_list_offers_only_what_can_serve() -> None:
    broken = msgspec.structs.replace(MODEL, name="broken", problem="no config.json")
    alias = msgspec.structs.replace(MODEL, name="best", source="alias", targets=("org/m",))
    known = c.ModelsView(id=1, models=(MODEL, broken, alias))
    assert [model["id"] for model in model_list(known)["data"]] == ["org/m", "best"]
    assert model_list(known)["data"][1]["targets"] == ["org/m"]
    assert model_object(find_model(known, "broken"))["problem"] == "no config.json"


@pytest.mark.parametrize("name", ["m", "ORG/M", "../org/m", ""])
def test_only_the_very_name_is_found(name: str) -> None:
    with pytest.raises(MlxdError) as caught:
        find_model(c.ModelsView(id=1, models=(MODEL,)), name)
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.fault.field == "model"


def status(*, read_only: bool = False, stopping: bool = False) -> c.StatusView:
    return c.StatusView(
        id=1,
        version="1",
        pid=1,
        generation=1,
        started_at_ms=0,
        now_ms=0,
        seq=0,
        budget_bytes=1,
        committed_bytes=0,
        memory_total_bytes=1,
        rss_bytes=1,
        home="/h",
        read_only=read_only,
        stopping=stopping,
        warnings=("w",),
        models=(),
        queue=(c.QueuedRequest(model="m", client="x", since_ms=0, deadline_at_ms=None),),
    )


def test_health() -> None:
    well, shown = health(status(read_only=False))
    assert well
    assert shown == {
        "status": "ok",
        "version": "1",
        "models": [],
        "queued": 1,
        "warnings": ["w"],
    }
    well, shown = health(status(read_only=True))
    assert (well, shown["status"]) == (False, "read_only")
    well, shown = health(status(stopping=True))
    assert (well, shown["status"]) == (False, "stopping")
    assert health(status(stopping=True, read_only=True))[1]["status"] == "stopping"
    fault = Fault(code=Code.NO_DAEMON, message="m")
    assert unhealthy(fault) == {"status": "no_daemon", "message": "m"}
