"""The checks of ``mlxctl doctor``: each looks at one thing and says the fix."""

import platform
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import msgspec

from ctl.app import App
from ctl.health import Check, Verdict
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import counted, format_bytes, format_duration_ms

FOLDER_TIMEOUT_S: Final = 5.0
"""A folder that does not answer: an external disk, or a privacy question that waits."""
DISK_LEAST_BYTES: Final = 1_000_000_000
DISK_LITTLE_BYTES: Final = 10_000_000_000
OPEN_FILES_LEAST: Final = 1024
_LIBRARIES: Final = ("mlx", "mlx-lm", "mlx-vlm", "mlx-audio")
T = TypeVar("T")


def run_checks(app: App) -> Iterator[Check]:
    """Look at everything, one thing after the other; nothing is changed, nothing raised."""
    for name, look in CHECKS.items():
        try:
            yield from look(app)
        except MlxdError as error:
            yield Check(name=name, verdict="bad", said=error.fault.message, fix=error.fault.hint)
        except Exception as error:  # noqa: BLE001 - a doctor that falls ill helps nobody
            yield Check(name=name, verdict="bad", said=f"{type(error).__name__}: {error}")


def _install(_app: App) -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    from ctl.verbs.version import own_version  # noqa: PLC0415

    system = f"{platform.system()} {platform.machine()}"
    if sys.platform == "darwin" and platform.machine() != "arm64":
        yield Check(
            name="install",
            verdict="bad",
            said=f"this is Python for {system}; MLX needs Apple silicon",
            fix="install mlxd with a Python for arm64",
        )
        return
    found, missing = [], []
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            missing.append(library)
    said = f"mlxctl {own_version()}, Python {platform.python_version()}, {system}, "
    yield Check(
        name="install",
        verdict="bad" if missing else "ok",
        said=said + (f"without {', '.join(missing)}" if missing else ", ".join(found)),
        fix="install mlxd again, with its dependencies" if missing else None,
    )


def _folders(app: App) -> Iterator[Check]:
    from daemon.wire.paths import make_private  # noqa: PLC0415

    home = app.home
    there = [f for f in (home.root, home.events_dir, home.run_dir, home.logs_dir) if f.exists()]
    for folder in there:
        make_private(folder)  # of a folder that exists it only checks who may enter
    said = f"{home.root} is yours alone" if there else f"{home.root}: made at the first start"
    yield Check(name="folders", verdict="ok", said=said)


def _sockets(app: App) -> Iterator[Check]:
    path = Path(app.socket)  # raises if it is too long for the system
    size = len(str(path).encode())
    if path.exists() and not path.is_socket():
        yield Check(
            name="sockets",
            verdict="bad",
            said=f"{path} is no socket",
            fix=f"move it away: mv '{path}' '{path}.away'",
        )
    else:
        yield Check(name="sockets", verdict="ok", said=f"{path}, {size} of 103 bytes")


def _settings(app: App) -> Iterator[Check]:
    from daemon.wire.settings import load_settings  # noqa: PLC0415

    file = app.home.config_file
    load_settings(file)
    said = f"{file} is fine" if file.exists() else f"there is no {file}: all defaults"
    yield Check(name="settings", verdict="ok", said=said)


def _service(app: App) -> Iterator[Check]:
    from ctl.starting import installed_service  # noqa: PLC0415

    found = installed_service(app)
    if found is None:
        yield Check(
            name="service",
            verdict="skipped",
            said="not installed: mlxd runs when you start it",
            fix="to have it from login on: mlxctl service install",
        )
        return
    for state in found.state():
        wrong = [
            words
            for holds, words in (
                (state.current, "its files are of other settings or another version"),
                (state.enabled is not False, "it does not start at login (Login Items?)"),
                (state.loaded, "it is stopped"),
                (not state.loaded or state.pid is not None or not state.said, "it cannot start"),
            )
            if not holds
        ]
        yield Check(
            name="service",
            verdict="warning" if wrong else "ok",
            said=f"{state.program}: {'; '.join(wrong) or 'installed, enabled and loaded'}",
            fix="mlxctl service status says more" if wrong else None,
        )


def _daemon(app: App) -> Iterator[Check]:
    from ctl.quick import ask, greet  # noqa: PLC0415
    from ctl.verbs.version import own_version  # noqa: PLC0415

    try:
        welcome = greet(app)
        view = ask(app, c.GetStatus(id=1), c.StatusView)
    except MlxdError as error:
        if error.code is not Code.NO_DAEMON:
            raise
        yield Check(
            name="daemon", verdict="warning", said=error.fault.message, fix=error.fault.hint
        )
        return
    up = format_duration_ms(max(0, view.now_ms - view.started_at_ms))
    said = f"mlxd {welcome.version}, up {up}, {counted(len(view.models), 'model')} in memory"
    if own_version() not in {welcome.version, "source"}:
        yield Check(
            name="daemon",
            verdict="warning",
            said=f"{said}; this mlxctl is {own_version()}",
            fix="restart it, models stay in memory: mlxctl detach, then mlxd",
        )
    else:
        yield Check(name="daemon", verdict="ok", said=said)
    for warning in view.warnings:
        yield Check(name="daemon", verdict="warning", said=warning)
    budget, total = format_bytes(view.budget_bytes), format_bytes(view.memory_total_bytes)
    yield Check(name="memory", verdict="ok", said=f"models may take {budget} of {total}")


