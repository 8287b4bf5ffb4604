"""launchd as ``launchctl`` shows it: the four states, and a bootout that is not over at once."""

import json
import plistlib
import signal
import stat
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from tests.fakes.managers.jobs import Job, Spec

Answer = tuple[int, str]
OK: Final[Answer] = (0, "")
NO_PROCESS: Final = 3
IO_ERROR: Final = 5
IN_PROGRESS: Final = 37
NO_SERVICE: Final = 113
DISABLED: Final = 119
BAD_PERMISSIONS: Final = 122
NO_DOMAIN: Final = 125

LEAVES_AFTER_S: Final = 0.15
THROTTLE_SHARE: Final = 0.02
"""Ten seconds between two starts are a fifth of one here."""


class Launchd:
    """One login session's services; what is disabled outlives it, in a file.

    Attributes:
        refusals: What ``bootstrap`` answers next, before it works: set by each bootout.
        starting: Loaded to be started at once, which a first ``kickstart`` comes amid.
        session: Whether the user is logged in at the screen.
    """

    def __init__(self, domain: str, state: Path, library: str, tasks: anyio.abc.TaskGroup) -> None:
        self.domain = domain
        self.refusals: list[int] = []
        self.starting: set[str] = set()
        self.session = True
        self.jobs: dict[str, Job] = {}
        self._state = state
        self._library = library
        self._tasks = tasks

    async def ask(self, argv: list[str]) -> Answer:
        verb, *rest = argv
        if verb == "print-disabled":
            return self._listed()
        domain, _, label = rest[-2 if verb == "bootstrap" else -1].partition(f"{self.domain}/")
        if verb == "bootstrap":
            return self._bootstrap(rest[0], Path(rest[1]))
        if rest[-1] == self.domain and verb == "print":
            return OK if self.session else (NO_DOMAIN, "Domain does not support specified action")
        assert not domain, f"another domain than {self.domain}: {rest[-1]}"
        return self._about(verb, rest[:-1], label)

    def _about(self, verb: str, rest: list[str], label: str) -> Answer:
        if verb in ("enable", "disable"):
            self._disable(label, disabled=verb == "disable")
            return OK
        job = self.jobs.get(label)
        if job is None:
            return NO_PROCESS if verb == "bootout" else NO_SERVICE, f"no service {label}"
        match verb:
            case "print":
                return OK
            case "bootout":
                self._tasks.start_soon(self._leave, job)
                return OK
            case "kickstart":
                if label in self.starting:
                    self.starting.remove(label)
                    return IN_PROGRESS, "Could not kickstart service: 37"
                job.start()
                return OK
            case "kill":
                number = signal.Signals[rest[0]]
                return OK if job.kill(number) else (NO_PROCESS, "No process to signal.")
        raise AssertionError(f"launchctl has no verb {verb}")

    def _bootstrap(self, domain: str, plist: Path) -> Answer:
        if domain != self.domain or not self.session:
            return NO_DOMAIN, "Bootstrap failed: 125: Domain does not support specified action"
        if stat.S_IMODE(plist.stat().st_mode) & 0o022:
            return BAD_PERMISSIONS, "Bootstrap failed: 122: Path had bad ownership/permissions"
        if self.refusals:
            code = self.refusals.pop(0)
            return code, f"Bootstrap failed: {code}"
        spec = read_plist(plist)
        if spec.name in self.jobs:
            code = IN_PROGRESS if self.jobs[spec.name].leaving else IO_ERROR
            return code, f"Bootstrap failed: {code}"
        if spec.name in self._disabled():
            return DISABLED, "Bootstrap failed: 119: Service is disabled"
        self.jobs[spec.name] = Job(spec, self._library, self._tasks)
        if spec.start_at_load:
            self.starting.add(spec.name)
        return OK

    async def _leave(self, job: Job) -> None:
        """Returned before this began: until it is over the service can still be printed."""
        await job.end()
        await anyio.sleep(LEAVES_AFTER_S)
        self.jobs.pop(job.spec.name, None)
        self.refusals = [IN_PROGRESS, IO_ERROR]

    def _disabled(self) -> list[str]:
        return json.loads(self._state.read_text()) if self._state.exists() else []

    def _disable(self, label: str, *, disabled: bool) -> None:
        labels = {*self._disabled()} - {label} | ({label} if disabled else set())
        self._state.write_text(json.dumps(sorted(labels)))

    def _listed(self) -> Answer:
        lines = [f'\t\t"{label}" => disabled' for label in self._disabled()]
        return 0, "\n".join(["disabled services = {", *lines, "}"])


def read_plist(path: Path) -> Spec:
    """As launchd reads it: what it does not know, it would ignore."""
    found: dict[str, Any] = plistlib.loads(path.read_bytes())
    sockets = {
        name: given.get("SockPathName") or f"{given['SockNodeName']}:{given['SockServiceName']}"
        for name, given in found["Sockets"].items()
    }
    assert found["KeepAlive"] == {"SuccessfulExit": False, "Crashed": True}
    return Spec(
        name=found["Label"],
        argv=tuple(found["ProgramArguments"]),
        env=found["EnvironmentVariables"],
        sockets=sockets,
        log=found["StandardErrorPath"],
        start_at_load=found["RunAtLoad"],
        kill_group=not found["AbandonProcessGroup"],
        end_s=found["ExitTimeOut"],
        throttle_s=found["ThrottleInterval"] * THROTTLE_SHARE,
    )
