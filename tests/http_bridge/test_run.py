"""The program: where it listens, what it refuses, and how it stops."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import anyio
import httpx2
import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.settings import HttpSettings, hashed_key, parse_settings
from http_bridge.run import open_bridge
from launchd.activation import Inherited

pytestmark = pytest.mark.anyio


async def test_a_taken_port_is_a_conflict(folder: Path) -> None:
    socket = str(folder / "mlxd.sock")
    async with open_bridge(socket, HttpSettings(port=0)) as (_, port):
        with pytest.raises(MlxdError, match="cannot listen") as caught:
            async with open_bridge(socket, HttpSettings(port=port)):
                pass
    assert caught.value.code is Code.CONFLICT


async def test_the_program_starts_without_a_daemon_and_stops_on_sigterm(folder: Path) -> None:
    environ = {**os.environ, "MLXD_HOME": str(folder)}
    command = [sys.executable, "-m", "http_bridge", "--port", "0"]
    async with await anyio.open_process(command, env=environ) as process:
        with anyio.fail_after(30):
            assert process.stdout is not None
            line = json.loads(await process.stdout.receive())
            assert line["event"] == "bridge.listening"
            url = f"http://{line['host']}:{line['port']}"
            async with httpx2.AsyncClient(base_url=url) as client:
                health = await client.get("/healthz")
            assert (health.status_code, health.json()["status"]) == (503, "no_daemon")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_a_new_key_is_told_with_its_line_for_the_settings(folder: Path) -> None:
    command = [sys.executable, "-m", "http_bridge", "--new-key"]
    with anyio.fail_after(30):
        done = await anyio.run_process(command, env={**os.environ, "MLXD_HOME": str(folder)})
    told, kept = done.stdout.decode().splitlines()
    line = kept.partition("[http]: ")[2]
    settings = parse_settings(f"[http]\n{line}", folder / "config.toml")
    assert settings.http.api_keys == (hashed_key(told.rpartition(" ")[2]),)


@pytest.mark.parametrize(
    ("arguments", "config", "said", "exit_code"),
    [
        (["--host", "0.0.0.0"], "", b"can be reached by others", 2),
        ([], "[http]\nport = 'x'\n", b"http.port", 2),
        (["--port", "70000"], "", b"70000", 2),
    ],
)
async def test_mistakes_are_told_before_listening(
    folder: Path, arguments: list[str], config: str, said: bytes, exit_code: int
) -> None:
    await anyio.Path(folder / "config.toml").write_text(config)
    environ = {**os.environ, "MLXD_HOME": str(folder)}
    command = [sys.executable, "-m", "http_bridge", "--port", "0", *arguments]
    with anyio.fail_after(30):
        done = await anyio.run_process(command, env=environ, check=False)
    assert done.returncode == exit_code
    assert said in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


async def test_inherited_sockets_take_the_place_of_the_settings(folder: Path) -> None:
    """The manager's own descriptor goes on listening after the bridge has ended."""
    with socket.create_server(("127.0.0.1", 0)) as managers:
        port = managers.getsockname()[1]
        handed = Inherited((socket.socket(fileno=os.dup(managers.fileno())),))
        settings = HttpSettings(host="192.0.2.1", port=1)
        async with open_bridge(str(folder / "mlxd.sock"), settings, handed) as bound:
            assert bound == ("127.0.0.1", port)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.get("/healthz")).status_code == 503
        with socket.create_connection(("127.0.0.1", port)):
            managers.accept()[0].close()


async def test_an_inherited_socket_for_others_needs_a_key(folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as managers:
        handed = Inherited((managers,))
        with pytest.raises(MlxdError, match="can be reached by others"):
            async with open_bridge(str(folder / "mlxd.sock"), HttpSettings(), handed):
                pass
