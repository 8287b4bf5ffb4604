"""One pull from beginning to end: plan, disk, content, snapshot; and what it came to."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ctl.app import App
from ctl.blocks import Line, Page
from ctl.download import OnBytes, check_disk, fetch, large_files, only_pull, part_bytes
from ctl.hub import Plan, RemoteFile, link_snapshot, make_plan
from ctl.progress import Mode
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import counted, format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BARS_MAX: Final = 8


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is on disk now.

    Attributes:
        fetched_bytes: What had to come over the network; 0 if all of it was there.
        shadowed: Another revision is what its name means: that of the branch main.
    """

    plan: Plan
    path: Path
    fetched_bytes: int
    shadowed: bool


def pull_model(app: App, repo: str, revision: str, hub_dir: Path, progress: Mode) -> Pulled:
    """Bring ``repo`` into the cache at ``hub_dir``, showing how it goes.

    Raises:
        MlxdError: What stands in the way; what has come stays.
    """
    plan = make_plan(repo, revision, hub_dir)
    try:
        return _pull(app, plan, progress)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise MlxdError(
            Code.BUSY if full else Code.INTERNAL,
            f"cannot write to {error.filename or plan.folder}: {error.strerror}",
            hint=f"what has come is kept; mend that, then: mlxctl pull {repo}",
        ) from error


def _pull(app: App, plan: Plan, progress: Mode) -> Pulled:
    with only_pull(plan):
        check_disk(plan)
        missing = plan.missing()
        fetched = sum(file.size_bytes - part_bytes(plan, file) for file in missing)
        with _shown(app, plan, progress) as on_bytes:
            fetch(plan, on_bytes)
        path = link_snapshot(plan)
    main = plan.folder / "refs" / "main"
    shadowed = main.exists() and main.read_text(encoding="ascii").strip() != plan.commit
    return Pulled(plan=plan, path=path, fetched_bytes=fetched, shadowed=shadowed)


@contextmanager
def _shown(app: App, plan: Plan, mode: Mode) -> Iterator[OnBytes]:
    """As a load's progress: a bar for people, JSON lines for programs, or nothing."""
    if mode == "auto":
        mode = "bar" if app.err_is_terminal and not app.as_json else "none"
    files = large_files(plan)
    if mode == "none" or not files:
        yield _ignore
    elif mode == "json":
        yield _JsonLines(app, plan.repo, sum(file.size_bytes for file in files)).take
    else:
        from ctl.bar import make_download_bar  # noqa: PLC0415

        with make_download_bar(app.err, app.environ) as bar:
            tasks = _tasks(bar, files)

            def take(file: RemoteFile, count: int) -> None:
                bar.start_task(tasks[file.name])
                bar.advance(tasks[file.name], count)

            yield take


def _tasks(bar: "Progress", files: tuple[RemoteFile, ...]) -> "dict[str, TaskID]":
    """A bar a file, or one for all of them where a screen would be too small."""
    if len(files) > BARS_MAX:
        total = sum(file.size_bytes for file in files)
        together = bar.add_task(counted(len(files), "large file"), total=total, start=False)
        return dict.fromkeys((file.name for file in files), together)
    return {
        file.name: bar.add_task(file.name, total=file.size_bytes, start=False) for file in files
    }


class _JsonLines:
    """One line a whole percent."""

    def __init__(self, app: App, repo: str, total_bytes: int) -> None:
        self._app = app
        self._repo = repo
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._percent = -1
        self._lock = threading.Lock()

    def take(self, _file: RemoteFile, count: int) -> None:
        with self._lock:
            self._done_bytes += count
            percent = 100 * self._done_bytes // self._total_bytes
            if percent != self._percent:
                self._percent = percent
                self._say()

    def _say(self) -> None:
        step = {
            "model": self._repo,
            "phase": "pulling",
            "done_bytes": self._done_bytes,
            "total_bytes": self._total_bytes,
        }
        self._app.note(msgspec.json.encode({"v": 1, "progress": step}).decode())


def _ignore(_file: RemoteFile, _count: int) -> None:
    """Nobody looks."""


def pulled_page(pulled: Pulled) -> Page:
    """For people: what is there now, and the next step."""
    plan = pulled.plan
    size = f"{format_bytes(plan.total_bytes)} in {counted(len(plan.files), 'file')}"
    came = "all of it was here already"
    if pulled.fetched_bytes:
        came = f"{format_bytes(pulled.fetched_bytes)} fetched"
    lines = [Line(f"{plan.repo} is on disk: {size}, {came}")]
    if pulled.shadowed:
        lines.append(Line(f"Its name means the branch main. This one: mlxctl load {pulled.path}"))
    else:
        lines.append(Line(f"To talk to it: mlxctl run {plan.repo}", "dim"))
    return tuple(lines)


def pulled_shape(pulled: Pulled) -> dict[str, Any]:
    """The ``--json`` shape."""
    return {
        "v": 1,
        "model": pulled.plan.repo,
        "revision": pulled.plan.commit,
        "path": str(pulled.path),
        "total_bytes": pulled.plan.total_bytes,
        "fetched_bytes": pulled.fetched_bytes,
    }
