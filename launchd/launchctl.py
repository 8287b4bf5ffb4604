"""launchd through ``launchctl``: only exit codes are read, for its texts are no interface."""

import re
from pathlib import Path
from typing import Final

import msgspec

from launchd.parts import Part
from launchd.steps import Command, Run, Step, UntilFails, UntilFree

NOT_LOADED: Final = frozenset({3, 113})
"""``bootout`` says 3 (no such process), ``kickstart`` and ``print`` 113 (no such service)."""

IN_PROGRESS: Final = 36
"""``bootout`` returns before the service is gone, mostly with 0, sometimes with this."""

STILL_LEAVING: Final = frozenset({5, 37})
"""What ``bootstrap`` says while the last one's end is not quite over: EIO, or EALREADY."""

ALREADY_STARTING: Final = frozenset({37})
"""``kickstart`` of what is being started, by a client of its socket for one: EALREADY."""


class LaunchAgents(msgspec.Struct, frozen=True):
    """The agents of one user's login session.

    Attributes:
        domain: "gui/501": where Metal, the keychain and the user's files are.
    """

    domain: str

    @property
    def title(self) -> str:
        return "launchd"

    def unavailable(self, run: Run) -> str | None:
        if run(("launchctl", "print", self.domain)).code == 0:
            return None
        return (
            "this user has no login session on the Mac, and an agent lives in one; log in at its "
            "screen (or by Screen Sharing) once, then run this again, also over SSH"
        )

    def is_loaded(self, part: Part, run: Run) -> bool:
        return run(("launchctl", "print", self._target(part))).code == 0

    def is_enabled(self, part: Part, run: Run) -> bool | None:
        """The one text that is read: no exit code tells it. What is not listed is enabled."""
        listed = run(("launchctl", "print-disabled", self.domain))
        if listed.code != 0:
            return None
        found = re.search(rf'"{re.escape(part.name)}"\s*=>\s*(\w+)', listed.said)
        return found is None or found[1] in ("enabled", "false")

    def load(self, part: Part) -> list[Step]:
        (plist,) = part.files
        return [
            *self.enable(part),  # a disabled one cannot be loaded
            Command(("launchctl", "bootstrap", self.domain, str(plist)), retried=STILL_LEAVING),
            self.start(part),
        ]

    def unload(self, part: Part) -> list[Step]:
        target = self._target(part)
        return [
            Command(("launchctl", "bootout", target), accepted=NOT_LOADED | {IN_PROGRESS}),
            UntilFails(("launchctl", "print", target)),
        ]

    def start(self, part: Part) -> Command:
        kickstart = ("launchctl", "kickstart", self._target(part))
        return Command(kickstart, accepted=ALREADY_STARTING)

    def restart(self, part: Part) -> list[Step]:
        # Not kickstart -k: nothing says that it asks before it kills.
        kill = ("launchctl", "kill", "SIGTERM", self._target(part))
        return [Command(kill, accepted=NOT_LOADED), UntilFree(part.lock), self.start(part)]

    def enable(self, part: Part) -> list[Step]:
        return [Command(("launchctl", "enable", self._target(part)))]

    def disable(self, part: Part) -> list[Step]:
        return [Command(("launchctl", "disable", self._target(part)))]

    def forget(self) -> list[Step]:
        return []

    def _target(self, part: Part) -> str:
        return f"{self.domain}/{part.name}"


def agents_folder(user_home: Path) -> Path:
    """Where launchd looks for a user's agents at login."""
    return user_home / "Library" / "LaunchAgents"
