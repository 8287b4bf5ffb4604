"""Models on the Hugging Face hub: what a repository holds, and what of it a model needs.

Imported only by verbs that speak to the hub: the library behind it takes longer to import
than most verbs take to run.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from daemon.wire.errors import Code, MlxdError

ALLOWED: Final = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.md", "LICENSE*",
)  # fmt: skip
"""Weights that hold no code, what describes them, and tokenizers. Never pickles."""
REFUSED: Final = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.gguf", "onnx/*", "original/*")
"""Not needed, or able to run code when it is read."""
_AGAIN: Final = "look at the network; the same command again goes on where this one stopped"


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a repository.

    Attributes:
        blob: The name of its content in the cache: the SHA-256 of large files.
        sha256: To check the content with; None for small files, which git names.
    """

    name: str
    size_bytes: int
    blob: str
    sha256: str | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What pulling a repository means.

    Attributes:
        commit: The revision, as the hub resolved it.
        hub_dir: The Hugging Face cache that it goes into.
    """

    repo: str
    revision: str
    commit: str
    hub_dir: Path
    files: tuple[RemoteFile, ...]

    @property
    def folder(self) -> Path:
        """The repository's part of the cache."""
        return self.hub_dir / f"models--{self.repo.replace('/', '--')}"

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def blob(self, file: RemoteFile) -> Path:
        """Where the content of ``file`` belongs."""
        return self.folder / "blobs" / file.blob

    def missing(self) -> tuple[RemoteFile, ...]:
        """The files whose content is not in the cache."""
        return tuple(file for file in self.files if not self.blob(file).exists())


def make_plan(repo: str, revision: str, hub_dir: Path) -> Plan:
    """Ask the hub what ``repo`` holds.

    Raises:
        MlxdError: ``not_found``, ``unauthorized`` for gated ones, ``busy`` if the hub cannot
            be reached, ``incompatible`` if it holds no safetensors model.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    with hub_faults(repo, revision):
        api = HfApi()
        commit = api.model_info(repo, revision=revision).sha
        listed = api.list_repo_tree(repo, recursive=True, revision=commit)
        entries = [entry for entry in listed if isinstance(entry, RepoFile)]
    assert commit is not None
    _check_is_model(repo, [entry.path for entry in entries])
    return Plan(
        repo=repo,
        revision=revision,
        commit=commit,
        hub_dir=hub_dir,
        files=tuple(_file(entry) for entry in entries if _wanted(entry.path)),
    )


def link_snapshot(plan: Plan) -> Path:
    """Fetch the small files and make the snapshot's folder; large content must be there."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    with hub_faults(plan.repo, plan.revision):
        place = snapshot_download(
            plan.repo,
            revision=plan.revision,
            cache_dir=plan.hub_dir,
            allow_patterns=list(ALLOWED),
            ignore_patterns=list(REFUSED),
        )
    return Path(place)


def _wanted(path: str) -> bool:
    """As the library chooses by the same patterns."""
    return _matches(path, ALLOWED) and not _matches(path, REFUSED)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _file(entry: object) -> RemoteFile:
    path, size, lfs = (getattr(entry, name) for name in ("path", "size", "lfs"))
    return RemoteFile(
        name=path,
        size_bytes=lfs.size if lfs else size,
        blob=lfs.sha256 if lfs else getattr(entry, "blob_id"),  # noqa: B009 - an untyped library
        sha256=lfs.sha256 if lfs else None,
    )


def _check_is_model(repo: str, names: list[str]) -> None:
    if not any(name.endswith(".safetensors") for name in names):
        gguf = any(name.lower().endswith(".gguf") for name in names)
        what = "GGUF files, which MLX does not read" if gguf else "no safetensors weights"
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"{repo} holds {what}",
            hint="look for an MLX conversion of it, for example by mlx-community",
            field="repo",
        )
    if "config.json" not in names:
        raise MlxdError(
            Code.INCOMPATIBLE, f"{repo} has no config.json: it is no whole model", field="repo"
        )


@contextmanager
def hub_faults(repo: str, revision: str) -> Iterator[None]:
    """What goes wrong between here and the hub, in the words of this program."""
    import httpx2  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except errors.HFValidationError as error:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"'{repo}' is no repository's name: it looks like mlx-community/SmolLM2-135M-Instruct",
            field="repo",
        ) from error
    except errors.GatedRepoError as error:
        raise _gated(repo) from error
    except errors.RepositoryNotFoundError as error:
        raise MlxdError(
            Code.NOT_FOUND,
            f"the hub knows no model {repo}, or it is private",
            hint="check the name on the hub; for a private one set HF_TOKEN, or run: hf auth login",
            field="repo",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MlxdError(
            Code.NOT_FOUND, f"{repo} has no revision '{revision}'", field="revision"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise _unreachable("HF_HUB_OFFLINE is set", "unset it to pull") from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(str(error.__cause__ or error)) from error
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except httpx2.HTTPError as error:
        raise _unreachable(str(error) or type(error).__name__) from error


def _gated(repo: str) -> MlxdError:
    return MlxdError(
        Code.UNAUTHORIZED,
        f"{repo} is gated: its owner wants to know who uses it",
        hint="accept its terms on the hub, then set HF_TOKEN or run: hf auth login",
        field="repo",
    )


def _refused(repo: str, error: Exception) -> MlxdError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        return _gated(repo)
    return _unreachable(f"it answered with status {status}")


def _unreachable(why: str, hint: str = _AGAIN) -> MlxdError:
    first = why.strip().splitlines()[0] if why.strip() else "no reason was given"
    first = re.sub(r"^\[Errno -?\d+\] ", "", first)
    return MlxdError(Code.BUSY, f"the hub cannot be reached: {first}", hint=hint)
