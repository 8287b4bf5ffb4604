"""Inherited sockets: Apple's error contract in C, systemd's protocol with real processes."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.wire.errors import Code, MlxdError
from launchd.activation import from_launchd, from_systemd, inherited_sockets
from tests.fakes.managers.running import build_activate

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


class Launchd:
    """The C library that stands for launchd: :meth:`offer` is what its plist said."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)

    def offer(self, name: str, sock: socket.socket) -> int:
        fd = os.dup(sock.fileno())
        os.set_inheritable(fd, True)
        self._library.offer(name.encode(), fd)
        return fd

    def arrays_freed(self) -> int:
        return int(self._library.arrays_freed())


@pytest.fixture
def launchd(tmp_path: Path) -> Launchd:
    library = tmp_path / "libactivate.so"
    build_activate(library)
    return Launchd(library)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for socket paths, also where the usual temporary folder is deep (macOS)."""
    with tempfile.TemporaryDirectory(prefix="mlxd-") as path:
        yield Path(path)


@pytest.fixture
def listener(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(folder / "s"))
        sock.listen()
        yield sock


def test_launchd_gives_every_socket_of_a_name(launchd: Launchd, listener: socket.socket) -> None:
    fds = [launchd.offer("http", listener), launchd.offer("http", listener)]
    launchd.offer("control", listener)
    given = from_launchd("http", launchd.path)
    assert given is not None
    assert [sock.fileno() for sock in given] == fds
    assert {sock.family for sock in given} == {socket.AF_UNIX}
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert launchd.arrays_freed() == 1
    for sock in given:
        sock.close()


ASK = """
import os
from launchd.activation import inherited_sockets
given = inherited_sockets("control", os.environ)
print(given and ([sock.fileno() for sock in given.sockets], sorted(given.peers)))
"""


def test_launchd_is_asked_where_there_is_one(launchd: Launchd, listener: socket.socket) -> None:
    """A client of a socket that launchd made may show as root, and is this user all the same."""
    fd = listener.fileno()
    environ = {"LD_PRELOAD": launchd.path, "ACTIVATE_SOCKETS": f"control={fd}"}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=environ,
        cwd=REPOSITORY,
        pass_fds=[fd],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"([{fd}], {sorted({0, os.geteuid()})})\n"


def test_without_launchd_the_program_binds_for_itself(launchd: Launchd) -> None:
    assert from_launchd("control", launchd.path) is None


def test_a_name_that_launchd_does_not_know_is_fatal(
    launchd: Launchd, listener: socket.socket
) -> None:
    launchd.offer("control", listener)
    with pytest.raises(MlxdError, match="ENOENT") as refused:
        from_launchd("contrlo", launchd.path)
    assert refused.value.code is Code.INTERNAL
    assert launchd.arrays_freed() == 0


def test_launchd_gives_a_name_once(launchd: Launchd, listener: socket.socket) -> None:
    launchd.offer("control", listener)
    for sock in from_launchd("control", launchd.path) or []:
        sock.close()
    with pytest.raises(MlxdError, match="EALREADY"):
        from_launchd("control", launchd.path)


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_for_nobody_or_another_process_are_left_alone(environ: dict[str, str]) -> None:
    assert from_systemd("control", environ) is None
    if sys.platform != "darwin":
        assert inherited_sockets("control", environ) is None


@pytest.mark.parametrize(
    ("fds", "names"),
    [("1", "other"), ("2", "control"), ("", "control"), ("x", "control"), ("1", "")],
)
def test_what_does_not_fit_is_fatal_and_touches_no_descriptor(fds: str, names: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}
    with pytest.raises(MlxdError, match="'control'"):
        from_systemd("control", environ)


class Manager:
    """A service manager's command line: sockets at these paths, by these names, for Python."""

    def __init__(self, command: list[str], names: list[str], folder: Path) -> None:
        self.paths = [folder / f"{index}.sock" for index in range(len(names))]
        if command[0] == "systemd-socket-activate":
            listen = [f"--listen={path}" for path in self.paths]
            command = [*command, *listen, f"--fdname={':'.join(names)}"]
        else:
            command = [*command, ":".join(names), *map(str, self.paths), "--"]
        program = [sys.executable, "-m", "tests.launchd.handed_over", *dict.fromkeys(names)]
        self._process = subprocess.Popen(
            [*command, *program],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.defpath, "LISTEN_FDNAMES": "stale"},
        )
        assert self._process.stderr is not None
        self._said = [self._process.stderr.readline() for _ in names]

    def ask(self, path: Path) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
            return client.makefile().read()

    def wait(self) -> int:
        assert self._process.stderr is not None
        self._process.stderr.read()
        self._process.stderr.close()
        return self._process.wait()


MANAGERS = [
    pytest.param(
        ["systemd-socket-activate"],
        marks=pytest.mark.skipif(
            shutil.which("systemd-socket-activate") is None, reason="needs systemd"
        ),
        id="systemd",
    ),
    pytest.param([sys.executable, str(HERE / "pass_sockets.py")], id="own"),
]


@pytest.mark.parametrize("command", MANAGERS)
def test_a_real_manager_hands_two_named_sockets_over(command: list[str], folder: Path) -> None:
    manager = Manager(command, ["control", "http"], folder)
    answers = [manager.ask(path) for path in manager.paths]
    assert manager.wait() == 0
    assert answers == ["control inheritable=False", "http inheritable=False"]


@pytest.mark.parametrize("command", MANAGERS)
def test_one_name_may_stand_for_two_sockets(command: list[str], folder: Path) -> None:
    manager = Manager(command, ["http", "http"], folder)
    answers = [manager.ask(path) for path in manager.paths]
    assert manager.wait() == 0
    assert answers == ["http inheritable=False"] * 2
