"""What a crash may cost: `kill -9` of each process in the middle of real work."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.e2e.service import (
    Service,
    config_toml,
    eventually,
    running_service,
    smollm,
    started,
)
from tests.e2e.vision_models import BUNDLED

pytestmark = pytest.mark.e2e

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Count from one to two hundred, in words."}],
    "temperature": 0,
    "max_tokens": 60,
    "stream": True,
}


def worker_pid(service: Service, model: str) -> int:
    """Of a resident model."""
    (pid,) = [m.pid for m in service.status().models if m.name == model]
    assert pid is not None
    return pid


def data_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON of each SSE event until [DONE] or the end."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def text_of(events: list[dict[str, Any]]) -> str:
    """What a stream's chunks say."""
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


def test_a_killed_worker_fails_its_request_once_and_comes_back(
    service: Service, http: httpx.Client, client: openai.OpenAI, text_model: str
) -> None:
    seq = service.status().seq
    with http.stream("POST", "/v1/chat/completions", json={**LONG, "model": text_model}) as reply:
        lines = reply.iter_lines()
        events = data_of(lines)
        assert next(events)["choices"][0]["delta"]["role"] == "assistant"
        os.kill(worker_pid(service, text_model), signal.SIGKILL)
        rest = list(events)
    errors = [event["error"] for event in rest if "error" in event]
    assert len(errors) == 1, "one terminal error"
    assert "error" in rest[-1]
    assert "worker" in errors[0]["message"]
    again = client.chat.completions.create(
        model=text_model, messages=[{"role": "user", "content": "Say yes."}], max_tokens=3
    )
    assert again.choices[0].message.content
    story = [e["type"] for e in service.events(seq) if e["type"] != "usage.recorded"]
    exited = [e for e in service.events(seq) if e["type"] == "worker.exited"]
    assert [(e["signal"], e["expected"]) for e in exited] == [(9, False)]
    after = story[story.index("worker.exited") :]
    assert after == ["worker.exited", "load.started", "worker.spawned", "load.ready"]


def test_a_client_that_goes_away_frees_its_slot(
    service: Service, client: openai.OpenAI, text_model: str
) -> None:
    stream = client.chat.completions.create(**{**LONG, "model": text_model, "max_tokens": 2000})
    next(iter(stream))
    (before,) = [m for m in service.status().models if m.name == text_model]
    assert (before.state, before.running, before.leases) == ("busy", 1, 1)
    stream.close()

    def model() -> Any:
        return next(m for m in service.status().models if m.name == text_model)

    after = eventually(model, lambda m: m.state == "idle")
    assert (after.running, after.leases) == (0, 0)


def test_a_fallback_chain_survives_a_model_that_fails_to_load(
    service: Service, client: openai.OpenAI
) -> None:
    if any(m.name == BUNDLED for m in service.status().models):
        service.mlxctl("unload", BUNDLED)
    seq = service.status().seq
    reply = client.chat.completions.create(
        model="falls-back", messages=[{"role": "user", "content": "Hello!"}], max_tokens=20
    )
    assert reply.choices[0].message.content
    failed = [e for e in service.events(seq) if e["type"] == "load.failed"]
    assert [(e["model"], e["reason"]) for e in failed] == [("shaky", "incompatible")]
    loads = [e for e in service.events(seq) if e["type"] == "load.started"]
    assert [e["model"]["name"] for e in loads] == ["shaky", BUNDLED]
    (passed,) = loads[1]["passed_over"]
    assert passed["model"] == "shaky"
    assert failed[0]["message"] in passed["why"]
    again = client.chat.completions.create(
        model="falls-back", messages=[{"role": "user", "content": "Hello!"}], max_tokens=20
    )
    assert again.choices[0].message.content == reply.choices[0].message.content
    attempts = [e for e in service.events(seq) if e["type"] == "load.failed"]
    assert len(attempts) == 1, "known to be incompatible: not tried again"


def test_concurrent_requests_for_a_cold_model_load_it_once(
    service: Service, text_model: str
) -> None:
    if any(m.name == text_model for m in service.status().models):
        service.mlxctl("unload", text_model)
    seq = service.status().seq
    body = {
        "model": text_model,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 2,
    }

    def statuses() -> list[int]:
        import anyio  # noqa: PLC0415

        found: list[int] = []

        async def one(session: httpx.AsyncClient) -> None:
            reply = await session.post("/v1/chat/completions", json=body)
            found.append(reply.status_code)

        async def all_at_once() -> None:
            async with (
                httpx.AsyncClient(base_url=service.url, timeout=300) as session,
                anyio.create_task_group() as tasks,
            ):
                for _ in range(4):
                    tasks.start_soon(one, session)

        anyio.run(all_at_once)
        return found

    assert statuses() == [200] * 4
    loads = [e for e in service.events(seq) if e["type"] == "load.started"]
    assert len(loads) == 1


def test_a_killed_daemon_leaves_models_and_streams_alone(text_model: str) -> None:
    config = config_toml(smollm())
    with running_service(config) as service:
        url = f"{service.url}/v1/chat/completions"
        with (
            httpx.Client(timeout=300) as http,
            http.stream("POST", url, json={**LONG, "model": text_model}) as reply,
        ):
            events = data_of(reply.iter_lines())
            first = next(events)
            pid = worker_pid(service, text_model)
            os.kill(service.daemon_pid, signal.SIGKILL)
            with started(service.home, "daemon"):
                adopted = eventually(service.status, lambda s: bool(s.models and s.models[0].pid))
                assert [m.pid for m in adopted.models] == [pid], "the same process"
                rest = list(events)
                assert not [e for e in rest if "error" in e], "the stream went on to its end"
                assert rest[-1]["choices"][0]["finish_reason"] in ("length", "stop")
                assert len(text_of([first, *rest])) > 20
                body = {**LONG, "model": text_model, "stream": False, "max_tokens": 2}
                assert http.post(url, json=body).status_code == 200
                assert worker_pid(service, text_model) == pid, "not loaded again"
                types = [e["type"] for e in service.events()]
                assert "worker.adopted" in types
                assert types.count("load.started") == 1


def test_a_killed_bridge_is_not_noticed_by_the_pool(service: Service, text_model: str) -> None:
    service.mlxctl("load", text_model)
    seq = service.status().seq
    with started(service.home, "http_bridge", "--port", "0") as (bridge, line):
        url = f"http://127.0.0.1:{line['port']}/v1/chat/completions"
        with (
            httpx.Client(timeout=300) as http,
            http.stream("POST", url, json={**LONG, "model": text_model}) as reply,
        ):
            next(data_of(reply.iter_lines()))
            bridge.kill()
            bridge.wait(10)
    status = eventually(service.status, lambda s: all(m.state == "idle" for m in s.models))
    assert text_model in {m.name for m in status.models}
    assert {e["type"] for e in service.events(seq)} <= {"usage.recorded"}
