"""Fixtures of the wire's tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets on every system."""
    with tempfile.TemporaryDirectory(prefix="mlxd-", dir="/tmp") as name:
        yield Path(name)
