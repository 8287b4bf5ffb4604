"""Fixtures for every test."""

import signal

import pytest

# A suite that a shell started in the background inherits an ignored SIGINT, and hands it on:
# programs under test would be deaf to Ctrl-C. A handler of our own is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the programs do, unless they say otherwise."""
    return "asyncio"
