"""Where the files of the three programs lie, and how private folders are made.

This is the one place that turns environment variables into paths; the ``__main__`` modules
pass ``os.environ`` in.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from daemon.wire.errors import Code, MlxdError

SOCKET_PATH_BYTES_MAX: Final = 103
"""macOS holds 104 bytes with the NUL in ``sockaddr_un.sun_path`` (Linux 108); the smaller
one binds everywhere, so that a home that works here works there."""


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """The places of one installation; nothing is created by naming them.

    Attributes:
        root: What ``mlxctl status`` shows as "home": the state folder.
        config_file: ``config.toml``; it need not exist.
        events_dir: The event log: made by the daemon, never deleted by it.
        run_dir: Sockets and locks, 0700, short enough for socket paths.
        logs_dir: Text logs of daemon, bridge and workers.
        cache_dir: What can be made again: prefix caches and the like.
        hub_dirs: Hugging Face caches to look for models in, first match wins.
    """

    root: Path
    config_file: Path
    events_dir: Path
    run_dir: Path
    logs_dir: Path
    cache_dir: Path
    hub_dirs: tuple[Path, ...]

    @property
    def control_socket(self) -> Path:
        """The daemon's socket.

        Raises:
            MlxdError: ``invalid_request`` if its path is too long to bind.
        """
        return self.socket("mlxd.sock")

    @property
    def daemon_lock(self) -> Path:
        """Held (flock) by the one running daemon."""
        return self.run_dir / "mlxd.lock"

    @property
    def bridge_lock(self) -> Path:
        """Held (flock) by the bridge that a service manager runs."""
        return self.run_dir / "mlx-bridge.lock"

    @property
    def handover_mark(self) -> Path:
        """Held (flock) by whoever restarts the daemon as planned: told to end, it leaves
        its models in memory for the next one."""
        return self.run_dir / "handover.lock"

    @property
    def daemon_log(self) -> Path:
        """What the daemon logs as a service; ``boot_log`` of it is what it says before."""
        return self.logs_dir / "daemon.log"

    @property
    def bridge_log(self) -> Path:
        """What the bridge logs as a service."""
        return self.logs_dir / "bridge.log"

    @property
    def prefix_dir(self) -> Path:
        """What workers computed of prompts, a folder a model; made by the first to write."""
        return self.cache_dir / "prefix"

    def worker_lock(self, worker_id: str) -> Path:
        """Held (flock) by a worker for its life."""
        return self.run_dir / f"w-{worker_id}.lock"

    def worker_socket(self, worker_id: str) -> Path:
        """A worker's socket.

        Raises:
            MlxdError: ``invalid_request`` if its path is too long to bind.
        """
        return self.socket(f"w-{worker_id}.sock")

    def socket(self, name: str) -> Path:
        """A socket in the runtime folder, checked to be short enough.

        Raises:
            MlxdError: ``invalid_request`` if the path is longer than 103 bytes.
        """
        path = self.run_dir / name
        size_bytes = len(os.fsencode(path))
        if size_bytes > SOCKET_PATH_BYTES_MAX:
            hint = "set MLXD_HOME to a shorter folder, for example /tmp/mlxd-$USER or ~/.mlxd"
            raise MlxdError(
                Code.INVALID_REQUEST,
                f"the socket path {path} has {size_bytes} bytes, and the system allows "
                f"{SOCKET_PATH_BYTES_MAX}; {hint}",
                hint=hint,
                field="MLXD_HOME",
            )
        return path


def find_home(environ: Mapping[str, str], platform: str) -> Home:
    """The places for this user.

    ``MLXD_HOME`` puts everything under one folder. Without it: macOS takes
    ``~/Library/Application Support|Logs|Caches``, other systems the XDG base directories
    (https://specifications.freedesktop.org/basedir-spec/latest/).

    Args:
        environ: ``os.environ`` or what stands for it; ``HOME`` is needed.
        platform: ``sys.platform``.

    Raises:
        MlxdError: ``invalid_request`` if ``MLXD_HOME`` is relative, or if there is neither
            ``MLXD_HOME`` nor ``HOME``.
    """
    hub_dirs = _hub_dirs(environ)
    if given := environ.get("MLXD_HOME"):
        root = _absolute(given, "MLXD_HOME", environ)
        return _home(
            root, root / "config.toml", root / "run", root / "logs", root / "cache", hub_dirs
        )
    user = _user_home(environ)
    if platform == "darwin":
        library = user / "Library"
        root = library / "Application Support" / "mlxd"
        return _home(
            root,
            root / "config.toml",
            root / "run",
            library / "Logs" / "mlxd",
            library / "Caches" / "mlxd",
            hub_dirs,
        )
    root = _xdg(environ, "XDG_STATE_HOME", user / ".local" / "state") / "mlxd"
    runtime = _xdg(environ, "XDG_RUNTIME_DIR", root / "run")
    return _home(
        root,
        _xdg(environ, "XDG_CONFIG_HOME", user / ".config") / "mlxd" / "config.toml",
        runtime if runtime == root / "run" else runtime / "mlxd",
        root / "logs",
        _xdg(environ, "XDG_CACHE_HOME", user / ".cache") / "mlxd",
        hub_dirs,
    )


def make_private(directory: Path) -> Path:
    """Make a folder that only its owner can enter, or check that it is one.

    Parents are made with the same mode. The mode is given to ``mkdir``, so that there is no
    moment at which somebody else could enter.

    Returns:
        ``directory``.

    Raises:
        MlxdError: ``invalid_request`` if it cannot be made, is not a folder, belongs to
            another user, or lets group or others in. A symbolic link is followed if this
            user made it.
    """
    try:
        _make_parents(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        link, found = directory.lstat(), directory.stat()
    except OSError as error:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"cannot make the folder {directory}: {error.strerror}; make it yourself, or set "
            "MLXD_HOME to a folder that you may write to",
            field=str(directory),
        ) from error
    problem, hint = _exposure(directory, link, found)
    if problem:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"{directory} {problem}; {hint}",
            hint=hint,
            field=str(directory),
        )
    return directory


def _make_parents(directory: Path) -> None:
    if not directory.is_dir():
        _make_parents(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _exposure(directory: Path, link: os.stat_result, found: os.stat_result) -> tuple[str, str]:
    """Why a folder is not private, and what to do about it; two empty texts if it is."""
    for owner in (link.st_uid, found.st_uid):
        if owner != os.geteuid():
            return (
                f"belongs to user {owner}, and this is user {os.geteuid()}",
                "set MLXD_HOME to a folder of your own",
            )
    if stat.S_IMODE(found.st_mode) & 0o077:
        return (
            f"can be entered by others (mode {stat.S_IMODE(found.st_mode):04o})",
            f"run: chmod 700 '{directory}'",
        )
    return "", ""


def _home(
    root: Path, config_file: Path, run: Path, logs: Path, cache: Path, hub_dirs: tuple[Path, ...]
) -> Home:
    return Home(
        root=root,
        config_file=config_file,
        events_dir=root / "events",
        run_dir=run,
        logs_dir=logs,
        cache_dir=cache,
        hub_dirs=hub_dirs,
    )


def _hub_dirs(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Hugging Face's rule: HF_HUB_CACHE, else HF_HOME/hub, else XDG or ~/.cache/huggingface."""
    if given := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return (_expanded(given, environ),)
    if given := environ.get("HF_HOME"):
        return (_expanded(given, environ) / "hub",)
    if not environ.get("HOME"):
        return ()
    cache = _xdg(environ, "XDG_CACHE_HOME", _user_home(environ) / ".cache")
    return (cache / "huggingface" / "hub",)


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    """A base directory; the specification says to ignore relative ones."""
    given = environ.get(name, "")
    return Path(given) if given.startswith("/") else default


def _user_home(environ: Mapping[str, str]) -> Path:
    given = environ.get("HOME", "")
    if not given.startswith("/"):
        raise MlxdError(
            Code.INVALID_REQUEST,
            "neither MLXD_HOME nor HOME is set; set MLXD_HOME to an absolute folder",
            field="HOME",
        )
    return Path(given)


def _expanded(given: str, environ: Mapping[str, str]) -> Path:
    if given == "~" or given.startswith("~/"):
        return _user_home(environ) / given[2:]
    return Path(given)


def _absolute(given: str, name: str, environ: Mapping[str, str]) -> Path:
    path = _expanded(given, environ)
    if not path.is_absolute() or "\0" in given:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"{name} is {given!r}; set it to an absolute folder, for example ~/.mlxd",
            field=name,
        )
    return path
