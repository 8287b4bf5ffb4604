"""A real worker process and real sockets, driven by hand and without waiting for nothing."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from daemon.wire.control import Hello, Refusal, Welcome
from daemon.wire.data import (
    Begin,
    Delta,
    Generate,
    Hosting,
    LinkReport,
    Ready,
    Sampling,
    WorkAnswer,
    Written,
)
from daemon.wire.framing import DATA_FRAME_BYTES_MAX, FrameReader, encode_frame

FAKE = "tests.fakes.worker"
REAL = "daemon.worker"
PATIENCE_S = 20.0

_GREETING: Any = msgspec.msgpack.Decoder(Welcome | Refusal)
_REPORT: Any = msgspec.msgpack.Decoder(LinkReport | Refusal)
_ANSWER: Any = msgspec.msgpack.Decoder(WorkAnswer | Refusal)


class Connection:
    """One blocking connection to a worker."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self._reader = FrameReader(DATA_FRAME_BYTES_MAX)
        self._payloads: list[bytes] = []

    def send(self, message: msgspec.Struct) -> None:
        self.sock.sendall(encode_frame(message))

    def payload(self) -> bytes | None:
        """The next frame's; None at the end of the stream."""
        while not self._payloads:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._payloads += self._reader.feed(data)
        return self._payloads.pop(0)

    def greeting(self) -> Any:
        return _GREETING.decode(self.payload())

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Link(Connection):
    """The daemon's connection."""

    def report(self) -> Any:
        """The next report but how fast it writes, which comes when it comes; None at the end."""
        while (payload := self.payload()) is not None:
            report = _REPORT.decode(payload)
            if not isinstance(report, Written):
                return report
        return None

    def until(self, kind: type[Any]) -> Any:
        """The next report of this kind; those before it are dropped."""
        while not isinstance(report := self.report(), kind):
            assert report is not None, f"the link ended before {kind.__name__}"
        return report

    def rest(self) -> list[Any]:
        """Every report up to the end."""
        reports = []
        while (report := self.report()) is not None:
            reports.append(report)
        return reports


class Client(Connection):
    """A connection with one request."""

    def answer(self) -> Any:
        payload = self.payload()
        return None if payload is None else _ANSWER.decode(payload)

    def rest(self) -> tuple[str, Any]:
        """The text that still comes, and the terminal frame; None if there was none."""
        text = ""
        while isinstance(frame := self.answer(), Delta):
            text += frame.text
        return text, frame


class Worker:
    """A worker process in a session of its own, as the daemon would start it."""

    def __init__(
        self, run_dir: Path, module: str, worker: str, environment: dict[str, str]
    ) -> None:
        self.run_dir = run_dir
        self.worker = worker
        self._connections: list[Connection] = []
        with (run_dir / f"w-{worker}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", module, "--worker", worker, "--run-dir", str(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], **environment},
            )

    @property
    def socket_path(self) -> Path:
        return self.run_dir / f"w-{self.worker}.sock"

    @property
    def lock_path(self) -> Path:
        return self.run_dir / f"w-{self.worker}.lock"

    @property
    def log(self) -> str:
        return (self.run_dir / f"w-{self.worker}.log").read_text()

    def ready_line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Kill it if it is still there, and let go of every connection."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for connection in self._connections:
            connection.close()

    def link(self, generation: int = 1) -> tuple[Link, Hosting]:
        """A daemon's link, greeted; and what the worker said first."""
        link = Link(self.socket_path)
        self._connections.append(link)
        link.send(Hello(role="daemon", client="test", pid=os.getpid(), generation=generation))
        welcome = link.greeting()
        assert isinstance(welcome, Welcome), welcome
        hosting = link.report()
        assert isinstance(hosting, Hosting), hosting
        return link, hosting

    def client(self) -> Client:
        """A client's connection, greeted."""
        client = Client(self.socket_path)
        self._connections.append(client)
        client.send(Hello(client="test", pid=os.getpid()))
        assert isinstance(client.greeting(), Welcome)
        return client

    def ask(self, prompt: str = "hello", **fields: Any) -> Client:
        client = self.client()
        fields = {"lease": "lease-1", "sampling": Sampling(temperature=0), **fields}
        client.send(Generate(prompt=prompt, **fields))
        return client

    def load(self, folder: Path, kind: str = "fake", **changes: Any) -> Link:
        """A link over which the model was loaded."""
        link, _ = self.link()
        link.send(begin(folder, kind, **changes))
        link.until(Ready)
        return link


def begin(folder: Path, kind: str = "fake", **changes: Any) -> Begin:
    told = Begin(
        name="m",
        path=str(folder),
        kind=kind,
        weights_bytes=1 << 20,
        kv_tokens=100_000,
        kv_bytes=16 << 20,
        context_tokens=10_000,
        rows_max=8,
        cache_bytes_max=16 << 20,
    )
    return msgspec.structs.replace(told, **changes)


@contextlib.contextmanager
def running_worker(
    run_dir: Path, module: str = FAKE, worker: str = "1", **environment: str
) -> Iterator[Worker]:
    """A worker that has said ready; killed at the end if it is still there."""
    started = Worker(run_dir, module, worker, environment)
    try:
        assert started.ready_line() == b"ready\n", started.log
        yield started
    finally:
        started.end()
