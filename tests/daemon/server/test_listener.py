"""The control socket: whose it is, and who may speak over it."""

import os
import socket
from pathlib import Path
from typing import cast

import pytest

from daemon.server.listener import check_socket, open_listener
from daemon.server.session import SessionContext
from daemon.wire.client import open_control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import Home
from launchd.activation import Inherited
from tests.daemon.running import running_daemon, temporary_home

pytestmark = pytest.mark.anyio
NO_CONTEXT = cast("SessionContext", None)  # nobody connects


def made_by_a_manager(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def duplicate(listener: socket.socket) -> socket.socket:
    """What a program is handed; the manager keeps its own."""
    return socket.socket(fileno=os.dup(listener.fileno()))


async def test_an_inherited_socket_is_served_and_left_for_the_next_daemon() -> None:
    with temporary_home() as home:
        home.run_dir.mkdir(mode=0o700)
        with made_by_a_manager(home.control_socket) as managers:
            inode = home.control_socket.stat().st_ino
            for generation in (1, 2):
                inherited = Inherited((duplicate(managers),))
                async with running_daemon(home, inherited=inherited) as daemon:
                    async with open_control(str(home.control_socket), "test") as control:
                        assert (await control.status()).generation == generation
                    await daemon.stop("test")
                assert home.control_socket.stat().st_ino == inode


async def test_a_socket_of_ones_own_goes_with_the_daemon() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            assert home.control_socket.exists()
            await daemon.stop("test")
        assert not home.control_socket.exists()


async def test_what_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_by_a_manager(path).close()
    before = path.stat().st_ino, path.stat().st_mtime_ns
    check_socket(path, None)
    async with open_listener(path, NO_CONTEXT):
        assert (path.stat().st_ino, path.stat().st_mtime_ns) != before


async def test_a_socket_on_which_somebody_listens_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with made_by_a_manager(path):
        inode = path.stat().st_ino
        with pytest.raises(MlxdError, match="mlxctl service stop") as refused:
            check_socket(path, None)
        assert refused.value.code is Code.CONFLICT
        assert path.stat().st_ino == inode


async def test_a_socket_that_no_client_looks_for_is_refused(tmp_path: Path) -> None:
    with (
        made_by_a_manager(tmp_path / "elsewhere") as managers,
        duplicate(managers) as handed,
        pytest.raises(MlxdError, match="mlxctl service install") as refused,
    ):
        check_socket(tmp_path / "s", Inherited((handed,)))
    assert refused.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    ("peers", "welcome"),
    [
        (None, True),
        (frozenset({os.geteuid(), 0}), True),
        (frozenset({os.geteuid() + 1}), False),
    ],
)
async def test_peers_are_those_that_the_manager_lets_through(
    peers: frozenset[int] | None, welcome: bool
) -> None:
    with temporary_home() as home:
        home.run_dir.mkdir(mode=0o700)
        with made_by_a_manager(home.control_socket) as managers:
            inherited = Inherited((duplicate(managers),), peers)
            async with running_daemon(home, inherited=inherited) as daemon:
                if welcome:
                    await ask(home)
                else:
                    with pytest.raises(MlxdError) as refused:
                        await ask(home)
                    assert refused.value.code is Code.UNAUTHORIZED
                await daemon.stop("test")


async def ask(home: Home) -> None:
    async with open_control(str(home.control_socket), "test") as control:
        await control.status()
