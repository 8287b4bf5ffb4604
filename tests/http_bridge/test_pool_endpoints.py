"""The pool over real HTTP: its feed, its history, and what may be asked of it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.ctl.views import LINES
from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio


async def events(response: httpx2.Response) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    """(event, id, data) of a feed."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
            fields = {}


async def test_status(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        pool = (await setup.http.get("/pool")).json()
    assert pool["v"] == 1
    assert [model["name"] for model in pool["models"]] == ["m"]
    assert "id" not in pool


async def test_a_feed_is_the_status_and_then_every_record(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        setup.fake.log.extend(LINES[:2])
        async with setup.http.stream("GET", "/pool/events") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            feed = events(response)
            event, _, status = await anext(feed)
            assert (event, status["v"]) == ("status", 1)
            setup.fake.write(LINES[2])
            event, seq, record = await anext(feed)
            assert (event, seq, record["seq"]) == ("record", "3", 3)
            assert record["events"][0]["type"] == "worker.spawned"


async def test_a_feed_is_resumed_after_a_record(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        setup.fake.log.extend(LINES)
        headers = {"Last-Event-ID": "2"}
        async with setup.http.stream("GET", "/pool/events", headers=headers) as response:
            feed = events(response)
            await anext(feed)
            assert [(await anext(feed))[1] for _ in range(2)] == ["3", "4"]


async def test_a_change_that_no_record_tells_is_told(open_setup: OpenSetup) -> None:
    async with (
        open_setup(FakeModel("m", says())) as setup,
        setup.http.stream("GET", "/pool/events") as response,
    ):
        feed = events(response)
        await anext(feed)
        setup.fake.stopping = True
        event, _, status = await anext(feed)
    assert (event, status["stopping"]) == ("status", True)


async def test_a_client_that_leaves_ends_its_watch(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        async with setup.http.stream("GET", "/pool/events") as response:
            await anext(events(response))
        await setup.fake.ledger.wait_for("cancel")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/pool/events?after=x", "after"),
        ("/pool/history?limit=0", "limit"),
        ("/pool/history?limit=99999", "limit"),
        ("/pool/history?before=-1", "before"),
    ],
)
async def test_bad_numbers_are_named(open_setup: OpenSetup, path: str, field: str) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        answer = await setup.http.get(path)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_commands(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        loaded = await setup.http.post("/pool/load", json={"model": "m", "ttl_s": 60, "pin": True})
        await setup.http.post("/pool/pin", json={"model": "m"})
        await setup.http.post("/pool/unpin", json={"model": "m"})
        unloaded = await setup.http.post("/pool/unload", json={"model": "m"})
        unknown = await setup.http.post("/pool/load", json={"model": "other"})
        misspelt = await setup.http.post("/pool/load", json={"model": "m", "ttl": 5})
        done = [line for line in setup.fake.ledger.entries if line.split()[0] in COMMANDS]
    assert done == ["load m ttl=60.0 pin=True", "pin m", "unpin m", "unload m"]
    assert loaded.json() == {
        "v": 1,
        "model": "m",
        "worker": "w1",
        "load_ms": 5,
        "measured_bytes": 9,
    }
    assert unloaded.json()["freed_bytes"] == 9
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (misspelt.status_code, misspelt.json()["error"]["param"]) == (400, "ttl")


COMMANDS = {"load", "unload", "pin", "unpin"}


async def test_history_without_a_log(
    open_setup: OpenSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLXD_HOME", str(tmp_path))
    async with open_setup(FakeModel("m", says())) as setup:
        answer = await setup.http.get("/pool/history")
    assert answer.status_code == 404
    assert "no event log" in answer.json()["error"]["message"]
