"""A spare whose daemon ends while it imports its libraries; the rest is in test_process.py."""

import os
import subprocess
import sys
from pathlib import Path

SPARE = """
import sys
from pathlib import Path
from daemon.worker.spare import wait_for_name

def import_libraries(_any_kind):
    for fifo in sys.argv[1:]:
        Path(fifo).read_text()

print("is", repr(wait_for_name(import_libraries, "info")))
"""

NAMES_IT_AND_ENDS = """
import subprocess, sys
from pathlib import Path
spare = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
spare.stdin.write(b"7\\n")
spare.stdin.flush()
Path(sys.argv[2]).write_text("")
"""


def test_a_spare_that_was_named_by_a_daemon_which_is_gone_is_no_worker(tmp_path: Path) -> None:
    """The next daemon has begun that load again: nobody would come for this worker."""
    begun, done = tmp_path / "begun", tmp_path / "done"
    for fifo in (begun, done):
        os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", NAMES_IT_AND_ENDS, SPARE, str(begun), str(done)],
        stdout=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.wait(20) == 0
        done.write_text("")
        assert daemon.stdout is not None
        assert daemon.stdout.read() == "is ''\n"


def test_a_spare_that_was_named_while_it_imported_is_that_worker(tmp_path: Path) -> None:
    done = tmp_path / "done"
    os.mkfifo(done)
    with subprocess.Popen(
        [sys.executable, "-c", SPARE, str(done)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as spare:
        assert spare.stdin is not None
        assert spare.stdout is not None
        spare.stdin.write("7\n")
        spare.stdin.close()
        done.write_text("")
        assert spare.stdout.read() == "is '7'\n"
