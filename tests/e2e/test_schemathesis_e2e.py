"""Requests that schemathesis makes up from /openapi.json: no status of 500, no hang.

Left to itself it would ask for models that do not exist; here it is told of one that does, and
to be content with short answers, so that its requests come as far as the engine.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e.service import Service
from tests.e2e.vision_models import BUNDLED
from tests.models import REPO_ROOT

PROGRAM = REPO_ROOT / ".cache" / "clients-venv" / "bin" / "schemathesis"
SEEDS = (1, 2)
LIMITS = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "n": 2}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The description, with the one model that is there and with short answers."""
    for schema in document["components"]["schemas"].values():
        properties = schema.get("properties", {})
        if "model" in properties:
            properties["model"] = {"enum": [BUNDLED]}
        for name in LIMITS.keys() & properties.keys():
            properties[name] = {"type": "integer", "minimum": 1, "maximum": LIMITS[name]}
            schema["required"] = sorted({*schema.get("required", []), name} - {"n"})
    return document


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_request_ends_with_a_500_or_hangs(
    service: Service, http: httpx.Client, tmp_path: Path, seed: int
) -> None:
    assert PROGRAM.exists(), "run: make clients"
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(narrowed(http.get("/openapi.json").json())), "utf-8")
    ran = subprocess.run(
        [
            *(str(PROGRAM), "run", str(described), "--url", service.url),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--seed", str(seed), "--max-examples", "10", "--request-timeout", "60"),
            # One worker: Python 3.11's ast.parse, which hypothesis uses, is not safe in threads.
            *("--workers", "1", "--continue-on-failure", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    assert http.get("/healthz").status_code == 200
