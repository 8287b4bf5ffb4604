"""What makes a prefix cache usable for prompts with pictures.

A prefix store finds the beginning of a prompt by its tokens, and all pictures have the
same ones. So here a prompt's positions get names: a token's is its number, and those of a
picture are numbers below zero, made of a digest of what the language model is given there.
Two prompts with the same names have the same keys and values, whatever the family does
with pictures before its language model sees them.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import KVCache as KeptCache
from mlx_vlm.generate.ar import (
    _is_sequence_aligned_prompt_kwarg,
    _slice_sequence_aligned_prompt_kwarg,
)
from mlx_vlm.models.cache import KVCache, make_prompt_cache

from daemon.worker.engines.prefix import PrefixStore, make_store

_GIVEN: Final = frozenset({"inputs_embeds", "position_ids", "rope_deltas"})
_AT_PICTURES: Final = frozenset({"visual_pos_masks", "deepstack_visual_embeds"})
"""What some families add at their pictures' positions, beyond the embeddings; it has no
place of its own for each token, so a rest of a prompt takes all of it or none."""


def make_vision_store(language_model: Any, bytes_max: int) -> PrefixStore | None:
    """The store for a vision model's rows; None where its caches cannot be cut anywhere."""
    cache = make_prompt_cache(language_model)
    if {type(entry) for entry in cache} != {KVCache}:
        return None
    return make_store([KeptCache() for _ in cache], bytes_max)


def position_names(
    tokens: Sequence[int], plain: mx.array | None, embedded: Mapping[str, Any]
) -> list[int] | None:
    """A number for each position of a prompt, as the keys of a prefix store.

    Args:
        plain: The embeddings of the tokens alone, ``[1, tokens, width]``; None for a prompt
            without pictures.
        embedded: What the language model is given, without what is None.

    Returns:
        None where keys and values depend on more than what comes before them (attention to
        what follows), or on something that this module does not know.
    """
    if not embedded.keys() <= _GIVEN | _AT_PICTURES:
        return None
    if plain is None:
        return list(tokens)
    given = embedded["inputs_embeds"]
    if given.shape != plain.shape:
        return None
    names = np.array(tokens, np.int32)
    for begin, end in _stretches(np.array(mx.any(given != plain, axis=-1)[0])):
        digest = hashlib.blake2b(_raw(given[:, begin:end]))
        if "position_ids" in embedded:
            digest.update(_raw(embedded["position_ids"][..., begin:end]))
        names[begin:end] = _below_zero(digest.digest(), end - begin)
    return [int(name) for name in names]


def usable(names: Sequence[int], tokens: int, given: Collection[str]) -> bool:
    """Whether a row can begin behind its first ``tokens`` positions.

    Args:
        given: Names of all that its language model is given.
    """
    return tokens > 0 and (
        _AT_PICTURES.isdisjoint(given) or all(name >= 0 for name in names[tokens:])
    )


def rest_of(given: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """What the language model is given behind the first ``tokens`` positions.

    To be used where :func:`usable` says so.
    """
    length = given["inputs_embeds"].shape[1]
    rest = {key: value for key, value in given.items() if key not in _AT_PICTURES}
    for key, value in rest.items():
        if key == "inputs_embeds":
            rest[key] = value[:, tokens:]
        elif isinstance(value, mx.array) and _is_sequence_aligned_prompt_kwarg(key, value, length):
            rest[key] = _slice_sequence_aligned_prompt_kwarg(key, value, start=tokens)
    return rest


def warm_cache(kept: Sequence[Any]) -> list[Any]:
    """Caches of a store as the library's own, for a row to begin with."""
    caches = []
    for entry in kept:
        cache = KVCache()
        cache.keys, cache.values, cache.offset = entry.keys, entry.values, entry.offset
        caches.append(cache)
    return caches


def kept_cache(caches: Sequence[Any], row: int) -> list[Any]:
    """One row of a batch's caches, as a store keeps them."""
    kept = []
    for entry in caches:
        taken = entry.extract(row)
        cache = KeptCache()
        cache.keys, cache.values, cache.offset = taken.keys, taken.values, taken.offset
        kept.append(cache)
    return kept


def _stretches(seen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of positions that no token stands for."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2):
        yield int(begin), int(end)


def _below_zero(digest: bytes, count: int) -> npt.NDArray[np.int32]:
    """So many names out of one digest: a stretch is equal to another wholly or not at all."""
    raw = hashlib.shake_128(digest).digest(4 * count)
    return (np.frombuffer(raw, np.uint32) | np.uint32(1 << 31)).view(np.int32)


def _raw(array: mx.array) -> bytes:
    return np.array(mx.contiguous(array).view(mx.uint8)).tobytes()
