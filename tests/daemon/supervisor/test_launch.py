"""Starting workers: what they see, and what they leave."""

import os
from pathlib import Path

import anyio
import pytest

from daemon.supervisor import launch
from daemon.supervisor.launch import Launcher, bound_logs, wait_listening, worker_env
from daemon.wire.errors import MlxdError


def test_workers_see_no_keys_and_no_python_paths() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/ada",
        "HF_HOME": "/models",
        "HF_TOKEN": "secret",
        "OPENAI_API_KEY": "secret",
        "PYTHONPATH": "/elsewhere",
        "LD_PRELOAD": "/evil.so",
    }
    env = worker_env(environ, {"OPENBLAS_NUM_THREADS": "1"})
    assert env["PATH"] == "/bin"
    assert env["HF_HOME"] == "/models"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["OPENBLAS_NUM_THREADS"] == "1"
    assert not {"HF_TOKEN", "OPENAI_API_KEY", "PYTHONPATH", "LD_PRELOAD"} & env.keys()


def test_the_configuration_has_the_last_word() -> None:
    assert worker_env({"PATH": "/bin"}, {"PATH": "/opt/bin"})["PATH"] == "/opt/bin"


def test_logs_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    for number in range(launch.LOGS_MAX + 5):
        log = tmp_path / f"worker-w{number}.log"
        log.write_text("x")
        os.utime(log, (number, number))
    (tmp_path / "w-w2.lock").touch()
    newest = tmp_path / f"worker-w{launch.LOGS_MAX + 4}.log"
    with newest.open("ab") as writer:
        writer.write(b"line\n" * (launch.LOG_BYTES_MAX // 5))
        writer.write(b"the last\n")
        writer.flush()
        bound_logs(tmp_path, tmp_path)
        writer.write(b"goes on\n")
    left = list(tmp_path.glob("worker-*.log"))
    assert len(left) == launch.LOGS_MAX - 1 + 1
    assert (tmp_path / "worker-w2.log").exists(), "its worker lives"
    assert not (tmp_path / "worker-w5.log").exists()
    lines = newest.read_text().splitlines()
    assert lines[-2:] == ["the last", "goes on"]
    assert set(lines[:-2]) == {"line"}, "whole lines"
    assert newest.stat().st_size <= launch.LOG_BYTES_MAX // 4 + len("goes on\n")


def test_a_log_that_cannot_be_looked_at_is_left_alone(tmp_path: Path) -> None:
    """One is renamed as a spare is handed over, while another thread goes through them all."""
    (tmp_path / "worker-s1.log").symlink_to(tmp_path / "gone")
    (tmp_path / "worker-w1.log").mkdir()
    long = tmp_path / "worker-w2.log"
    long.write_bytes(b"line\n" * launch.LOG_BYTES_MAX)
    bound_logs(tmp_path, tmp_path)
    assert long.stat().st_size <= launch.LOG_BYTES_MAX // 4


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "ended before it listened"),
        ("echo hello; sleep 60", "said b'hello"),
    ],
)
async def test_a_worker_that_does_not_listen_is_told_of(
    tmp_path: Path, script: str, said: str
) -> None:
    launcher = Launcher(tmp_path, tmp_path, ("/bin/sh", "-c", script), {"PATH": "/bin:/usr/bin"})
    process = await anyio.to_thread.run_sync(launcher.spawn, "w1")
    try:
        with pytest.raises(MlxdError, match=said):
            await wait_listening(process)
    finally:
        process.kill()
        process.wait()
