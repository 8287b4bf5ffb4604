"""The import-name guard: a stranger's ``daemon`` is found out before it answers."""

import sys
from pathlib import Path

import anyio
import pytest

from tests.ctl.conftest import REPO_ROOT

pytestmark = pytest.mark.anyio


async def imported(*path: Path) -> tuple[int, str]:
    done = await anyio.run_process(
        [sys.executable, "-S", "-c", "import ctl"],  # -S: an installed mlxd is not seen
        check=False,
        cwd="/",
        env={"PYTHONPATH": ":".join(map(str, path))},
    )
    return done.returncode, done.stderr.decode()


async def test_ctl_beside_its_own_daemon() -> None:
    assert await imported(REPO_ROOT) == (0, "")


async def test_another_distribution_has_a_daemon_before_ours(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "__init__.py").write_text("raise SystemExit('it ran')")

    code, err = await imported(tmp_path, REPO_ROOT)

    assert code == 1
    assert f"leads to {tmp_path}/daemon; install mlxd in an environment of its own" in err


async def test_a_daemon_package_that_was_installed_over_ours(tmp_path: Path) -> None:
    for name in ("ctl", "daemon"):
        (tmp_path / name).mkdir()
    copy = (REPO_ROOT / "ctl" / "__init__.py").read_text()
    (tmp_path / "ctl" / "__init__.py").write_text(copy)
    (tmp_path / "daemon" / "__init__.py").write_text("")

    code, err = await imported(tmp_path)

    assert code == 1
    assert f"leads to {tmp_path}/daemon; install mlxd" in err


async def test_ctl_alone(tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    (lonely / "ctl").mkdir(parents=True)
    (lonely / "ctl" / "__init__.py").write_text((REPO_ROOT / "ctl" / "__init__.py").read_text())

    code, err = await imported(lonely)

    assert code == 1
    assert "leads to nothing" in err
