"""One contract for every disk, and what only the real or only the faulty one does."""

import errno
import os
import stat
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from daemon.eventlog.disk import Barrier, Disk, OsDisk, put_file, write_all
from tests.fakes.disk import Crash, Faults, FaultyDisk


@pytest.fixture(params=["os", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return OsDisk() if request.param == "os" else FaultyDisk(Random(1))


@pytest.fixture
def folder(tmp_path: Path, disk: Disk) -> Path:
    folder = tmp_path / "a" / "events"
    disk.make_folder(folder)
    return folder


def test_a_folder_can_be_made_twice_and_begins_empty(disk: Disk, folder: Path) -> None:
    disk.make_folder(folder)
    assert disk.names(folder) == []
    assert disk.names(folder / "none") == []


def test_names_are_sorted(disk: Disk, folder: Path) -> None:
    for name in ("b", "c", "a"):
        put_file(disk, folder / name, b"x")
    assert disk.names(folder) == ["a", "b", "c"]


def test_bytes_are_read_back_where_they_were_written(disk: Disk, folder: Path) -> None:
    file = disk.open(folder / "f", "create")
    assert file.write(0, b"hello world") == 11
    assert file.write(6, b"WORLD!") == 6
    assert disk.read(folder / "f", 0, 100) == b"hello WORLD!"
    assert disk.read(folder / "f", 6, 3) == b"WOR"
    assert disk.read(folder / "f", 12, 3) == b""
    assert disk.size(folder / "f") == 12
    file.sync()
    file.close()


def test_truncating_takes_the_end_away(disk: Disk, folder: Path) -> None:
    file = disk.open(folder / "f", "create")
    write_all(file, 0, b"0123456789")
    file.truncate(4)
    file.sync()
    write_all(file, 4, b"x")
    file.close()
    assert disk.read(folder / "f", 0, 100) == b"0123x"


def test_the_modes_of_opening(disk: Disk, folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open(folder / "f", "existing")
    put_file(disk, folder / "f", b"old")
    with pytest.raises(FileExistsError):
        disk.open(folder / "f", "create")
    file = disk.open(folder / "f", "existing")
    assert file.write(3, b"er") == 2
    file.close()
    assert disk.read(folder / "f", 0, 9) == b"older"
    disk.open(folder / "f", "replace").close()
    assert disk.size(folder / "f") == 0
    disk.open(folder / "g", "replace").close()
    with pytest.raises(FileNotFoundError):
        disk.open(folder / "none" / "f", "create")


def test_renaming_replaces(disk: Disk, folder: Path) -> None:
    put_file(disk, folder / "f", b"new")
    put_file(disk, folder / "g", b"old")
    disk.rename(folder / "f", folder / "g")
    disk.sync_folder(folder)
    assert disk.names(folder) == ["g"]
    assert disk.read(folder / "g", 0, 9) == b"new"
    with pytest.raises(FileNotFoundError):
        disk.rename(folder / "f", folder / "g")


def test_removing(disk: Disk, folder: Path) -> None:
    put_file(disk, folder / "f", b"x")
    disk.remove(folder / "f")
    assert disk.names(folder) == []
    for missing in (disk.remove, disk.size, lambda path: disk.read(path, 0, 1)):
        with pytest.raises(FileNotFoundError):
            missing(folder / "f")
    with pytest.raises(FileNotFoundError):
        disk.sync_folder(folder / "none")


def test_one_holds_the_lock(disk: Disk, folder: Path) -> None:
    lock = disk.lock(folder)
    assert lock is not None
    assert disk.lock(folder) is None
    lock.release()
    again = disk.lock(folder)
    assert again is not None
    again.release()


def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    disk = OsDisk()
    disk.make_folder(tmp_path / "events")
    put_file(disk, tmp_path / "events" / "f", b"x")
    assert stat.S_IMODE((tmp_path / "events").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "events" / "f").stat().st_mode) == 0o600


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        OsDisk().open(tmp_path / "link", "replace")
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_refused_barrier_is_said_once_and_replaced() -> None:
    calls: list[str] = []

    def strong(descriptor: int) -> None:
        calls.append("strong")
        raise OSError(errno.ENOTSUP, "not supported")

    barrier = Barrier(strong, lambda descriptor: calls.append("weak"))
    with capture_logs() as logs:
        barrier(3)
        barrier(3)
    assert calls == ["strong", "weak", "weak"]
    assert [entry["event"] for entry in logs] == ["disk.sync_weaker"]


def test_a_failed_barrier_is_not_replaced() -> None:
    def strong(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    barrier = Barrier(strong, lambda descriptor: pytest.fail("a failed sync was called good"))
    with pytest.raises(OSError, match="input/output"):
        barrier(3)


# --- the faulty disk ------------------------------------------------------------------


def test_power_loss_keeps_what_was_synced_and_anything_of_the_rest() -> None:
    path = Path("/d/f")
    seen: set[bytes] = set()
    for seed in range(200):
        disk = FaultyDisk(Random(seed))
        disk.make_folder(path.parent)
        file = disk.open(path, "create")
        write_all(file, 0, b"a" * 700)
        file.sync()
        disk.sync_folder(path.parent)
        write_all(file, 700, b"b" * 1000)
        found = disk.after_power_loss().contents(path)
        assert found[:700] == b"a" * 700
        assert set(found[700:]) <= set(b"b\0")
        seen.add(found[700:])
    assert b"" in seen
    assert b"b" * 1000 in seen
    assert any(b"\0b" in tail for tail in seen), "a later sector without an earlier one"


def test_power_loss_may_take_a_name_that_was_not_synced() -> None:
    path = Path("/d/f")
    there = set()
    for seed in range(50):
        disk = FaultyDisk(Random(seed))
        disk.make_folder(path.parent)
        disk.open(path, "create").sync()
        there.add(bool(disk.after_power_loss().names(path.parent)))
    assert there == {True, False}


def test_a_rename_is_whole_or_did_not_happen() -> None:
    folder = Path("/d")
    seen = set()
    for seed in range(50):
        disk = FaultyDisk(Random(seed))
        disk.make_folder(folder)
        put_file(disk, folder / "f", b"new")
        put_file(disk, folder / "g", b"old")
        disk.sync_folder(folder)
        disk.rename(folder / "f", folder / "g")
        after = disk.after_power_loss()
        seen.add(tuple((name, after.contents(folder / name)) for name in after.names(folder)))
    assert seen == {(("f", b"new"), ("g", b"old")), (("g", b"new"),)}


def test_a_failed_sync_forgets_and_the_next_one_lies() -> None:
    path = Path("/d/f")
    lost = 0
    for seed in range(50):
        disk = FaultyDisk(Random(seed))
        disk.make_folder(path.parent)
        file = disk.open(path, "create")
        disk.sync_folder(path.parent)
        write_all(file, 0, b"x" * 600)
        disk.fail_next["sync"] = errno.EIO
        with pytest.raises(OSError, match="error"):
            file.sync()
        file.sync()
        lost += disk.after_power_loss().contents(path) != b"x" * 600
    assert lost > 10


def test_faults_and_crashes_come_when_asked_for() -> None:
    path = Path("/d/f")
    disk = FaultyDisk(Random(1), faults=Faults(no_space=1.0), crash_at=3)
    disk.make_folder(path.parent)
    file = disk.open(path, "create")
    with pytest.raises(OSError, match="space"):
        file.write(0, b"x")
    with pytest.raises(Crash):
        file.sync()
    full = FaultyDisk(Random(1), capacity_bytes=5)
    full.make_folder(path.parent)
    file = full.open(path, "create")
    assert file.write(0, b"1234567") == 5
    with pytest.raises(OSError, match="space"):
        file.write(5, b"67")
    assert file.write(0, b"abc") == 3
