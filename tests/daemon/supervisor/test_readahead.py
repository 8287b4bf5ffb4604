"""Weights are read ahead: the system's own page cache says so."""

import ctypes
import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog

from daemon.pool.messages import AnswerLoaded, Model, PressureLevel, ReadAhead
from daemon.supervisor.readahead import (
    Machine,
    ReadsAhead,
    Stopped,
    advise_darwin,
    radvisory,
    read_ahead,
)
from daemon.wire.errors import MlxdError
from tests.daemon.running import Asker, fake_model, running_daemon, temporary_home
from tests.e2e.service import eventually

MB = 1 << 20
PAGE = mmap.PAGESIZE
MOSTLY = 0.75
"""A busy system leaves a few of the pages out that it was advised to read."""


class Radvisory(ctypes.Structure):
    """As <sys/fcntl.h> of macOS has it."""

    _fields_ = (("ra_offset", ctypes.c_int64), ("ra_count", ctypes.c_int))


class Asked:
    """A machine that notes what it is advised to read."""

    def __init__(self, room_bytes: int = 1 << 40, pressure: PressureLevel = "normal") -> None:
        self.ranges: list[tuple[int, int]] = []
        self.machine = Machine(
            advise=lambda _, offset, size: self.ranges.append((offset, size)),
            available_bytes=lambda: room_bytes,
            read_pressure=lambda: pressure,
        )

    def read(self, folder: Path, stopped: Callable[[], bool] = lambda: False) -> int:
        return read_ahead(folder, stopped, self.machine)


def sparse(folder: Path, **sizes: int) -> Path:
    """Files of so many MB that nobody reads."""
    for name, size in sizes.items():
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.truncate(size * MB)
    return folder


def on_disk_only(path: Path, size: int) -> None:
    """Write a file and have it dropped from the page cache; skips where that cannot be."""
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_bytes(path) > size // 2:
        pytest.skip("this file system keeps its files in memory")


def cached_bytes(path: Path) -> int:
    """How much of a file is in the page cache, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        pages = ctypes.create_string_buffer(-(-size // PAGE))
        with mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE) as mapped:
            first = ctypes.c_char.from_buffer(mapped)
            assert libc.mincore(ctypes.addressof(first), size, pages) == 0
            del first
    return sum(page & 1 for page in pages.raw) * PAGE


@pytest.mark.skipif(sys.platform != "linux", reason="needs posix_fadvise and mincore")
def test_on_linux_it_comes_into_the_page_cache(tmp_path: Path) -> None:
    """More than a device's read-ahead: of one advice for all of it Linux would take a part."""
    size = 24 * MB + 5
    weights = tmp_path / "model.safetensors"
    on_disk_only(weights, size)

    assert read_ahead(tmp_path, lambda: False) == size

    eventually(lambda: cached_bytes(weights), lambda cached: cached >= MOSTLY * size)


def test_on_macos_advice_is_a_radvisory() -> None:
    packed = radvisory(5 << 32, 2**31 - 1)

    assert len(packed) == ctypes.sizeof(Radvisory)
    read = Radvisory.from_buffer_copy(packed)
    assert (read.ra_offset, read.ra_count) == (5 << 32, 2**31 - 1)


def test_on_macos_no_advice_is_larger_than_its_count_can_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int, int, int]] = []

    def hear(file: int, command: int, packed: bytes) -> None:
        read = Radvisory.from_buffer_copy(packed)
        told.append((file, command, read.ra_offset, read.ra_count))

    monkeypatch.setattr(fcntl, "fcntl", hear)
    advise_darwin(7, 10, 2**32)

    most = 2**31 - 1
    assert told == [(7, 44, 10, most), (7, 44, 10 + most, most), (7, 44, 10 + 2 * most, 2)]


def test_shards_are_read_in_order_and_in_parts(tmp_path: Path) -> None:
    asked = Asked()

    assert asked.read(sparse(tmp_path, b=1, a=65, consolidated=66)) == 66 * MB
    assert asked.ranges == [(0, 64 * MB), (64 * MB, MB), (0, MB)]


def test_no_more_than_the_memory_that_is_available(tmp_path: Path) -> None:
    asked = Asked(room_bytes=100 * MB)

    assert asked.read(sparse(tmp_path, a=64, b=64)) == 64 * MB


@pytest.mark.parametrize("level", ["soft", "hard"])
def test_nothing_while_memory_is_short(tmp_path: Path, level: PressureLevel) -> None:
    assert Asked(pressure=level).read(sparse(tmp_path, a=1)) == 0


