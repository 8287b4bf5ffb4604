"""Many who ask at once, and how often the question is put."""

import anyio
import anyio.lowlevel
import pytest

from daemon.wire.errors import Code, MlxdError
from http_bridge.shared import Shared

pytestmark = pytest.mark.anyio


class Oracle:
    """Numbers its answers, and gives each when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = anyio.Semaphore(0)

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.acquire()
        if number == 3:
            raise MlxdError(Code.NO_DAEMON, "gone")
        return number


async def settled() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_who_comes_during_a_question_shares_the_next() -> None:
    oracle, heard = Oracle(), list[int]()
    shared = Shared(oracle)

    async def ask() -> None:
        heard.append(await shared())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await settled()
        for _ in range(20):
            tasks.start_soon(ask)
        await settled()
        assert oracle.asked == 1
        oracle.may_answer.release()
        await settled()
        assert (heard, oracle.asked) == ([1], 2)
        oracle.may_answer.release()
    assert heard == [1] + [2] * 20
    assert oracle.asked == 2


async def test_a_failure_is_shared_too_and_not_kept() -> None:
    oracle, codes = Oracle(), list[Code]()
    oracle.asked = 1
    shared = Shared(oracle)

    async def ask() -> None:
        try:
            await shared()
        except MlxdError as error:
            codes.append(error.code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await settled()
        for _ in range(3):
            tasks.start_soon(ask)
        await settled()
        oracle.may_answer.release()
        oracle.may_answer.release()
    assert (codes, oracle.asked) == ([Code.NO_DAEMON] * 3, 3)
    oracle.may_answer.release()
    assert await shared() == 4


async def test_whoever_asks_for_all_may_leave() -> None:
    oracle, heard = Oracle(), list[int]()
    shared = Shared(oracle)
    leaver = anyio.CancelScope()

    async def leave() -> None:
        with leaver:
            await shared()

    async def ask() -> None:
        heard.append(await shared())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await settled()
        leaver.cancel()
        await settled()
        oracle.may_answer.release()
    assert (heard, oracle.asked) == ([2, 2], 2)
