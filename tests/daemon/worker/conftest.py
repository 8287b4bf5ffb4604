"""A runtime directory whose path is short enough for sockets, and a fake worker in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.worker.harness import Worker, running_worker


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mlxd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def worker(run_dir: Path) -> Iterator[Worker]:
    with running_worker(run_dir) as started:
        yield started
