"""A bridge in front of a scripted daemon, and the official clients in front of the bridge."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import anthropic
import httpx2
import openai
import pytest

from daemon.wire.settings import HttpSettings
from http_bridge.bodies import STALL_S
from http_bridge.run import open_bridge
from tests.fakes.daemon import FakeDaemon, FakeModel, open_fake_daemon

LOOPBACK = HttpSettings(port=0)


class Setup:
    """What a test drives."""

    def __init__(self, fake: FakeDaemon, port: int) -> None:
        self.fake = fake
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=10)
        self.anthropic = anthropic.AsyncAnthropic(
            base_url=self.url, api_key="unused", max_retries=0, timeout=10
        )
        self.sdk = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=10
        )


class OpenSetup(Protocol):
    def __call__(
        self,
        *models: FakeModel,
        http: HttpSettings = ...,
        begin_after_s: float = ...,
        keep_alive_s: float = ...,
        stop_grace_s: float = ...,
        body_stall_s: float = ...,
    ) -> AbstractAsyncContextManager[Setup]: ...


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets on every system."""
    with tempfile.TemporaryDirectory(prefix="mlxd-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def open_setup(folder: Path) -> OpenSetup:
    """Opens a fake daemon with the given models, a bridge, and clients."""

    @asynccontextmanager
    async def opened(
        *models: FakeModel,
        http: HttpSettings = LOOPBACK,
        begin_after_s: float = 2.0,
        keep_alive_s: float = 5.0,
        stop_grace_s: float = 0.0,
        body_stall_s: float = STALL_S,
    ) -> AsyncIterator[Setup]:
        async with (
            open_fake_daemon(folder, *models) as fake,
            open_bridge(
                fake.control_socket,
                http,
                begin_after_s=begin_after_s,
                keep_alive_s=keep_alive_s,
                stop_grace_s=stop_grace_s,
                body_stall_s=body_stall_s,
            ) as (_, port),
        ):
            setup = Setup(fake, port)
            async with setup.http, setup.sdk, setup.anthropic:
                yield setup

    return opened
