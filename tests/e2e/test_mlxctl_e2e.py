"""mlxctl against the real daemon, as a person and as a script would use it."""

import json

import pytest

from tests.e2e.service import Service
from tests.fixtures.images.generate_test_images import FOLDER

pytestmark = pytest.mark.e2e


def test_load_status_run_events_unload(service: Service, vision_model: str) -> None:
    seq = service.status().seq
    was_loaded = vision_model in {m.name for m in service.status().models}
    loaded = json.loads(service.mlxctl("load", vision_model, "--json").stdout)
    assert loaded["v"] == 1
    status = json.loads(service.mlxctl("status", "--json").stdout)
    assert vision_model in {model["name"] for model in status["models"]}
    plain = service.mlxctl("status").stdout
    assert vision_model in plain
    assert "\x1b" not in plain, "no colour codes when piped"
    answer = service.mlxctl(
        "run", vision_model, "What color is the shape?",
        "--image", str(FOLDER / "red_square.png"), "--temperature", "0", "--max-tokens", "30",
    )  # fmt: skip
    assert "red" in answer.stdout.lower()
    service.mlxctl("unload", vision_model)
    records = [
        json.loads(line)
        for line in service.mlxctl("events", "--after", str(seq), "--json").stdout.splitlines()
    ]
    types = [event["type"] for record in records for event in record["events"]]
    expected = ["unload.started", "worker.exited", "unload.finished"]
    if not was_loaded:
        expected = ["load.started", "worker.spawned", "load.ready", *expected]
    # An app may have had it loaded, and then this load makes it a person's.
    assert [t for t in types if t not in {"usage.recorded", "model.kept"}] == expected


def test_errors_have_exit_codes_and_hints(service: Service) -> None:
    unknown = service.mlxctl("load", "no/such-model", check=False)
    assert unknown.returncode == 4
    assert "no/such-model" in unknown.stderr
    idle = service.mlxctl("unload", "mlxd/glimpse", check=False)
    assert idle.returncode in (0, 4)


def test_without_a_daemon_it_says_how_to_start_one(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Service(tmp_path_factory.mktemp("empty"), 0, 0)
    asked = elsewhere.mlxctl("status", check=False)
    assert asked.returncode == 69
    assert "mlxd" in asked.stderr
