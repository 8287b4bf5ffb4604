"""What is refused before a byte is fetched; the rest in tests/ctl/verbs/test_pull.py."""

import shutil
from pathlib import Path

import pytest

from ctl.download import check_disk, large_files, part_bytes
from ctl.hub import Plan, RemoteFile
from daemon.wire.errors import Code, MlxdError

SHA = "ab" * 32


def plan(hub_dir: Path, *sizes: int) -> Plan:
    files = tuple(
        RemoteFile(name=f"model-{at}.safetensors", size_bytes=size, blob=f"{SHA}{at}", sha256=SHA)
        for at, size in enumerate(sizes)
    )
    return Plan(repo="org/m", revision="main", commit="a" * 40, hub_dir=hub_dir, files=files)


def test_a_model_that_does_not_fit_on_the_disk_is_refused_with_the_sum(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(MlxdError) as caught:
        check_disk(plan(tmp_path / "not" / "there" / "yet", free, 10**18))

    assert caught.value.code is Code.BUSY
    assert caught.value.fault.message.startswith("org/m needs 1000 PB more and the disk of ")
    assert f"{tmp_path} has " in caught.value.fault.message


def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    wanted = plan(tmp_path, 10**18, 20_000_000)
    blobs = wanted.folder / "blobs"
    blobs.mkdir(parents=True)
    wanted.blob(wanted.files[0]).touch()

    check_disk(wanted)
    assert large_files(wanted) == wanted.files[1:]


def test_an_unfinished_part_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    wanted = plan(tmp_path, 20_000_000)
    (wanted.folder / "blobs").mkdir(parents=True)
    part = wanted.folder / "blobs" / f"{SHA}0.mlxctl.incomplete"
    assert part_bytes(wanted, wanted.files[0]) == 0
    part.write_bytes(b"x" * 7)
    assert part_bytes(wanted, wanted.files[0]) == 7


def test_small_and_very_large_files_are_the_library_s(tmp_path: Path) -> None:
    assert large_files(plan(tmp_path, 1_000, 60_000_000_000)) == ()
