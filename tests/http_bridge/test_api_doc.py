"""docs/api.md: every endpoint, code, capability and metric there is, and no other."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from daemon.wire.errors import HANDLING, Code
from http_bridge.metrics import Metrics
from http_bridge.pool_metrics import PoolMetrics
from http_bridge.routes import ROUTES
from http_bridge.sse import PROGRESS_HEADER
from tests.http_bridge.test_capabilities import KINDS, LACKING

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
NEVER_ANSWERED = {Code.UNAUTHORIZED, Code.NOT_FOUND, Code.CANCELLED}
"""Said over HTTP with OpenAI's own codes, or to nobody."""


def metric_names() -> set[str]:
    registry = CollectorRegistry()
    Metrics(registry)
    PoolMetrics(registry)
    counters = {f"{one.name}_total" for one in registry.collect() if one.type == "counter"}
    return counters | {one.name for one in registry.collect() if one.type != "counter"}


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_every_endpoint_is_there(path: str) -> None:
    assert f"{path}`" in PAGE


def test_every_metric_is_there_and_no_other() -> None:
    assert set(re.findall(r"`(mlxd_\w+)`", SECTIONS["Metrics"])) == metric_names()


@pytest.mark.parametrize("name", sorted(metric_names()))
def test_every_metric_moves_in_a_test(name: str) -> None:
    tests = [
        ROOT / "tests" / "http_bridge" / f"test_{kind}.py" for kind in ("metrics", "pool_metrics")
    ]
    assert re.search(rf'"{name}(_count)?"', "".join(test.read_text("utf-8") for test in tests))


def test_every_code_has_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", SECTIONS["Errors"], re.MULTILINE)
    said = {code: int(status) for status, codes in rows for code in re.findall(r"[a-z_]+", codes)}
    for code in set(Code) - NEVER_ANSWERED:
        assert said[code.value] == HANDLING[code].http_status


def test_capabilities_that_fields_need_are_there() -> None:
    kinds = {capability for able in KINDS.values() for capability in able}
    assert len(LACKING) > 10
    for capability in kinds | {"tools", "logprobs", "structured", "thinking", "reasoning_effort"}:
        assert f"`{capability}`" in SECTIONS["Fields"]


def test_the_header_is_there() -> None:
    assert f"`{PROGRESS_HEADER}: 1`" in SECTIONS["Waiting for a model"]
