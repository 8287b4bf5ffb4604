"""Requests, latencies and tokens: every metric moves, and no client makes up a label."""

import anyio
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from daemon.wire.settings import HttpSettings, hashed_key
from tests.fakes.daemon import FakeModel, Line, says
from tests.http_bridge.conftest import OpenSetup, Setup

pytestmark = pytest.mark.anyio

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


async def scrape(setup: Setup) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, in the alphabetical order of the labels."""
    response = await setup.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_a_whole_answer_is_counted(open_setup: OpenSetup) -> None:
    async def script(line: Line, request: d.Generate) -> None:
        usage = d.Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3)
        await line.send(
            d.Accepted(prompt_tokens=5),
            d.Delta(text="a", tokens=1),
            d.Delta(text="b", tokens=2),
            d.Done(finish_reason="stop", usage=usage),
        )

    async with open_setup(FakeModel("m", script)) as setup:
        await setup.http.post(CHAT, json=BODY)
        await setup.http.post(CHAT, json={**BODY, "stream": True, "n": 2})
        found = await scrape(setup)
    assert found["mlxd_http_requests_total", "m", CHAT, "200"] == 2
    assert found["mlxd_http_request_seconds_count", CHAT] == 2
    assert found["mlxd_time_to_first_token_seconds_count", "m"] == 3
    assert found["mlxd_prompt_tokens_total", "m"] == 10
    assert found["mlxd_cached_prompt_tokens_total", "m"] == 6
    assert found["mlxd_completion_tokens_total", "m"] == 6


async def test_tokens_after_the_first_share_the_time_between(open_setup: OpenSetup) -> None:
    heard = anyio.Event()

    async def script(line: Line, request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))
        await heard.wait()
        usage = d.Usage(prompt_tokens=1, completion_tokens=5)
        await line.send(d.Delta(text="bcde", tokens=5), d.Done(finish_reason="stop", usage=usage))

    async with open_setup(FakeModel("m", script)) as setup:
        body = {**BODY, "stream": True}
        async with setup.http.stream("POST", CHAT, json=body) as response:
            async for line in response.aiter_lines():
                if '"content":"a"' in line:
                    heard.set()
        found = await scrape(setup)
    assert found["mlxd_inter_token_seconds_count", "m"] == 1
    assert found["mlxd_time_to_first_token_seconds_count", "m"] == 1
    assert 0 < found["mlxd_inter_token_seconds_sum", "m"] < 5


async def test_what_fails_is_counted_by_its_status(open_setup: OpenSetup) -> None:
    async def breaks(line: Line, request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))
        await line.send(d.Fail(fault=Fault(code=Code.WORKER_FAILED, message="gone")))

    busy = FakeModel("busy", says(), fault=Fault(code=Code.QUEUE_FULL, message="no"))
    async with open_setup(FakeModel("m", breaks), busy) as setup:
        await setup.http.post(CHAT, json={**BODY, "stream": True})
        await setup.http.post(CHAT, json={**BODY, "model": "busy"})
        await setup.http.post(CHAT, json={**BODY, "model": "made-up-by-a-client"})
        await setup.http.post(CHAT, json={})
        await setup.http.get("/made/up")
        found = await scrape(setup)
    counted = {
        key[1:]: value for key, value in found.items() if key[0] == "mlxd_http_requests_total"
    }
    assert counted == {
        ("m", CHAT, "502"): 1,
        ("", CHAT, "429"): 1,
        ("", CHAT, "404"): 1,
        ("", CHAT, "400"): 1,
        ("", "unknown", "404"): 1,
    }


async def test_a_client_that_leaves_is_counted(open_setup: OpenSetup) -> None:
    async def hangs(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1))
        await line.until_closed()

    async with open_setup(FakeModel("m", hangs)) as setup:
        stream = await setup.sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        await anext(stream)
        await stream.close()
        await setup.fake.ledger.wait_for("release lease-1")
        found = await scrape(setup)
    assert found["mlxd_http_requests_total", "m", CHAT, "499"] == 1


async def test_a_missing_key_keeps_metrics_closed(open_setup: OpenSetup) -> None:
    async with open_setup(http=HttpSettings(port=0, api_keys=(hashed_key("k"),))) as setup:
        closed = await setup.http.get("/metrics")
        opened = await setup.http.get("/metrics", headers={"authorization": "Bearer k"})
        with pytest.raises(openai.AuthenticationError):
            await setup.sdk.models.list()
    assert (closed.status_code, opened.status_code) == (401, 200)