def test_it_ends_once_it_is_not_wanted(tmp_path: Path) -> None:
    asked = Asked()

    given = asked.read(sparse(tmp_path, a=640), lambda: len(asked.ranges) == 2)

    assert given == 128 * MB


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(MlxdError):
        Asked().read(tmp_path / "gone")


# --- one at a time ------------------------------------------------------------------


class Reading:
    """Reads that go on until they are stopped or let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.stopped: dict[str, Stopped] = {}
        self.going = 0
        self.let_go = anyio.Event()
        self.fails = False

    async def read(self, folder: Path, stopped: Stopped) -> None:
        assert self.going == 0, "two at a time"
        self.began.append(folder.name)
        self.stopped[folder.name] = stopped
        if self.fails:
            raise OSError("no such volume")
        self.going += 1
        try:
            await self.let_go.wait()
        finally:
            self.going -= 1

    async def end_this(self) -> None:
        """Let the read that goes on return, and what follows begin."""
        self.let_go.set()
        self.let_go = anyio.Event()
        await anyio.wait_all_tasks_blocked()


def model(name: str) -> Model:
    facts: dict[str, Any] = {"kind": "text", "capabilities": (), "weights_bytes": 1}
    return Model(
        key=f"/{name}", name=name, path=f"/{name}", kv_token_bytes=1, context_tokens=1, **facts
    )


@pytest.mark.anyio
async def test_one_at_a_time_and_of_those_that_wait_the_last() -> None:
    reading = Reading()
    async with anyio.create_task_group() as tasks:
        ahead = ReadsAhead(reading.read, tasks)
        for name in ("a", "a", "b", "c"):
            ahead.begin(model(name))
            await anyio.wait_all_tasks_blocked()
        assert reading.began == ["a"]
        assert reading.stopped["a"]()
        await reading.end_this()
        assert reading.began == ["a", "c"]
        assert not reading.stopped["c"]()
        await reading.end_this()
        ahead.begin(model("a"))
        await anyio.wait_all_tasks_blocked()
        assert reading.began == ["a", "c", "a"]
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_was_overruled_can_be_wanted_again() -> None:
    reading = Reading()
    async with anyio.create_task_group() as tasks:
        ahead = ReadsAhead(reading.read, tasks)
        for name in ("a", "b", "a"):
            ahead.begin(model(name))
            await anyio.wait_all_tasks_blocked()
        await reading.end_this()
        assert reading.began == ["a", "a"]
        assert not reading.stopped["a"]()
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_its_worker_reads_is_read_ahead_no_more() -> None:
    reading = Reading()
    async with anyio.create_task_group() as tasks:
        ahead = ReadsAhead(reading.read, tasks)
        for name in ("a", "b"):
            ahead.begin(model(name))
            await anyio.wait_all_tasks_blocked()
        ahead.end(model("b"))
        await reading.end_this()
        ahead.begin(model("c"))
        await anyio.wait_all_tasks_blocked()
        ahead.end(model("c"))
        assert reading.began == ["a", "c"]
        assert reading.stopped["c"]()
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_it_ends_with_the_daemon() -> None:
    """Also a thread that is left behind sees that it is over."""
    reading = Reading()
    async with anyio.create_task_group() as tasks:
        ReadsAhead(reading.read, tasks).begin(model("a"))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert reading.stopped["a"]()


@pytest.mark.anyio
async def test_a_failure_is_nobodys_concern() -> None:
    reading = Reading()
    reading.fails = True
    with structlog.testing.capture_logs() as told:
        async with anyio.create_task_group() as tasks:
            ahead = ReadsAhead(reading.read, tasks)
            ahead.begin(model("a"))
            await anyio.wait_all_tasks_blocked()
            ahead.begin(model("b"))
    assert reading.began == ["a", "b"]
    assert {line["log_level"] for line in told} == {"debug"}


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="needs posix_fadvise and mincore")
async def test_what_the_pool_wants_is_read_ahead() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            model = fake_model(home, "waits").model
            weights = Path(model.path) / "model.safetensors"
            on_disk_only(weights, 24 * MB)
            daemon.supervisor.perform(ReadAhead(model=model))
            with anyio.fail_after(20):
                while cached_bytes(weights) < MOSTLY * 24 * MB:
                    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="needs posix_fadvise and mincore")
async def test_weights_are_read_while_a_new_worker_imports() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            only = fake_model(home, "only")
            weights = Path(only.model.path) / "model.safetensors"
            on_disk_only(weights, 24 * MB)
            assert isinstance(await Asker(daemon).load(only), AnswerLoaded)
            eventually(lambda: cached_bytes(weights), lambda cached: cached >= MOSTLY * 24 * MB)
