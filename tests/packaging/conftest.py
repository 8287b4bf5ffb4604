"""What is distributed, built once from this checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "--quiet", "--out-dir", folder, REPOSITORY], check=True)
    return folder


@pytest.fixture(scope="session")
def wheel(distribution: Path) -> Path:
    (found,) = distribution.glob("mlxd-*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(distribution: Path) -> Path:
    (found,) = distribution.glob("mlxd-*.tar.gz")
    return found
