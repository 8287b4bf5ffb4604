"""Fixtures for every test."""

import signal

import pytest
from hypothesis import settings

# The quick tier draws the same examples everywhere: what was green stays green until something
# changes. The full tier draws new ones each time: `--hypothesis-profile=fresh`.
settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("fresh", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("same")

# A suite that a shell started in the background inherits an ignored SIGINT, and hands it on:
# programs under test would be deaf to Ctrl-C. A handler of our own is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the programs do, unless they say otherwise."""
    return "asyncio"
