"""Taking models off the disk: what would go, and that nobody uses it."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ctl.app import App
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What would be removed.

    Attributes:
        folder: The repository's part of the cache.
        commits: The revisions that go; None takes the folder with all that is in it, what a
            pull has not finished included.
    """

    model: str
    hub_dir: Path
    folder: Path
    commits: tuple[str, ...] | None
    size_bytes: int


def find_removal(app: App, model: str, revision: str | None) -> Removal:
    """What removing ``model`` means.

    Raises:
        MlxdError: ``not_found`` if it is not in a Hugging Face cache, ``conflict`` if it is
            in memory.
    """
    for hub_dir in app.home.hub_dirs:
        folder = hub_dir / f"models--{model.replace('/', '--')}"
        if _is_there(folder) and "--" not in model and not model.startswith("."):
            removal = _removal(model, hub_dir, folder, revision)
            _check_unused(app, removal)
            return removal
    raise _not_there(app, model)


def remove(removal: Removal) -> None:
    """Remove it.

    Raises:
        MlxdError: ``internal`` if the system refuses.
    """
    try:
        if removal.commits is None:
            shutil.rmtree(removal.folder)
            shutil.rmtree(removal.hub_dir / ".locks" / removal.folder.name, ignore_errors=True)
        else:
            _cache(removal.hub_dir).delete_revisions(*removal.commits).execute()
    except OSError as error:
        raise MlxdError(
            Code.INTERNAL, f"cannot remove {error.filename}: {error.strerror}"
        ) from error


def _removal(model: str, hub_dir: Path, folder: Path, revision: str | None) -> Removal:
    if revision is None:
        size = sum(
            entry.stat().st_size
            for entry in (folder / "blobs").glob("*")
            if entry.is_file() and not entry.is_symlink()
        )
        return Removal(model=model, hub_dir=hub_dir, folder=folder, commits=None, size_bytes=size)
    info = _cache(hub_dir)
    repo = next(repo for repo in info.repos if Path(repo.repo_path) == folder.resolve())
    found = [
        one.commit_hash
        for one in repo.revisions
        if one.commit_hash.startswith(revision) or revision in one.refs
    ]
    if len(found) != 1:
        have = ", ".join(sorted(one.commit_hash[:12] for one in repo.revisions))
        raise MlxdError(
            Code.NOT_FOUND,
            f"'{revision}' is not one revision of {model} on this disk; there are {have}",
            field="revision",
        )
    return Removal(
        model=model,
        hub_dir=hub_dir,
        folder=folder,
        commits=(found[0],),
        size_bytes=info.delete_revisions(found[0]).expected_freed_size,
    )


def _cache(hub_dir: Path) -> "HFCacheInfo":
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415

    return scan_cache_dir(hub_dir)


def _check_unused(app: App, removal: Removal) -> None:
    """Refuse while the daemon has the model in memory."""
    from ctl.quick import ask  # noqa: PLC0415

    try:
        status = ask(app, c.GetStatus(id=1), c.StatusView)
    except MlxdError as error:
        if error.code is Code.NO_DAEMON:
            return
        raise
    place = os.path.realpath(removal.folder) + os.sep
    for resident in status.models:
        if resident.path.startswith(place) and _goes(resident.path, removal):
            raise MlxdError(
                Code.CONFLICT,
                f"{resident.name} is in memory ({resident.state})",
                hint=f"unload it first: mlxctl unload {resident.name}",
                field="model",
            )


def _is_there(folder: Path) -> bool:
    """Whether the folder is there in just this spelling, also where case does not matter: what
    is in memory is known by it."""
    try:
        return any(
            entry.name == folder.name and entry.is_dir() for entry in folder.parent.iterdir()
        )
    except OSError:
        return False


def _goes(path: str, removal: Removal) -> bool:
    return removal.commits is None or any(commit in path for commit in removal.commits)


def _not_there(app: App, model: str) -> MlxdError:
    """Why it is not ours to remove, where the daemon knows it."""
    from ctl.quick import ask  # noqa: PLC0415

    try:
        known = ask(app, c.ListModels(id=1), c.ModelsView).models
    except MlxdError:
        known = ()
    one = next((one for one in known if one.name == model), None)
    if one is None or one.source == "cache":
        return MlxdError(
            Code.NOT_FOUND,
            f"no model {model} is in the Hugging Face cache",
            hint="mlxctl models lists what there is",
            field="model",
        )
    if one.source == "alias":
        what = f"is an alias: it stands for {', then '.join(one.targets)}"
    elif one.source == "bundled":
        what = "belongs to mlxd itself and stays"
    else:
        what = f"lies in a folder of yours, {one.path}: only models that were pulled are removed"
    return MlxdError(Code.INVALID_REQUEST, f"{model} {what}", field="model")
