"""The manifest notices what happens to a folder after it was built."""

import os
from pathlib import Path

import pytest

from tests.models.manifest import (
    MANIFEST_NAME,
    FolderRecord,
    damage,
    read_manifest,
    record_folder,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built = tmp_path / "model"
    (built / "voices").mkdir(parents=True)
    (built / "config.json").write_text("{}")
    (built / "voices" / "one.bin").write_bytes(b"abcd")
    return built


@pytest.fixture
def record(folder: Path) -> FolderRecord:
    return record_folder(folder, 3, {"a.whl": "00"})


def test_describes_the_files(record: FolderRecord) -> None:
    one = record.files["voices/one.bin"]
    # `printf abcd | sha256sum`
    assert one.sha256 == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
    assert (one.size_bytes, record.size_bytes, record.converter_version) == (4, 6, 3)


def test_survives_writing_and_reading(tmp_path: Path, record: FolderRecord) -> None:
    write_manifest(tmp_path, {"model": record})
    assert read_manifest(tmp_path) == {"model": record}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [MANIFEST_NAME]


@pytest.mark.parametrize("content", [None, "", "[]", '{"model": {"files": 3}}'])
def test_an_unusable_manifest_is_an_empty_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MANIFEST_NAME).write_text(content)
    assert read_manifest(tmp_path) == {}


def test_an_untouched_folder_is_whole(folder: Path, record: FolderRecord) -> None:
    assert damage(folder, record) is None
    assert damage(folder, record, thorough=True) is None


def test_a_missing_file(folder: Path, record: FolderRecord) -> None:
    (folder / "config.json").unlink()
    assert damage(folder, record) == "config.json is missing"


def test_a_shortened_file(folder: Path, record: FolderRecord) -> None:
    os.truncate(folder / "voices" / "one.bin", 3)
    assert damage(folder, record) == "voices/one.bin has 3 bytes instead of 4"


def test_an_added_file(folder: Path, record: FolderRecord) -> None:
    (folder / ".DS_Store").touch()
    assert damage(folder, record) is None
    (folder / "model-2.safetensors").touch()
    assert damage(folder, record) == "model-2.safetensors does not belong there"


def test_a_changed_file_of_the_same_size(folder: Path, record: FolderRecord) -> None:
    (folder / "voices" / "one.bin").write_bytes(b"abcX")
    os.utime(folder / "voices" / "one.bin", ns=(0, 0))
    assert damage(folder, record) == "voices/one.bin has other contents than when it was built"


def test_a_copy_with_new_times_is_whole(folder: Path, record: FolderRecord) -> None:
    os.utime(folder / "voices" / "one.bin", ns=(0, 0))
    assert damage(folder, record) is None


def test_a_change_that_kept_size_and_time_takes_hashing(folder: Path, record: FolderRecord) -> None:
    path = folder / "config.json"
    mtime_ns = path.stat().st_mtime_ns
    path.write_text("[]")
    os.utime(path, ns=(mtime_ns, mtime_ns))
    assert damage(folder, record) is None
    assert damage(folder, record, thorough=True) is not None
