"""systemd's user manager through ``systemctl --user``: the Linux twin of launchctl."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from launchd.parts import Part
from launchd.steps import Command, Run, Step

_USER: Final = ("systemctl", "--user")


class UserUnits(msgspec.Struct, frozen=True):
    """The user manager of whoever runs this."""

    @property
    def title(self) -> str:
        return "systemd"

    def unavailable(self, run: Run) -> str | None:
        asked = run((*_USER, "show", "--property=Version"))
        if asked.code == 0:
            return None
        return (
            f"no systemd user manager answers ({asked.said or 'no word'}); log in as this user "
            "(not by su or sudo), or run: loginctl enable-linger; without systemd run mlxd and "
            "mlx-bridge from the supervisor that you have"
        )

    def is_loaded(self, part: Part, run: Run) -> bool:
        return run((*_USER, "is-active", "--quiet", f"{part.name}.socket")).code == 0

    def is_enabled(self, part: Part, run: Run) -> bool | None:
        return run((*_USER, "is-enabled", "--quiet", f"{part.name}.socket")).code == 0

    def load(self, part: Part) -> list[Step]:
        return [
            Command((*_USER, "daemon-reload")),
            Command((*_USER, "reset-failed", *_units(part)), accepted=frozenset({1})),
            self.start(part),
        ]

    def unload(self, part: Part) -> list[Step]:
        # In one command: a service whose socket is still there would be started again.
        return [Command((*_USER, "stop", *_units(part)))]

    def start(self, part: Part) -> Command:
        return Command((*_USER, "start", *_units(part)))

    def restart(self, part: Part) -> list[Step]:
        return [Command((*_USER, "restart", f"{part.name}.service"))]

    def enable(self, part: Part) -> list[Step]:
        return [Command((*_USER, "enable", *_units(part)))]

    def disable(self, part: Part) -> list[Step]:
        return [Command((*_USER, "disable", *_units(part)))]

    def forget(self) -> list[Step]:
        return [Command((*_USER, "daemon-reload"))]


def units_folder(environ: Mapping[str, str], user_home: Path) -> Path:
    """Where systemd looks for a user's own units."""
    given = environ.get("XDG_CONFIG_HOME", "")
    config = Path(given) if given.startswith("/") else user_home / ".config"
    return config / "systemd" / "user"


def _units(part: Part) -> tuple[str, str]:
    return f"{part.name}.socket", f"{part.name}.service"
