"""Facts and limits that every engine relies on."""

import mlx.core as mx
import pytest
from mlx_lm.utils import maybe_set_recommended_wired_limit

from daemon.worker.engines.base import (
    device_facts,
    is_out_of_memory,
    leave_memory_unwired,
    limit_cache,
    resident_bytes,
)


def test_libraries_cannot_wire_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    wired: list[int] = []
    monkeypatch.setattr(mx, "set_wired_limit", wired.append)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    facts = {"max_recommended_working_set_size": 1 << 30}
    monkeypatch.setattr(mx, "device_info", lambda *_: facts)
    maybe_set_recommended_wired_limit()
    assert wired, "as on a Mac, the library would wire memory"
    wired.clear()
    leave_memory_unwired()
    maybe_set_recommended_wired_limit()
    assert wired == []


def test_the_cache_is_bounded() -> None:
    before = mx.set_cache_limit(1 << 20)
    try:
        limit_cache(12345)
        assert mx.set_cache_limit(1) == 12345
    finally:
        mx.set_cache_limit(before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[malloc] Unable to allocate 99 bytes."), True),
        (RuntimeError("[METAL] ... (kIOGPUCommandBufferCallbackErrorOutOfMemory)"), True),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater"), True),
        (MemoryError(), True),
        (ValueError("Missing 3 parameters"), False),
    ],
)
def test_out_of_memory_is_told_from_the_rest(error: Exception, *, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_this_process_and_machine() -> None:
    assert 10 << 20 < resident_bytes() < 1 << 40
    assert device_facts()["memory_size"] > 1 << 28
