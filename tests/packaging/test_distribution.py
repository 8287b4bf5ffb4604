"""What is in the wheel and in the sdist: everything that runs, and nothing else."""

import configparser
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from tests.packaging.conftest import REPOSITORY

PROGRAMS = ("daemon", "ctl", "http_bridge", "launchd")


def kept(*under: str) -> set[str]:
    """Files of the checkout that git keeps, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    found = listed.stdout.decode().split("\0")
    return {path for path in found if path and (REPOSITORY / path).is_file()}


def test_the_wheel_has_every_file_of_the_programs_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == kept(*PROGRAMS)
    assert "daemon/models/glimpse/model.safetensors" in names
    assert "daemon/models/glimpse/chat_template.jinja" in names


def test_the_wheel_has_three_programs_and_its_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {PurePosixPath(n).parts[0] for n in archive.namelist() if ".dist-info/" in n}
        points = configparser.ConfigParser()
        points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = archive.read(f"{info}/METADATA").decode()
        license_text = archive.read(f"{info}/licenses/LICENSE")
    assert dict(points["console_scripts"]) == {
        "mlxd": "daemon.__main__:main",
        "mlxctl": "ctl.__main__:main",
        "mlx-bridge": "http_bridge.__main__:main",
    }
    assert license_text == (REPOSITORY / "LICENSE").read_bytes()
    assert "Requires-Python: >=3.11" in metadata


def test_nothing_in_the_wheel_knows_where_it_was_built(wheel: Path) -> None:
    place = re.compile(re.escape(str(REPOSITORY)).encode() + rb"\b|/(?:root|tmp/pip)[-/]")
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if place.search(archive.read(name))]
    assert found == []


def test_the_sdist_is_the_checkout(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    names = {member.name.partition("/")[2] for member in members}
    outside = {path for path in kept() if path.startswith((".ci/", ".github/"))}
    assert names == (kept() - outside) | {"PKG-INFO"}
    assert {member.mode & 0o022 for member in members} == {0}


def test_the_wheel_is_small_enough_to_send_by_mail(wheel: Path) -> None:
    assert wheel.stat().st_size < 10_000_000
