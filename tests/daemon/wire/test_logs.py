"""Logging is a convenience: it may fail, and nothing else may fail with it."""

import json
import subprocess
import sys
from pathlib import Path

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
