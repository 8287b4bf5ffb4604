"""Stores of caches, with arrays whose every number says which token it belongs to."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, CacheList, ConcatenateKVCache, KVCache, RotatingKVCache

from daemon.worker.engines.prefix import Checkpoints, PrefixTree, how_to_keep, make_store

TOKEN_BYTES = 2 * 2 * 4 * 4
"""Two layers, each with keys and values of four float32 a token."""


def cache_of(tokens: list[int]) -> list[Any]:
    """What a model would have: at each position a number made of all tokens up to there."""
    made = []
    for layer in range(2):
        cache = KVCache()
        states = [float(hash((layer, *tokens[: i + 1])) % 1000) for i in range(len(tokens))]
        cache.keys = mx.broadcast_to(mx.array(states)[None, None, :, None], (1, 1, len(tokens), 4))
        cache.values = -cache.keys
        cache.offset = len(tokens)
        made.append(cache)
    return made


def numbers(cache: list[Any]) -> list[Any]:
    return [np.array(array) for entry in cache for array in entry.keys_and_values()]


def tree(bytes_max: int = 1 << 20) -> PrefixTree:
    return PrefixTree([KVCache(), KVCache()], bytes_max)


def keep(store: PrefixTree | Checkpoints, tokens: list[int]) -> None:
    store.keep(tokens, lambda: cache_of(tokens))


def check(store: PrefixTree | Checkpoints, tokens: list[int]) -> int:
    """What is found is what a model would have computed; gives how many tokens it covers."""
    found = store.find(tokens)
    assert found.tokens < len(tokens)
    if found.cache is not None:
        expected = cache_of(tokens[: found.tokens])
        for one, other in zip(numbers(found.cache), numbers(expected), strict=True):
            np.testing.assert_array_equal(one, other)
        assert all(entry.offset == found.tokens for entry in found.cache)
    return found.tokens


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_longest_common_beginning_is_found(conversations: list[list[int]]) -> None:
    store = tree()
    for i, tokens in enumerate(conversations):
        seen = conversations[:i]
        common = max((_common(tokens[:-1], other) for other in seen), default=0)
        assert check(store, tokens) == common
        keep(store, tokens)
    distinct = {tuple(c[: n + 1]) for c in conversations for n in range(len(c))}
    assert store.nbytes == TOKEN_BYTES * len(distinct), "every common part is there once"


def _common(one: list[int], other: list[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def test_what_was_not_used_for_longest_goes_first() -> None:
    store = tree(bytes_max=30 * TOKEN_BYTES)
    first, second, third = ([n] * 10 for n in (1, 2, 3))
    for tokens in (first, second, third):
        keep(store, tokens)
    check(store, [*first, 0])
    keep(store, [4] * 10)
    assert [check(store, [*tokens, 0]) for tokens in (first, second, third)] == [10, 0, 10]
    assert store.nbytes == 30 * TOKEN_BYTES


def test_trimming_leaves_what_was_used_last() -> None:
    for store in (tree(), Checkpoints(1 << 20)):
        for n in range(4):
            keep(store, [n] * 10)
        check(store, [0] * 11)
        store.trim(25 * TOKEN_BYTES)
        assert [check(store, [*[n] * 10, 77]) for n in range(4)] == [10, 0, 0, 10]
        store.trim(0)
        assert store.nbytes == check(store, [0] * 11) == 0
        keep(store, [1] * 10)
        assert check(store, [1] * 11) == 10, "its own bound is what it was"


def test_a_stretch_that_others_go_on_from_outlives_them() -> None:
    store = tree(bytes_max=25 * TOKEN_BYTES)
    system = [9] * 10
    for n in range(6):
        keep(store, [*system, *[n] * 10])
        assert check(store, [*system, 77, 78]) == 10
        assert store.nbytes <= 25 * TOKEN_BYTES


def test_of_more_than_the_bound_the_beginning_is_kept() -> None:
    store = tree(bytes_max=16 * TOKEN_BYTES)
    tokens = list(range(40))
    keep(store, tokens)
    assert check(store, tokens) == 16
    assert store.nbytes == 16 * TOKEN_BYTES


def test_a_cache_that_is_known_is_not_asked_for() -> None:
    def never() -> list[Any]:
        raise AssertionError("it is known")

    for store in (tree(), Checkpoints(1 << 20)):
        keep(store, [1, 2, 3])
        store.keep([1, 2, 3], never)
    store = tree()
    keep(store, [1, 2, 3])
    store.keep([1, 2], never)


def test_checkpoints_serve_their_very_tokens_only() -> None:
    store = Checkpoints(1 << 20)
    keep(store, [1, 2, 3, 4])
    keep(store, [1, 2])
    assert check(store, [1, 2, 3, 4, 5]) == 4
    assert check(store, [1, 2, 3, 4]) == 2, "one token has to be left to compute"
    assert check(store, [1, 2, 9, 9, 9]) == 2
    assert check(store, [1, 9, 3, 4, 5]) == 0


def test_checkpoints_are_bounded_and_drop_the_oldest() -> None:
    store = Checkpoints(8 * TOKEN_BYTES)
    for n in range(3):
        keep(store, [n] * 4)
    assert [check(store, [n, n, n, n, 0]) for n in range(3)] == [0, 4, 4]
    keep(store, [7] * 100)
    assert check(store, [7] * 101) == 0, "larger than the bound, and nothing was dropped for it"
    assert store.nbytes == 8 * TOKEN_BYTES


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ([KVCache(), KVCache()], "tree"),
        ([CacheList(KVCache(), KVCache())], "tree"),
        ([KVCache(), RotatingKVCache(8)], "checkpoints"),
        ([CacheList(ArraysCache(2), KVCache())], "checkpoints"),
        ([KVCache(), ConcatenateKVCache()], None),
        ([], None),
    ],
)
def test_the_store_follows_from_the_types(template: list[Any], kind: str | None) -> None:
    assert how_to_keep(template) == kind
    store = make_store(template, 1000)
    assert (store is None) == (kind is None)
    assert make_store(template, 0) is None
    if store is not None:
        assert store.cuts_anywhere == (kind == "tree")


def test_lists_of_caches_are_rebuilt_as_lists() -> None:
    store = PrefixTree([CacheList(*cache_of([]))], 1 << 20)
    store.keep([1, 2, 3], lambda: [CacheList(*cache_of([1, 2, 3]))])
    (found,) = store.find([1, 2, 5]).cache or []
    for one, other in zip(numbers(list(found.caches)), numbers(cache_of([1, 2])), strict=True):
        np.testing.assert_array_equal(one, other)
