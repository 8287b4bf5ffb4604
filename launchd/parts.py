"""The two programs of a service, and what a service manager can be asked and told about them."""

from pathlib import Path
from typing import Protocol

import msgspec

from launchd.steps import Command, Run, Step


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One program as a service.

    Attributes:
        program: "mlxd" or "mlx-bridge".
        name: What the service manager calls it.
        files: The service manager's files about it, as this version writes them.
        lock: Held exactly while it runs as a service.
        boot_log: Its standard output and error.
    """

    program: str
    name: str
    files: dict[Path, bytes]
    lock: Path
    boot_log: Path


class Manager(Protocol):
    """launchd or systemd. Questions are answered by exit codes; steps are only described."""

    @property
    def title(self) -> str: ...

    def unavailable(self, run: Run) -> str | None:
        """Why nothing can be asked of it here, with what to do; None if it answers."""

    def is_loaded(self, part: Part, run: Run) -> bool:
        """Whether it holds the sockets and starts the program when somebody connects."""

    def is_enabled(self, part: Part, run: Run) -> bool | None:
        """Whether it loads the program at the next login; None if it cannot be told."""

    def load(self, part: Part) -> list[Step]:
        """From its files to a running program."""

    def unload(self, part: Part) -> list[Step]:
        """End the program and give its sockets up; done when it is gone."""

    def start(self, part: Part) -> Command:
        """Run what is loaded; nothing if it runs."""

    def restart(self, part: Part) -> list[Step]:
        """Tell what is loaded to end, and run it again; its sockets stay."""

    def enable(self, part: Part) -> list[Step]: ...

    def disable(self, part: Part) -> list[Step]: ...

    def forget(self) -> list[Step]:
        """After files were removed."""
