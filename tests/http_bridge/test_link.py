"""The bridge outlives the daemon: none, a late one, one that is replaced."""

from pathlib import Path

import anyio
import openai
import pytest

from daemon.wire.settings import HttpSettings
from http_bridge.link import open_link
from http_bridge.run import open_bridge
from tests.fakes.daemon import FakeModel, open_fake_daemon, says

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "Hi"}]


async def test_no_daemon_then_one_then_another(folder: Path) -> None:
    socket = str(folder / "mlxd.sock")
    async with open_bridge(socket, HttpSettings(port=0), stop_grace_s=0) as (_, port):
        sdk = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=10
        )
        async with sdk:
            with pytest.raises(openai.InternalServerError) as caught:
                await sdk.models.list()
            assert caught.value.status_code == 503
            assert caught.value.code == "no_daemon"
            assert isinstance(caught.value.body, dict)
            assert caught.value.body["hint"] == "start the daemon: mlxd"
            for text in ("one", "two"):
                async with open_fake_daemon(folder, FakeModel("m", says(text))):
                    answer = await sdk.completions.create(model="m", prompt="x")
                assert answer.choices[0].text == text


async def test_requests_at_once_share_one_connection(folder: Path) -> None:
    async with open_fake_daemon(folder) as fake, open_link(fake.control_socket) as link:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(link.control)
        await (await link.control()).status()
        assert fake.ledger.entries == ["connect"]


async def test_a_daemon_that_talks_nonsense_is_no_daemon(folder: Path) -> None:
    async def babble(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"\x00\x00\x00\x02hi")

    socket = str(folder / "mlxd.sock")
    async with anyio.create_task_group() as tasks, await anyio.create_unix_listener(socket) as liar:
        tasks.start_soon(liar.serve, babble)
        async with open_link(socket) as link:
            for _ in range(2):
                with pytest.raises(Exception, match="no mlxd of this release"):
                    await link.control()
        tasks.cancel_scope.cancel()
