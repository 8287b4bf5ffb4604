"""The import names are common words: each package must be mlxd's, or say so and stop."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGES, REPOSITORY

UV = Path(sys.executable).parent / "uv"
IMPORT_ALL = "import daemon, ctl, http_bridge, launchd; print(daemon.__file__)"


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """``code`` in an interpreter that sees the standard library and ``path`` alone."""
    program = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False
    )


def last_line(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 1
    return process.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into site-packages."""
    if not UV.exists():
        pytest.skip("needs uv, which `make setup` installs")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, REPOSITORY], check=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def site(wheel: Path, tmp_path: Path) -> Path:
    """A copy of its own of the installed files."""
    return Path(shutil.copytree(wheel, tmp_path / "site"))


def foreign(folder: Path, name: str) -> Path:
    """A folder with somebody else's package of this name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder


def test_an_editable_install_works() -> None:
    process = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT_ALL], capture_output=True, text=True, check=True
    )
    assert Path(process.stdout.strip()) == REPOSITORY / "daemon" / "__init__.py"


def test_the_source_tree_works_without_an_install() -> None:
    process = run(IMPORT_ALL, REPOSITORY)
    assert process.stderr == ""
    assert Path(process.stdout.strip()) == REPOSITORY / "daemon" / "__init__.py"


def test_a_wheel_works(site: Path) -> None:
    process = run(IMPORT_ALL, site)
    assert process.stderr == ""
    assert Path(process.stdout.strip()) == site / "daemon" / "__init__.py"


def test_a_wheel_holds_the_programs_and_none_of_the_tests(wheel: Path) -> None:
    found = {path.name for path in wheel.iterdir()}
    assert found == {*PACKAGES, "mlxd-0.1.0.dist-info"}
    programs = (wheel / "mlxd-0.1.0.dist-info" / "entry_points.txt").read_text().splitlines()
    assert sorted(line.split(" = ")[0] for line in programs if " = " in line) == [
        "mlx-bridge",
        "mlxctl",
        "mlxd",
    ]


@pytest.mark.parametrize("name", ["ctl", "http_bridge"])
def test_a_foreign_daemon_that_comes_first_is_named(name: str, tmp_path: Path) -> None:
    stranger = foreign(tmp_path, "daemon")
    said = last_line(run(f"import {name}", stranger, REPOSITORY))
    assert said.startswith("ImportError: ")
    assert str(stranger / "daemon") in said
    assert said.endswith("install mlxd in an environment of its own")


@pytest.mark.parametrize("file_name", ["daemon.py", "pidfile.py"])
def test_python_daemon_in_the_same_folder_is_named(file_name: str, site: Path) -> None:
    (site / "daemon" / file_name).write_text("")
    said = last_line(run("import daemon.wire.errors", site))
    assert said.startswith(f"ImportError: another distribution has put {file_name} into mlxd's")
    assert said.endswith("install mlxd in an environment of its own")


@pytest.mark.parametrize(("name", "program"), [("ctl", "mlxctl"), ("http_bridge", "mlx-bridge")])
def test_a_daemon_package_that_was_installed_over_ours_is_named(
    name: str, program: str, site: Path
) -> None:
    (site / "daemon" / "__init__.py").write_text('"""Somebody else\'s."""\n')
    said = last_line(run(f"import {name}", site))
    assert said.startswith(f"ImportError: {program} in {site / name} needs mlxd's own")


@pytest.mark.parametrize("name", ["daemon", "launchd"])
def test_a_copy_in_another_distribution_is_refused(name: str, wheel: Path, tmp_path: Path) -> None:
    shutil.copytree(wheel / name, tmp_path / name)
    said = last_line(run(f"import {name}", tmp_path))
    assert said.startswith(f"ImportError: the '{name}' package in {tmp_path / name} is not part of")
    assert said.endswith("install mlxd in an environment of its own")
