"""`kill -9` of the daemon, and of workers, at random moments under load; real processes.

The engine is a stand-in that sleeps through its steps; everything else is what ships.
Acknowledged events are all there, streams go on to their end, workers are adopted, none
is left over, and what the log adds up to is what the daemon believes.
"""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool
from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import open_control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.generation import generate
from daemon.wire.locks import is_held

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

NAMES = ("ant", "bee", "cat")
WEIGHTS = (10, 10, 1)
"""The third is asked for seldom: it takes another's place each time."""

USERS = 4
PASSING = {Code.NO_DAEMON, Code.BUSY, Code.DEADLINE, Code.SHUTTING_DOWN}
"""What a client may hear while daemons come and go, before its request was accepted."""

CONFIG = """
[pool]
memory = "480M"
kv_tokens = 1024
[worker]
spare = false
[safety]
unclean_starts_max = 100000
crashes_max = 100000
"""


class Siege:
    """A daemon that is killed and started again while clients use it."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home = home
        self.socket = str(home / "run" / "mlxd.sock")
        self.rng = random.Random(seed)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.acknowledged: dict[int, str] = {}
        self.finished = 0
        self.another = anyio.Event()
        self.wrong: list[str] = []
        self.allowed = PASSING

    async def start(self) -> None:
        self.daemon = await anyio.to_thread.run_sync(self._start)

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.home / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.stand_in_daemon"],
                env={**os.environ, "MLXD_HOME": str(self.home)},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
        assert line, (self.home / "daemon.log").read_text("utf-8")[-2000:]
        return process

    async def kill_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        await anyio.to_thread.run_sync(self.daemon.wait)
        await self.start()

    async def kill_a_worker(self) -> None:
        pids = [model.pid for model in (await self.status()).models if model.pid is not None]
        if pids:
            os.kill(self.rng.choice(pids), signal.SIGKILL)

    async def status(self) -> c.StatusView:
        async with open_control(self.socket, "siege") as control:
            return await control.status()

    async def use(self) -> None:
        """One client: short streams of random models, for as long as it is let."""
        while True:
            try:
                await self._stream(self.rng.choices(NAMES, WEIGHTS)[0])
            except MlxdError as error:
                if error.code not in self.allowed:
                    self.wrong.append(f"{error.code}: {error}"[:300])
                await anyio.sleep(0.02)  # a polite client does not hammer

    async def _stream(self, model: str) -> None:
        def request(granted: c.Granted) -> d.Generate:
            message = d.ChatMessage(role="user", parts=(d.TextPart(text="hi"),))
            return d.Generate(lease=granted.lease, messages=(message,), max_tokens=40)

        async with (
            open_control(self.socket, "user") as control,
            generate(control, model, request, client="user", deadline_ms=20_000) as (_, answer),
        ):
            try:
                text = "".join([delta.text async for delta in answer])
            except MlxdError as error:
                if error.code not in self.allowed or error.code in PASSING:
                    self.wrong.append(f"a stream of {model} broke: {error.code} {error}")
                return
            if len(text) != 40:
                self.wrong.append(f"a stream of {model} ended after {len(text)} of 40")
            self.finished += 1
            self.another.set()
            self.another = anyio.Event()

    async def served(self, streams: int) -> None:
        """Wait until so many streams have come to their end."""
        with anyio.fail_after(60):
            while self.finished < streams:
                await self.another.wait()

    async def watch(self) -> None:
        """Keep every record that was ever shown to a watcher."""
        while True:
            try:
                async with (
                    open_control(self.socket, "watcher") as control,
                    control.watch(after=max(self.acknowledged, default=0)) as records,
                ):
                    async for record in records:
                        if isinstance(record, c.LogRecord):
                            self.acknowledged[record.seq] = record.line
            except MlxdError:
                await anyio.sleep(0.02)

    # --- what must be true in the end ---------------------------------------------------

    def check_log(self) -> Pool:
        """Whole, with all that was acknowledged; the pool that it adds up to."""
        log, _ = EventLog.open(self.home / "events", OsDisk(), writable=False)
        lines = {line.seq: line.text for line in log.read_after(0)}
        lost = [seq for seq, text in self.acknowledged.items() if lines.get(seq) != text]
        assert not lost, f"acknowledged and not in the log: {lost}"
        pool = Pool(limits=Limits(budget_bytes=480_000_000))
        for record in log.replay():
            for event in record.events:
                pool = evolve(pool, event, record.at_ms)
        log.close()
        return pool

    def living_workers(self) -> set[str]:
        return {
            lock.stem.removeprefix("w-")
            for lock in (self.home / "run").glob("w-*.lock")
            if is_held(lock)
        }


def _make_model(folder: Path) -> None:
    """What looks like a tiny llama; only the stand-in engine reads its "fake"."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "vocab_size": 32,
        "fake": {"reply": "x", "step_ms": 4.0, "load_ms": 60.0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps(
        {
            "model.embed_tokens.weight": {
                "dtype": "F32",
                "shape": [32, 16],
                "data_offsets": [0, 2048],
            }
        }
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(2048)
    (folder / "model.safetensors").write_bytes(weights)


@asynccontextmanager
async def siege(seed: int) -> AsyncIterator[Siege]:
    """A besieged home with three models, of which two fit at a time."""
    with tempfile.TemporaryDirectory(prefix="mlxd-k-") as folder:
        home = Path(folder)
        config = CONFIG
        for name in NAMES:
            _make_model(home / "models" / name)
            config += f'[models."{name}"]\npath = "{home}/models/{name}"\n'
        (home / "config.toml").write_text(config)
        besieged = Siege(home, seed)
        await besieged.start()
        try:
            yield besieged
        finally:
            assert besieged.daemon is not None
            besieged.daemon.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(besieged.daemon.wait)


async def _kill_daemons(seed: int, kills: int) -> None:
    async with siege(seed) as besieged:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(besieged.watch)
            for _ in range(USERS):
                tasks.start_soon(besieged.use)
            for _ in range(kills):
                await anyio.sleep(besieged.rng.uniform(0.05, 1.0))  # the moment is the point
                await besieged.kill_daemon()
            await besieged.served(kills)
            tasks.cancel_scope.cancel()
        await _come_to_rest(besieged)
        assert not besieged.wrong, besieged.wrong[:5]
        live = await besieged.status()
        pool = besieged.check_log()
        told = {slot.tenant.worker: slot.tenant.model.name for slot in pool.slots.values()}
        assert {model.worker: model.name for model in live.models} == told, "replay = live"
        assert besieged.living_workers() == set(told), "no worker is left over"
        assert live.committed_bytes <= live.budget_bytes
        assert live.generation == kills + 1
    assert not besieged.living_workers()


async def _come_to_rest(besieged: Siege) -> None:
    """Wait until nothing runs, nothing is under way and every death has been noticed."""
    with anyio.fail_after(60):
        while True:
            status = await besieged.status()
            quiet = not status.queue and all(model.state == "idle" for model in status.models)
            if quiet and {model.worker for model in status.models} == besieged.living_workers():
                return
            await anyio.sleep(0.05)


async def _kill_workers(seed: int, kills: int) -> None:
    async with siege(seed) as besieged:
        besieged.allowed = PASSING | {Code.WORKER_FAILED, Code.QUARANTINED}
        async with anyio.create_task_group() as tasks:
            for _ in range(USERS):
                tasks.start_soon(besieged.use)
            for _ in range(kills):
                await anyio.sleep(besieged.rng.uniform(0.05, 1.0))
                await besieged.kill_a_worker()
            tasks.cancel_scope.cancel()
        await _come_to_rest(besieged)
        assert not besieged.wrong, besieged.wrong[:5]
        live, pool = await besieged.status(), besieged.check_log()
        told = {slot.tenant.worker for slot in pool.slots.values()}
        assert {model.worker for model in live.models} == told == besieged.living_workers()
    assert not besieged.living_workers()


async def test_daemon_killed_five_times_under_load() -> None:
    await _kill_daemons(seed=1, kills=5)


async def test_workers_killed_five_times_under_load() -> None:
    await _kill_workers(seed=2, kills=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_daemon_killed_200_times_under_load() -> None:
    await _kill_daemons(seed=3, kills=200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_workers_killed_100_times_under_load() -> None:
    await _kill_workers(seed=4, kills=100)