def _bridge(app: App) -> Iterator[Check]:
    import json  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    from daemon.wire.settings import load_settings  # noqa: PLC0415

    http = load_settings(app.home.config_file).http
    if http.port == 0:
        said = "http.port is 0: it takes a free port, which nobody but itself knows"
        yield Check(name="bridge", verdict="skipped", said=said)
        return
    url = f"http://{http.host}:{http.port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status = str(json.load(answer).get("status"))
    except urllib.error.HTTPError as error:
        status = f"status {error.code}"
    except OSError as error:
        yield Check(
            name="bridge",
            verdict="warning",
            said=f"nobody answers on {url}: {_reason(error)}",
            fix="for apps that speak HTTP start it: mlx-bridge",
        )
        return
    verdict: Verdict = "ok" if status == "ok" else "warning"
    yield Check(name="bridge", verdict=verdict, said=f"{url} says {status}")


def _reason(error: OSError) -> str:
    """In the system's words, without the number."""
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner)


def _log(app: App) -> Iterator[Check]:
    from ctl.mlxd import run_mlxd  # noqa: PLC0415

    if not app.home.events_dir.is_dir():
        yield Check(name="event log", verdict="skipped", said="there is none yet")
        return
    done = run_mlxd(app, "log", "verify", "--json")
    if done.fault is not None:
        raise MlxdError.of(done.fault)
    found: dict[str, Any] = msgspec.json.decode(done.out)
    size = f"{counted(found['records'], 'record')}, {format_bytes(found['bytes'])}"
    if found["damages"] or found["unreadable"]:
        yield Check(
            name="event log",
            verdict="bad",
            said=f"damaged after {size}",
            fix="mlxctl log verify says where; with mlxd stopped: mlxctl log repair",
        )
    else:
        torn = "; its torn end is set aside at the next start" if found["torn_tail"] else ""
        yield Check(name="event log", verdict="ok", said=f"{size}, every line holds{torn}")


def _disk(app: App) -> Iterator[Check]:
    for name, folder in _disks(app).items():
        free = shutil.disk_usage(folder).free
        verdict: Verdict = "ok"
        if free < DISK_LITTLE_BYTES:
            verdict = "bad" if free < DISK_LEAST_BYTES else "warning"
        yield Check(
            name="disk",
            verdict=verdict,
            said=f"{format_bytes(free)} free for {name}, at {folder}",
            fix=None if verdict == "ok" else "make room: mlxctl rm MODEL, or empty the trash",
        )


def _disks(app: App) -> dict[str, Path]:
    """One folder a disk: what lies together is told once."""
    wanted = {"the event log": app.home.root}
    if app.home.hub_dirs:
        wanted["models"] = app.home.hub_dirs[0]
    found: dict[int, tuple[str, Path]] = {}
    for name, folder in wanted.items():
        there = next(p for p in (folder, *folder.parents) if p.exists())
        device = there.stat().st_dev
        names = f"{found[device][0]} and {name}" if device in found else name
        found[device] = names, there
    return dict(found.values())


def _models(app: App) -> Iterator[Check]:
    from daemon.wire.settings import load_settings  # noqa: PLC0415

    settings = load_settings(app.home.config_file)
    configured = {name: model.path for name, model in settings.models.items() if model.path}
    for name, path in configured.items():
        if not _in_time(lambda path=path: Path(path).is_dir(), path):  # type: ignore[misc]
            yield Check(
                name="models",
                verdict="bad",
                said=f"{name}: there is no folder {path}",
                fix="correct its path in config.toml, or plug the disk in",
            )
    for hub_dir in app.home.hub_dirs:
        count = _in_time(lambda folder=hub_dir: len(list(folder.glob("models--*"))), hub_dir)  # type: ignore[misc]
        yield Check(name="models", verdict="ok", said=f"{counted(count, 'model')} in {hub_dir}")


def _in_time(read: Callable[[], T], folder: object) -> T:
    answers: SimpleQueue[T] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(read()), daemon=True).start()
    try:
        return answers.get(timeout=FOLDER_TIMEOUT_S)
    except Empty:
        raise MlxdError(
            Code.BUSY,
            f"the folder {folder} has not answered for {FOLDER_TIMEOUT_S:.0f} s",
            hint="check its disk; on a Mac: System Settings, Privacy & Security, Files and Folders",
        ) from None


def _worker(_app: App) -> Iterator[Check]:
    from ctl.probing import probe_worker  # noqa: PLC0415

    facts = probe_worker()
    parts = [f"MLX {facts['mlx']} on {facts['device_name']}"]
    metal = facts["recommended_working_set_bytes"]
    if metal:
        parts.append(f"Metal recommends {format_bytes(metal)} at most")
    verdict: Verdict = "ok"
    if sys.platform == "darwin" and not metal:
        verdict = "bad"
        parts.append("Metal is not there")
    yield Check(name="worker", verdict=verdict, said=f"starts; {', '.join(parts)}")


def _limits(_app: App) -> Iterator[Check]:
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < OPEN_FILES_LEAST
    yield Check(
        name="limits",
        verdict="warning" if few else "ok",
        said=f"{soft:,} open files here; the service asks for 4,096",
        fix=f"before starting mlxd by hand: ulimit -n {min(4096, hard)}" if few else None,
    )


CHECKS: Final[dict[str, Callable[[App], Iterator[Check]]]] = {
    "install": _install,
    "folders": _folders,
    "sockets": _sockets,
    "settings": _settings,
    "service": _service,
    "daemon": _daemon,
    "bridge": _bridge,
    "event log": _log,
    "disk": _disk,
    "models": _models,
    "worker": _worker,
    "limits": _limits,
}
