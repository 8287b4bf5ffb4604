"""Wired memory before and after a worker's end, with the machine's readings in the test's hand."""

import os
import struct
import sys
from collections.abc import Iterable

import anyio
import pytest

from daemon.identity import boot_id
from daemon.pool import messages as m
from daemon.supervisor.host import OsHost
from daemon.supervisor.launch import Launcher, worker_env
from daemon.supervisor.residue import Wiring, read_wired_bytes, wired_bytes
from daemon.supervisor.supervisor import open_supervisor_on
from daemon.wire.paths import make_private
from tests.daemon.running import FAKE_WORKER, fake_model, temporary_home
from tests.fakes.engine import FakeConfig

pytestmark = pytest.mark.anyio
GB = 10**9


class Machine:
    """Reads what the test says, one reading after the other, the last for ever."""

    def __init__(self, *readings: int | None) -> None:
        self._readings = list(readings)
        self.slept_s = 0.0

    def read(self) -> int | None:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    async def sleep(self, for_s: float) -> None:
        self.slept_s += for_s

    def wiring(self) -> Wiring:
        return Wiring(self.read, self.sleep)


async def residue(footprint_bytes: int, *readings: int | None) -> tuple[int, float]:
    """At its start, when it last spoke, and after its end; what stays, and how long that took."""
    machine = Machine(*readings)
    wiring = machine.wiring()
    wiring.look()
    return await wiring.residue_bytes(footprint_bytes), machine.slept_s


async def test_what_comes_back_at_once_is_no_residue() -> None:
    assert await residue(8 * GB, 3 * GB, 11 * GB, 3 * GB) == (0, 0.0)


async def test_half_is_enough_and_it_may_take_a_while() -> None:
    assert await residue(8 * GB, 3 * GB, 11 * GB, 11 * GB, 8 * GB, 7 * GB) == (0, 1.0)


async def test_what_has_not_come_back_after_ten_seconds_stays() -> None:
    left, slept_s = await residue(8 * GB, 3 * GB, 11 * GB, 10 * GB)
    assert left == 7 * GB
    assert 10.0 <= slept_s <= 11.0


async def test_others_that_grow_meanwhile_make_it_no_greater_than_it_was() -> None:
    assert (await residue(8 * GB, 3 * GB, 11 * GB, 13 * GB))[0] == 8 * GB


async def test_never_more_than_the_worker_said_it_held() -> None:
    assert (await residue(2 * GB, 3 * GB, 11 * GB, 11 * GB))[0] == 2 * GB


async def test_a_worker_that_wired_nothing_leaves_nothing() -> None:
    """Weights that no computation uses are not wired: an idle model's end changes nothing."""
    assert await residue(8 * GB, 3 * GB, 3 * GB, 3 * GB) == (0, 0.0)
    assert await residue(8 * GB, 5 * GB, 3 * GB, 3 * GB) == (0, 0.0)
    assert await residue(8 * GB, 5 * GB, 3 * GB, 6 * GB) == (0, 0.0), "whatever others wire"


async def test_a_machine_that_tells_nothing() -> None:
    assert await residue(8 * GB, None) == (0, 0.0)


def test_the_count_of_wired_pages_is_the_fourth_word() -> None:
    """mach/vm_statistics.h: free, active, inactive and wired pages come first, 32 bits each."""
    statistics = struct.pack("=4I2Q", 1_000, 2_000, 3_000, 400_000, 5, 6) + bytes(200)
    assert wired_bytes(statistics, 16_384) == 400_000 * 16_384


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS tells")
def test_here_nothing_is_told() -> None:
    assert read_wired_bytes() is None


@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_macos_tells_a_plausible_amount() -> None:
    wired = read_wired_bytes()
    assert wired is not None
    assert GB // 10 < wired < 1 << 42


@pytest.mark.parametrize(
    ("readings", "reported"),
    [((3 * GB, 9 * GB), [6 * GB]), ((3 * GB, 3 * GB), [])],
)
async def test_it_is_reported_before_the_exit_that_frees_the_slot(
    readings: Iterable[int], reported: list[int]
) -> None:
    """The first reading is taken at the start, the second is what stays for ever after."""
    with temporary_home() as home:
        for folder in (home.root, home.run_dir, home.logs_dir):
            make_private(folder)
        launcher = Launcher(
            run_dir=home.run_dir,
            logs_dir=home.logs_dir,
            command=FAKE_WORKER,
            env=worker_env(os.environ, {}),
        )
        model = fake_model(home, "big", FakeConfig(weights_bytes=6 * GB)).model
        told: list[m.AnyCommand] = []
        machine, ended = Machine(*readings), anyio.Event()
        async with open_supervisor_on(
            OsHost(home, launcher), lambda: 0, machine.wiring
        ) as supervisor:

            async def send(command: m.AnyCommand, _cause: m.Cause) -> None:
                told.append(command)
                match command:
                    case m.ReportSpawned():
                        assert command.boot_id == boot_id()
                        begin = m.BeginLoad(worker="w1", model=model, kv_tokens=99, rows_max=1)
                        supervisor.perform(begin)
                    case m.ReportReady():
                        supervisor.perform(m.RetireWorker(worker="w1", reason="unloaded"))
                    case m.ReportExit():
                        ended.set()

            supervisor.attach(send)
            supervisor.perform(m.SpawnWorker(worker="w1", model=model))
            with anyio.fail_after(60):
                await ended.wait()
        assert [c.residue_bytes for c in told if isinstance(c, m.ReportResidue)] == reported
        assert isinstance(told[-1], m.ReportExit)
