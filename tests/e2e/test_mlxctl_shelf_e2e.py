"""mlxctl's models, bench and doctor against the real daemon, its files and its worker."""

import json
from typing import Any

import pytest

from tests.e2e.service import Service

pytestmark = pytest.mark.e2e

MODEL = "mlxd/glimpse"


def listed(service: Service) -> dict[str, Any]:
    models = json.loads(service.mlxctl("models", "--json").stdout)["models"]
    found: dict[str, Any] = next(model for model in models if model["name"] == MODEL)
    return found


def test_a_model_says_whether_it_fits_until_it_is_in_memory(service: Service) -> None:
    service.mlxctl("load", MODEL)
    here = listed(service)
    assert (here["state"], here["fits"], here["claim_bytes"]) == ("idle", None, None)
    claimed = next(m for m in service.status().models if m.name == MODEL).claim_bytes
    service.mlxctl("unload", MODEL)
    there = listed(service)
    assert (there["state"], there["fits"], there["fit_note"]) == (None, "now", None)
    assert there["quantization"] == "f32"
    assert 0 < there["claim_bytes"] <= claimed


def test_bench_measures_and_remembers(service: Service) -> None:
    arguments = ("bench", MODEL, "--prompt", "20", "--tokens", "8", "--runs", "1", "--streams", "2")
    first = json.loads(service.mlxctl(*arguments, "--json").stdout)
    again = json.loads(service.mlxctl(*arguments, "--json").stdout)

    assert [one["streams"] for one in first["figures"]] == [1, 2]
    assert all(one["prompt_tokens"] >= 20 for one in first["figures"])
    assert all(one["ttft_ms"] > 0 for one in first["figures"])
    assert again["before"]["at_ms"] == first["at_ms"]


def test_doctor_finds_the_installation_well(service: Service) -> None:
    shape = json.loads(service.mlxctl("doctor", "--json").stdout)
    verdicts = {check["name"]: check["verdict"] for check in shape["checks"]}

    assert shape["healthy"] is True
    for name in ("settings", "daemon", "event log", "worker"):
        assert verdicts[name] == "ok", shape
