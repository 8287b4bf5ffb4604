"""Logging is a convenience: it may fail, and nothing else may fail with it."""

import json
import subprocess
import sys
from pathlib import Path

from daemon.wire.logs import BOOT_LOG_BYTES_MAX, boot_log, cut_back

SCRIPT = """
import os, sys
from daemon.wire.logs import set_up_logging
import structlog
set_up_logging("INFO", worker="w1")
log = structlog.get_logger("x")
log.debug("unseen")
log.info("thing.done", size_bytes=3)
if sys.argv[1:]:
    os.close(2)
    for _ in range(3):
        log.error("nobody.hears")
    sys.stderr = None
print("alive")
"""


def test_lines_are_json_where_nobody_watches() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True
    )
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["worker"], said["size_bytes"]) == ("thing.done", "w1", 3)
    assert said["level"] == "info"
    assert said["timestamp"].endswith("Z")


def test_a_stream_that_has_gone_ends_nothing() -> None:
    command = [sys.executable, "-c", SCRIPT, "close"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.strip() == b"alive"


def test_a_full_disk_ends_nothing() -> None:
    full_device = Path("/dev/full")
    if not full_device.exists():
        return  # Linux alone has it
    with full_device.open("w") as full:
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.stdout.strip() == b"alive"


def test_who_serves_needs_nobody_to_tell_it_to() -> None:
    """A full disk under a service's standard output, a reader that has gone, a closed one."""
    script = (
        "import sys; from daemon.wire.logs import announce; announce(b'ready'); "
        "sys.stderr.write('alive')"
    )
    command = [sys.executable, "-c", script]
    heard = subprocess.run(command, capture_output=True, check=True)
    assert (heard.stdout, heard.stderr) == (b"ready\n", b"alive")
    full = [">/dev/full"] if Path("/dev/full").exists() else []  # Linux alone has it
    for stdout in (*full, ">&-", "| true"):
        shell = ["sh", "-c", f'"$@" {stdout}', "sh", *command]
        assert subprocess.run(shell, capture_output=True, check=True).stderr == b"alive"


SERVICE = """
import logging, sys
from pathlib import Path

from daemon.wire.logs import BOOT_LOG_BYTES_MAX, boot_log, cut_back
import structlog
from daemon.wire import logs
logs.FILE_BYTES_MAX = 2000
logs.RotatingFile.__init__.__defaults__ = (2000,)
logs.set_up_program_logging(Path(sys.argv[1]), serviced=True)
for number in range(200):
    structlog.get_logger("x").info("thing.done", number=number)
logging.getLogger("asyncio").warning("a library speaks")
"""


def test_a_service_logs_into_files_that_stay_small(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(tmp_path / "daemon.log")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    lines = "".join(file.read_text() for file in reversed(files)).splitlines()
    assert lines[-1] == "WARNING:asyncio:a library speaks"
    numbers = [json.loads(line)["number"] for line in lines[:-1]]
    assert numbers == list(range(numbers[0], 200)), "the newest, in order"


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(tmp_path / "gone" / "daemon.log")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_boot_log_of_a_service_is_cut_back_at_its_start(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    boot = boot_log(log)
    assert boot == tmp_path / "daemon.boot.log"
    boot.write_text("".join(f"line {number}\n" for number in range(BOOT_LOG_BYTES_MAX // 8)))
    with boot.open("ab") as held_open:
        subprocess.run([sys.executable, "-c", SERVICE, str(log)], check=True)
        held_open.write(b"next\n")
    kept = boot.read_text().splitlines()
    assert boot.stat().st_size <= BOOT_LOG_BYTES_MAX // 2 + 5
    first = int(kept[0].removeprefix("line "))
    assert kept == [f"line {n}" for n in range(first, BOOT_LOG_BYTES_MAX // 8)] + ["next"]


def test_what_is_small_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    file.write_text("a\nb\n")
    cut_back(file, 4, 2)
    assert file.read_text() == "a\nb\n"
    cut_back(file, 3, 2)
    assert file.read_text() == "", "the last line alone may be cut: it began before what is kept"
