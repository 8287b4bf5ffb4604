"""What the daemon sees to now and then, beside its pool: sleep, and the size of text logs."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from daemon.pool.state import Busy, Loading, Pool
from daemon.supervisor.awake import Awake
from daemon.supervisor.launch import bound_logs

LOOK_EVERY_S: Final = 5.0
"""Machines fall asleep after a minute at the earliest: what is shorter needs no help."""

LOOKS_A_LOG: Final = 12


async def see_to(
    pool: Callable[[], Pool],
    awake: Awake,
    logs_dir: Path,
    run_dir: Path,
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Keep the machine awake while models work, and their logs small, until cancelled."""
    with awake:
        for look in count(1):
            await anyio.sleep(every_s)
            at_work = is_at_work(pool())
            if at_work or awake.is_held:
                await anyio.to_thread.run_sync(awake.keep, at_work)
            if look % LOOKS_A_LOG == 0:
                await anyio.to_thread.run_sync(bound_logs, logs_dir, run_dir)


def is_at_work(pool: Pool) -> bool:
    """Whether anybody waits for what a model does."""
    return any(isinstance(slot, Busy | Loading) for slot in pool.slots.values())
