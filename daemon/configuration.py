"""The configuration in force, and how it is read again while the daemon runs."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import anyio.to_thread
import msgspec
import structlog

from daemon.kernel import Kernel
from daemon.pool import messages as m
from daemon.pool.state import Limits
from daemon.server.catalog import Catalog
from daemon.supervisor.memory import budget_bytes
from daemon.wire.errors import MlxdError
from daemon.wire.paths import Home
from daemon.wire.settings import Settings, WorkerSettings, load_settings

_LATER: Final = {
    "http": "mlx-bridge takes http settings at its next start",
    "worker.env": "worker.env takes effect at the daemon's next start",
    "worker.prefix_disk_bytes": "worker.prefix_disk_bytes takes effect at the daemon's next start",
    "log": "log settings take effect at the daemon's next start",
}
SPARE_FROM_BYTES: Final = 15 * 10**9
"""Machines sold with 16 GB report a little less."""

_log = structlog.get_logger("configuration")


class Machine(msgspec.Struct, frozen=True):
    """What is read of the machine once a run.

    Attributes:
        working_set_bytes: What Metal recommends as the most for its buffers; None without it.
    """

    boot_id: str
    memory_total_bytes: int
    working_set_bytes: int | None = None


class Configuration:
    """Holds the settings in force; :meth:`reload` is the only way they change."""

    def __init__(self, home: Home, settings: Settings, machine: Machine) -> None:
        self._home = home
        self._settings = settings
        self._machine = machine
        self._mistake: str | None = None
        self._mistaken_since_ms = 0

    @property
    def limits(self) -> Limits:
        """What the settings allow on this machine."""
        return limits_of(self._settings, self._machine)

    @property
    def warning(self) -> str | None:
        """That config.toml could not be read again, since when, and where its mistake is."""
        if self._mistake is None:
            return None
        since = datetime.fromtimestamp(self._mistaken_since_ms / 1000, UTC).astimezone()
        return (
            f"config.toml has a mistake, and what it said before is in force since "
            f"{since:%Y-%m-%d %H:%M}: {self._mistake}; mend it, then run mlxctl config reload"
        )

    async def reload(
        self, kernel: Kernel, catalog: Catalog, cause: m.Cause
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Read config.toml again and apply what changed.

        Returns:
            The keys that changed, and what has to be said about some of them.

        Raises:
            MlxdError: The file has a mistake; everything stays as it was, but for
                :attr:`warning`.
        """
        try:
            settings = await anyio.to_thread.run_sync(load_settings, self._home.config_file)
        except MlxdError as error:
            if self._mistake is None:
                self._mistaken_since_ms = kernel.now_ms()
            self._mistake = error.fault.message
            raise
        self._mistake = None
        keys = tuple(changed_keys(self._settings, settings))
        if not keys:
            return (), ()
        self._settings = settings
        catalog.configure(settings)
        await kernel.carry_out(m.Configure(limits=self.limits, keys=keys), cause)
        _log.info("config.changed", keys=keys)
        later = (
            said
            for begin, said in _LATER.items()
            if any(f"{k}.".startswith(f"{begin}.") for k in keys)
        )
        return keys, tuple(later)


def limits_of(settings: Settings, machine: Machine) -> Limits:
    """The pool's limits; a budget beyond the machine's memory is clamped with a warning."""
    pool, safety = settings.pool, settings.safety
    budget, warning = budget_bytes(
        pool.memory, machine.memory_total_bytes, machine.working_set_bytes
    )
    if warning is not None:
        _log.warning("budget.clamped", why=warning)
    return Limits(
        budget_bytes=budget,
        workers_max=pool.workers_max,
        loads_max=pool.loads_max,
        queue_max=pool.queue_max,
        kv_tokens=pool.kv_tokens,
        ttl_ms=None if pool.ttl_s is None else int(pool.ttl_s * 1000),
        crashes_max=safety.crashes_max,
        crash_window_ms=int(safety.window_s * 1000),
        unclean_starts_max=safety.unclean_starts_max,
        spare=_keeps_spare(settings.worker, machine),
    )


def _keeps_spare(worker: WorkerSettings, machine: Machine) -> bool:
    if worker.spare == "auto":
        return machine.memory_total_bytes >= SPARE_FROM_BYTES
    return worker.spare


def changed_keys(before: Settings, after: Settings) -> Iterator[str]:
    """Key paths whose values differ, as they would be written in config.toml."""
    yield from _changed(msgspec.to_builtins(before), msgspec.to_builtins(after), "")


def _changed(before: dict[str, Any], after: dict[str, Any], prefix: str) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        path = f"{prefix}{_quoted(name)}"
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(old, new, f"{path}.")
        elif old != new:
            yield path


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'
