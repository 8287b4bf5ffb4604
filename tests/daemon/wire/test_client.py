"""The control connection: many requests at once, and askers that leave."""

from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskStatus

from daemon.wire import control as c
from daemon.wire.client import Control, open_control
from daemon.wire.errors import Code, MlxdError
from tests.fakes.daemon import FakeDaemon, FakeModel, Report, open_fake_daemon, says

pytestmark = pytest.mark.anyio


class Gate:
    """Loads wait in it."""

    def __init__(self) -> None:
        self.open = anyio.Event()

    async def __call__(self, _report: Report) -> None:
        await self.open.wait()


async def test_more_requests_than_a_connection_takes_wait_their_turn(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, "REQUESTS_MAX", 3)
    gate = Gate()
    async with (
        open_fake_daemon(folder, FakeModel("m", says(), load=gate)) as fake,
        open_control(fake.control_socket, "test") as control,
    ):
        leases: list[str] = []

        async def ask() -> None:
            leases.append((await control.acquire("m")).lease)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask)
            await fake.ledger.wait_for("acquire m", times=3)
            await control.release("lease-0")  # never waits behind what waits for a load
            assert fake.ledger.entries.count("acquire m") == 3
            gate.open.set()
        assert sorted(leases) == [f"lease-{number}" for number in range(1, 9)]


async def test_who_leaves_while_waiting_withdraws(folder: Path) -> None:
    gate = Gate()
    async with (
        open_fake_daemon(folder, FakeModel("m", says(), load=gate)) as fake,
        open_control(fake.control_socket, "test") as control,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(control.acquire, "m")
            await fake.ledger.wait_for("acquire m")
            tasks.cancel_scope.cancel()
        await fake.ledger.wait_for("cancel")


async def test_a_grant_that_comes_as_its_asker_leaves_is_given_back(folder: Path) -> None:
    async with (
        open_fake_daemon(folder, FakeModel("m", says())) as fake,
        open_control(fake.control_socket, "test") as control,
    ):
        scope = anyio.CancelScope()
        taken = control._dispatch

        def leave_first(answer: c.ControlAnswer) -> bool:
            if isinstance(answer, c.Granted):
                scope.cancel()  # between the answer's arrival and its asker's next step
            return taken(answer)

        control._dispatch = leave_first  # type: ignore[method-assign]
        with scope:
            await control.acquire("m")
        assert scope.cancelled_caught
        await fake.ledger.wait_for("release lease-1")


async def test_a_daemon_that_goes_away_ends_every_wait(folder: Path) -> None:
    codes: list[Code] = []
    killed = anyio.CancelScope()

    async def serve(task_status: TaskStatus[FakeDaemon]) -> None:
        model = FakeModel("m", says(), load=Gate())
        with killed:
            async with open_fake_daemon(folder, model) as fake:
                task_status.started(fake)
                await anyio.sleep_forever()

    async def ask(control: Control) -> None:
        with pytest.raises(MlxdError) as caught:
            await control.acquire("m")
        codes.append(caught.value.code)

    async with anyio.create_task_group() as tasks:
        fake: FakeDaemon = await tasks.start(serve)
        async with open_control(fake.control_socket, "test") as control:
            async with anyio.create_task_group() as asking:
                for _ in range(3):
                    asking.start_soon(ask, control)
                await fake.ledger.wait_for("acquire m", times=3)
                killed.cancel()
            assert codes == [Code.NO_DAEMON] * 3
            assert not control.connected
            with pytest.raises(MlxdError):
                await control.status()
