"""What a changed configuration is told as, and what it allows on a machine."""

from pathlib import Path

import pytest

from daemon.configuration import Machine, changed_keys, limits_of
from daemon.wire.settings import Settings, parse_settings

MACHINE = Machine("boot", 32 * 10**9)


def settings(text: str) -> Settings:
    return parse_settings(text, Path("/home/ada/config.toml"))


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ("", "", []),
        ("", '[pool]\nmemory = "8G"', ["pool.memory"]),
        ("[pool]\nworkers_max = 2", "", ["pool.workers_max"]),
        ("", '[models."org/a"]\npin = true', ['models."org/a"']),
        ('[models."org/a"]\npin = true', '[models."org/a"]\nttl_s = 5', None),
        ('[aliases]\nfast = ["a"]', '[aliases]\nfast = ["b"]', ["aliases.fast"]),
    ],
)
def test_changed_keys(before: str, after: str, keys: list[str] | None) -> None:
    expected = ['models."org/a".pin', 'models."org/a".ttl_s'] if keys is None else keys
    assert list(changed_keys(settings(before), settings(after))) == expected


def test_limits_are_the_settings_on_this_machine() -> None:
    text = """
    [pool]
    memory = "20G"
    workers_max = 3
    ttl_s = 90
    kv_tokens = 1000
    queue_max = 5
    loads_max = 2
    [safety]
    crashes_max = 4
    window_s = 60
    unclean_starts_max = 7
    """
    limits = limits_of(settings(text), MACHINE)
    assert (limits.budget_bytes, limits.workers_max, limits.ttl_ms) == (20 * 10**9, 3, 90_000)
    assert (limits.kv_tokens, limits.queue_max, limits.loads_max) == (1000, 5, 2)
    assert (limits.crashes_max, limits.crash_window_ms, limits.unclean_starts_max) == (4, 60_000, 7)


@pytest.mark.parametrize(
    ("text", "memory_bytes", "spare"),
    [
        ("", 16 * 10**9, True),
        ("", 8 * 10**9, False),
        ("spare = true", 8 * 10**9, True),
        ("spare = false", 64 * 10**9, False),
    ],
)
def test_a_spare_is_for_machines_with_memory_to_spare(
    text: str, memory_bytes: int, *, spare: bool
) -> None:
    machine = Machine("boot", memory_bytes)
    assert limits_of(settings(f"[worker]\n{text}"), machine).spare is spare


def test_a_budget_beyond_the_machine_is_clamped() -> None:
    assert limits_of(settings('[pool]\nmemory = "99G"'), MACHINE).budget_bytes == 32 * 10**9
