"""A daemon that is not there: started if it is installed as a service, else how to start it."""

from typing import TYPE_CHECKING

from ctl.app import App
from daemon.wire.errors import Code, MlxdError

if TYPE_CHECKING:
    from launchd.service import Service


def start_daemon(app: App, absent: MlxdError) -> None:
    """Have the service manager start what it has installed; return once it serves.

    Verbs that want something done start the service. Verbs that only look do not: who has
    just stopped it wants to see it stopped.

    Raises:
        MlxdError: ``absent`` where no service is installed, or why it does not start.
    """
    found = installed_service(app)
    if found is None:
        raise absent
    from launchd.steps import carry_out  # noqa: PLC0415

    found.check()
    app.note_dim("mlxd is a service that is stopped: starting it …\n")
    carry_out(found.start(), found.run)


def with_next_step(app: App, absent: MlxdError) -> MlxdError:
    """``absent``, with the hint that is right for this installation."""
    if installed_service(app) is None:
        return absent
    return MlxdError(Code.NO_DAEMON, absent.fault.message, hint="start it: mlxctl service start")


def installed_service(app: App) -> "Service | None":
    """The service of this home, if it is installed."""
    from ctl.verbs.service import find_service  # noqa: PLC0415

    try:
        found = find_service(app)
    except MlxdError:
        return None  # no service manager, no HOME, a mistake in the settings: no service
    return found if found.is_installed else None
