"""One real daemon and one real bridge a test session; after each test the pool as it was."""

import base64
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from daemon.wire.control import StatusView
from tests.e2e.broken_models import make_model_that_fails_to_load
from tests.e2e.service import Service, config_toml, embedder, eventually, running_service, smollm
from tests.e2e.tool_models import tool_models
from tests.e2e.vision_models import BUNDLED, PREFERRED

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service under test, with a fallback chain whose first model cannot be loaded."""
    folder = tmp_path_factory.mktemp("models")
    shaky = make_model_that_fails_to_load(folder / "shaky")
    chain = f'[aliases]\nfalls-back = ["shaky", "{BUNDLED}"]'
    models = {**smollm(), **embedder(), **tool_models(folder), "shaky": shaky}
    with running_service(config_toml(models, chain)) as running:
        yield running


@pytest.fixture(scope="session")
def http(service: Service) -> Iterator[httpx.Client]:
    """Plain HTTP, for what an SDK would hide."""
    with httpx.Client(base_url=service.url, timeout=300) as client:
        yield client


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[openai.OpenAI]:
    """The official SDK, which must not need to try twice."""
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=300
    ) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def vision_model(client: openai.OpenAI) -> str:
    """The first preferred vision model whose files are here; said, so that reports name it."""
    known = {model.id for model in client.models.list()}
    chosen = next(name for name in PREFERRED if name in known)
    sys.stderr.write(f"\nvision tests use {chosen}\n")
    return chosen


@pytest.fixture(scope="session")
def text_model() -> str:
    """A real model that reads text only."""
    return next(iter(smollm()))


@pytest.fixture(scope="session")
def picture() -> Callable[[str], str]:
    """A fixture picture as a data URL."""

    def data_url(name: str) -> str:
        data = (FIXTURES / "images" / name).read_bytes()
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"

    return data_url


@pytest.fixture(scope="session")
def golden() -> Callable[[str], str]:
    """A golden prompt."""

    def prompt(name: str) -> str:
        return (FIXTURES / "golden" / name).read_text("utf-8").strip()

    return prompt


@pytest.fixture(autouse=True)
def pool_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing of a test may stay behind: no lease, no request, no waiter, no model."""
    if "service" not in request.fixturenames:
        yield
        return
    service: Service = request.getfixturevalue("service")
    before = _residents(service.status())
    yield
    status = eventually(service.status, _at_rest)
    for name in sorted(_residents(status) - before):
        service.mlxctl("unload", name)
    assert _residents(service.status()) >= before, "the test took a model away"


def _residents(status: StatusView) -> set[str]:
    return {model.name for model in status.models}


def _at_rest(status: StatusView) -> bool:
    return not status.queue and all(
        model.state == "idle" and not model.leases and not model.running for model in status.models
    )
