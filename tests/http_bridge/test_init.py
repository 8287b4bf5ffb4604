"""The import-name guard, and what importing the bridge must not load."""

import sys
from pathlib import Path

import anyio
import pytest

pytestmark = pytest.mark.anyio

REPO_ROOT = Path(__file__).parents[2]


async def run(code: str, *path: Path) -> tuple[int, str]:
    done = await anyio.run_process(
        [sys.executable, "-c", code],
        check=False,
        cwd="/",
        env={"PYTHONPATH": ":".join(map(str, path))},
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_another_distribution_has_a_daemon_before_ours(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "__init__.py").write_text("raise SystemExit('it ran')")

    code, said = await run("import http_bridge", tmp_path, REPO_ROOT)

    assert code == 1
    assert f"leads to {tmp_path}/daemon; install mlxd in an environment of its own" in said


async def test_of_the_daemon_only_the_wire_is_imported() -> None:
    code, said = await run(
        "import sys, http_bridge.__main__\n"
        "print(sorted({'.'.join(n.split('.')[:2]) for n in sys.modules"
        " if n.split('.')[0] in {'daemon', 'mlx', 'mlx_lm', 'mlx_vlm', 'PIL'}}))",
        REPO_ROOT,
    )
    assert (code, said.strip()) == (0, "['daemon', 'daemon.wire']")
