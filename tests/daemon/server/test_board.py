"""The status: what is kept of it, and what is always new."""

import pytest

from daemon.server.board import StatusBoard
from daemon.server.views import Facts
from tests.daemon.running import Asker, fake_model, running_daemon, temporary_home

pytestmark = pytest.mark.anyio


async def test_what_the_pool_says_is_kept_until_the_pool_is_another() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            facts = Facts(
                version="1", pid=1, started_at_ms=0, home=str(home.root), memory_total_bytes=5
            )
            board = StatusBoard(daemon.kernel, facts)
            assert not board.ready
            await board.make_ready()
            assert board.ready
            first, second = board.view(7), board.view(8)
            assert (first.id, second.id) == (7, 8)
            assert first.models == ()
            assert first.warnings is second.warnings
            assert first.rss_bytes > 0
            await Asker(daemon).load(fake_model(home, "parrot"))
            third = board.view(9)
            assert [model.name for model in third.models] == ["parrot"]
            assert third.seq == daemon.kernel.seq > first.seq
            assert third.now_ms >= first.now_ms > 0
            await daemon.stop("test")
