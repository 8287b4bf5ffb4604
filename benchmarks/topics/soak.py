"""256 idle keep-alive clients and 16 streams for ten minutes: nothing lost, nothing grown."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.bench import Bench
from benchmarks.client import Server, user
from benchmarks.figures import Rounds, Table
from benchmarks.processes import rss_mb
from benchmarks.service import running_service
from benchmarks.sse import Answer, BadAnswer

CLIENTS = 256
STREAMS = 16
TOKENS = 128
ASK_EVERY_S = 30.0
"""How often an idle client uses its connection."""

SETTLED_AFTER_S = 20.0


async def measure(bench: Bench) -> Table:
    """The table ``soak``."""
    rounds = Rounds()
    with running_service(bench, {"toy": bench.toy()}) as service:
        server = await service.loaded("toy")
        # The same all along: what grows is no prefix cache, which may.
        prompts = bench.prompts(STREAMS)
        await server.ask_all(prompts, TOKENS)
        async with AsyncExitStack() as stack:
            idlers = [await stack.enter_async_context(_idler(server)) for _ in range(CLIENTS)]
            end_s = time.monotonic() + bench.soak_s
            async with asyncio.TaskGroup() as group:
                uses = [
                    group.create_task(idler.use_until(end_s, ASK_EVERY_S * number / CLIENTS))
                    for number, idler in enumerate(idlers)
                ]
                streams = [
                    group.create_task(_stream_until(server, prompt, end_s)) for prompt in prompts
                ]
                # All buffers have their size within seconds (measured): growth is what follows.
                await asyncio.sleep(min(SETTLED_AFTER_S, bench.soak_s / 4))
                before = {role: rss_mb(pid) for role, pid in server.pids.items()}
            rounds.add("lost", sum(task.result() for task in uses))
            rounds.add("answers", sum(task.result()[0] for task in streams))
            rounds.add("refused", sum(task.result()[1] for task in streams))
            for role, pid in server.pids.items():
                rounds.add(role, rss_mb(pid) - before[role])
    rows = (
        rounds.alone(f"of {CLIENTS} keep-alive clients, lost", "clients", "lost", at_most=0),
        rounds.alone(f"answers of {STREAMS} streams, complete", "answers", "answers"),
        rounds.alone("answers that were refused or cut", "answers", "refused", at_most=0),
        *(rounds.alone(f"{role} rss, growth", "MB", role, at_most=20) for role in server.pids),
    )
    title = f"{CLIENTS} keep-alive clients and {STREAMS} streams for {bench.soak_s:.0f} s"
    return Table("soak", title, rows)


class _Idler:
    """A connection that is used now and then."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def use(self) -> None:
        """Ask for the models on the connection that there is.

        Raises:
            BadAnswer: The status is not 200, or the connection has ended.
        """
        self._writer.write(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = Answer()
        while not answer.ended:
            data = await self._reader.read(65_536)
            if not data:
                raise BadAnswer("the connection ended")
            answer.feed(data)
        if answer.status != 200:
            raise BadAnswer(f"status {answer.status}")

    async def use_until(self, end_s: float, first_after_s: float) -> int:
        """Use the connection every 30 s and once at the end; 1 if it was lost, else 0."""
        pause_s = first_after_s
        try:
            while (left_s := end_s - time.monotonic()) > 0:
                await asyncio.sleep(min(pause_s, left_s))
                await self.use()
                pause_s = ASK_EVERY_S
        except (OSError, BadAnswer):
            return 1
        return 0


@asynccontextmanager
async def _idler(server: Server) -> AsyncIterator[_Idler]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield _Idler(reader, writer)
    finally:
        writer.close()


async def _stream_until(server: Server, prompt: str, end_s: float) -> tuple[int, int]:
    """One stream after the other; how many were complete, and how many were not."""
    complete = lost = 0
    while time.monotonic() < end_s:
        try:
            await server.ask(user(prompt), TOKENS)
        except (OSError, BadAnswer):
            lost += 1
        else:
            complete += 1
    return complete, lost
