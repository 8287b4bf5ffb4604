"""Models, health and metrics over real HTTP."""

from datetime import UTC, datetime

import anthropic
import openai
import pytest

from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio


async def test_models(open_setup: OpenSetup) -> None:
    broken = FakeModel("broken", says(), problem="a shard is missing")
    async with open_setup(FakeModel("org/m", says()), broken) as setup:
        listed = [model async for model in setup.sdk.models.list()]
        one = await setup.sdk.models.retrieve("org/m")
        plain = await setup.http.get("/v1/models/org/m")
        bad = await setup.http.get("/v1/models/broken")
        with pytest.raises(openai.NotFoundError) as caught:
            await setup.sdk.models.retrieve("org/other")
    assert [model.id for model in listed] == ["org/m"]
    assert (one.id, one.object, one.created, one.owned_by) == (
        "org/m",
        "model",
        1_790_000_000,
        "mlxd",
    )
    assert plain.json()["capabilities"] == ["text", "chat", "tools", "count_tokens"]
    assert bad.json()["problem"] == "a shard is missing"
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_models_for_clients_of_anthropic(open_setup: OpenSetup) -> None:
    models = [FakeModel(f"org/m{index}", says()) for index in range(5)]
    broken = FakeModel("broken", says(), problem="a shard is missing")
    async with open_setup(*models, broken) as setup:
        listed = [model async for model in setup.anthropic.models.list(limit=2)]
        whole = await setup.anthropic.models.list()
        one = await setup.anthropic.models.retrieve("org/m1")
        bad = await setup.anthropic.models.retrieve("broken")
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await setup.anthropic.models.retrieve("other")
        with pytest.raises(anthropic.BadRequestError, match="limit: ask for 1 to 1000") as caught:
            await setup.anthropic.models.list(limit=0)
    assert [model.id for model in listed] == [f"org/m{index}" for index in range(5)]
    assert (whole.data, whole.has_more) == (listed, False)
    assert (one.type, one.id, one.display_name, one.lifecycle) == (
        "model", "org/m1", "org/m1", "active",
    )  # fmt: skip
    assert one.created_at == datetime.fromtimestamp(1_790_000_000, UTC)
    assert (bad.model_extra or {})["problem"] == "a shard is missing"
    for error in (unknown.value, caught.value):
        assert isinstance(error.body, dict)
        assert error.body["type"] == "error"


async def test_health(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        well = await setup.http.get("/healthz")
        setup.fake.stopping = True
        stopping = await setup.http.get("/healthz")
        setup.fake.stopping = False
        setup.fake.read_only = True
        read_only = await setup.http.get("/healthz")
        setup.fake.silent = True
        silent = await setup.http.get("/healthz")
    assert well.status_code == 200
    assert well.json() == {
        "status": "ok",
        "version": "9.9.9",
        "models": [{"id": "m", "state": "idle", "running": 0}],
        "queued": 0,
        "warnings": [],
    }
    assert (stopping.status_code, stopping.json()["status"]) == (503, "stopping")
    assert (read_only.status_code, read_only.json()["status"]) == (503, "read_only")
    assert (silent.status_code, silent.json()["status"]) == (503, "deadline")


async def test_metrics_go_on_without_an_answer_of_the_daemon(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says("x"))) as setup:
        await setup.http.post("/v1/completions", json={"model": "m", "prompt": "x"})
        await setup.http.get("/metrics")
        setup.fake.silent = True
        response = await setup.http.get("/metrics")
    lines = response.text.splitlines()
    assert response.status_code == 200
    assert "mlxd_up 0.0" in lines
    assert 'mlxd_completion_tokens_total{model="m"} 1.0' in lines
    assert not any(line.startswith("mlxd_resident_models{") for line in lines)
