"""Key-value caches kept after a row has left the batch, to begin later rows with.

What a model computed for a stretch of tokens depends on those tokens and all before them,
so a row whose prompt begins like an earlier one can start behind the common part. How
much may be cut out of a cache depends on its type (mlx_lm's ``models/cache.py``):

- plain key-value caches can be cut anywhere: :class:`PrefixTree` shares every common part,
  to the token;
- windows and recurrent states are true only at the very position where they were taken:
  :class:`Checkpoints` keeps them whole;
- anything else is not kept at all.

Finding is linear in the prompt's length. Both are bounded in bytes and drop what was not
used for longest. All arrays in here are copies of their own, never changed afterwards.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

import mlx.core as mx
import msgspec
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

Tokens = npt.NDArray[np.int32]

NODES_MAX: Final = 2048
"""Stretches in a tree: each is two arrays a layer, and Metal bounds the number of buffers."""


class Found(msgspec.Struct, frozen=True):
    """The beginning of a prompt, as it was computed before.

    Attributes:
        cache: One entry a layer, as ``make_prompt_cache`` makes them; None if nothing fits.
        tokens: How many tokens of the prompt it holds.
    """

    cache: list[Any] | None = None
    tokens: int = 0


class PrefixStore(Protocol):
    """Caches of rows, by their tokens."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays that are kept."""
        ...

    @property
    def cuts_anywhere(self) -> bool:
        """Whether a cache also serves prompts that share only its beginning."""
        ...

    def find(self, tokens: Sequence[int]) -> Found:
        """The longest known beginning that leaves at least one token to compute."""
        ...

    def keep(self, tokens: Sequence[int], take: Callable[[], list[Any]]) -> None:
        """Remember the cache that holds exactly ``tokens``; ``take`` is called if it is new."""
        ...

    def trim(self, bytes_max: int) -> None:
        """Drop what was not used for longest, until the rest fits."""
        ...

    def put_away(self) -> bool:
        """Write a bounded part of it to disk; False if nothing is left to write."""
        ...


def how_to_keep(template: Sequence[Any]) -> Literal["tree", "checkpoints"] | None:
    """Which store is right for caches like ``template``; None where there is none."""
    types = {type(leaf) for leaf in _leaves(template)}
    if types == {KVCache}:
        return "tree"
    return "checkpoints" if types and types <= {KVCache, RotatingKVCache, ArraysCache} else None


def make_store(template: Sequence[Any], bytes_max: int) -> PrefixStore | None:
    """The store that is right for caches like ``template``; None where there is none."""
    kind = how_to_keep(template) if bytes_max > 0 else None
    if kind == "tree":
        return PrefixTree(template, bytes_max)
    return Checkpoints(bytes_max) if kind == "checkpoints" else None


# --- caches that can be cut anywhere --------------------------------------------


class _Node:
    """A stretch of tokens that follows its parent's, and its keys and values a layer."""

    def __init__(self, parent: "_Node | None", tokens: Tokens, arrays: list[mx.array]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.arrays = arrays
        self.children: dict[int, _Node] = {}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


class PrefixTree:
    """A radix tree over tokens, with the keys and values of each edge at its node."""

    cuts_anywhere = True

    def __init__(self, template: Sequence[Any], bytes_max: int) -> None:
        self._template = template
        self._bytes_max = bytes_max
        self._root = _Node(None, np.empty(0, np.int32), [])
        # From the one not used for longest. A node is used with all above it, and those are
        # moved to the end after it: so the first node never has children.
        self._used: OrderedDict[_Node, None] = OrderedDict()
        self.nbytes = 0

    def find(self, tokens: Sequence[int]) -> Found:
        wanted = np.asarray(tokens[:-1], np.int32)
        pieces: list[tuple[_Node, int]] = []
        done = 0
        for node, shared in self._walk(wanted):
            pieces.append((node, shared))
            done += shared
        if not pieces:
            return Found()
        self._touch(pieces[-1][0])
        arrays = [
            _joined([node.arrays[i][..., :shared, :] for node, shared in pieces])
            for i in range(len(pieces[0][0].arrays))
        ]
        return Found(_rebuilt(self._template, iter(arrays), done), done)

    def keep(self, tokens: Sequence[int], take: Callable[[], list[Any]]) -> None:
        wanted = np.asarray(tokens, np.int32)
        node, done = self._place(wanted)
        if done < len(wanted):
            node = self._hang(self._cut_out(node, wanted, done, take()))
        self._touch(node)
        self.trim(self._bytes_max)

    def add(self, tokens: Sequence[int], begin: int, arrays: list[mx.array]) -> bool:
        """Remember keys and values of ``tokens`` from ``begin`` on, as :meth:`cut` gave them.

        Returns:
            False if they are not of this model, or what comes before them is not known.
        """
        wanted = np.asarray(tokens, np.int32)
        node, done = self._place(wanted)
        layers = 2 * len(_leaves(self._template))
        if len(arrays) != layers or any(a.shape[-2] != len(wanted) - begin for a in arrays):
            return False
        if done < begin:
            return False
        if done < len(wanted):
            copies = _copied(arrays, done - begin, len(wanted) - begin)
            node = self._hang(_Node(node, wanted[done:], copies))
        self._touch(node)
        self.trim(self._bytes_max)
        return True

    def cut(self, tokens: Sequence[int], begin: int, end: int) -> list[mx.array] | None:
        """Keys and values of ``tokens[begin:end]``; None if they are not all here."""
        pieces: list[tuple[_Node, int, int]] = []
        done = 0
        for node, shared in self._walk(np.asarray(tokens[:end], np.int32)):
            if done + shared > begin:
                pieces.append((node, max(begin - done, 0), shared))
            done += shared
        if done < end:
            return None
        return [
            _joined([node.arrays[i][..., first:last, :] for node, first, last in pieces])
            for i in range(len(pieces[0][0].arrays))
        ]

    def conversations(self) -> list[list[int]]:
        """The tokens of each longest prompt that is kept, the last used first."""
        found = []
        for node in reversed(self._used):
            if not node.children:
                path: list[Tokens] = []
                at: _Node | None = node
                while at is not None:
                    path.append(at.tokens)
                    at = at.parent
                found.append([int(token) for token in np.concatenate(path[::-1])])
        return found

    def _place(self, wanted: Tokens) -> tuple[_Node, int]:
        """The node that ``wanted`` goes on from, cut to end there, and how many it holds."""
        node, done = self._root, 0
        for one, shared in self._walk(wanted):
            done += shared
            node = one if shared == len(one.tokens) else self._split(one, shared)
        return node, done

    def _hang(self, node: _Node) -> _Node:
        """Put a new node below its parent; gives the lower one of both that has tokens."""
        assert node.parent is not None, "the root is there from the beginning"
        if not len(node.tokens):
            return node.parent
        node.parent.children[int(node.tokens[0])] = node
        self._used[node] = None
        self.nbytes += node.nbytes
        return node

    def trim(self, bytes_max: int) -> None:
        while self._used and (self.nbytes > bytes_max or len(self._used) > NODES_MAX):
            self._drop_oldest()

    def put_away(self) -> bool:
        return False

    def _walk(self, wanted: Tokens) -> list[tuple[_Node, int]]:
        """The nodes along ``wanted``, and how many tokens of each agree."""
        path: list[tuple[_Node, int]] = []
        node, done = self._root, 0
        while done < len(wanted):
            child = node.children.get(int(wanted[done]))
            if child is None:
                break
            shared = _common(child.tokens, wanted[done:])
            path.append((child, shared))
            done += shared
            if shared < len(child.tokens):
                break
            node = child
        return path

    def _cut_out(self, parent: _Node, wanted: Tokens, done: int, cache: list[Any]) -> _Node:
        """What ``cache`` holds from token ``done`` on, as far as the bound allows."""
        arrays = _arrays(cache)
        token_bytes = sum(array.nbytes // array.shape[2] for array in arrays)
        end = min(len(wanted), done + self._bytes_max // max(1, token_bytes))
        return _Node(parent, wanted[done:end], _copied(arrays, done, end))

    def _split(self, node: _Node, shared: int) -> _Node:
        """Cut ``node`` in two; gives the upper part, which holds ``shared`` tokens."""
        assert node.parent is not None, "the root has no tokens to be cut between"
        length = len(node.tokens)
        upper = _Node(node.parent, node.tokens[:shared], _copied(node.arrays, 0, shared))
        node.parent.children[int(upper.tokens[0])] = upper
        node.arrays = _copied(node.arrays, shared, length)
        node.tokens, node.parent = node.tokens[shared:], upper
        upper.children[int(node.tokens[0])] = node
        self._used[upper] = None
        self._touch(node)
        return upper

    def _touch(self, node: _Node | None) -> None:
        while node is not None and node.parent is not None:
            self._used.move_to_end(node)
            node = node.parent

    def _drop_oldest(self) -> None:
        node, _ = self._used.popitem(last=False)
        assert node.parent is not None, "the root is never in use order"
        assert not node.children, "a node is used whenever one below it is"
        del node.parent.children[int(node.tokens[0])]
        self.nbytes -= node.nbytes


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return _common(np.asarray(one, np.int32), np.asarray(other, np.int32))


def _common(one: Tokens, other: Tokens) -> int:
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _leaves(cache: Sequence[Any]) -> list[Any]:
    """The caches themselves, out of the lists that some models wrap them in."""
    found: list[Any] = []
    for entry in cache:
        found += _leaves(entry.caches) if type(entry) is CacheList else [entry]
    return found


def _arrays(cache: Sequence[Any]) -> list[mx.array]:
    """Keys and values of each layer, ``[1, heads, tokens, width]``."""
    return [array for leaf in _leaves(cache) for array in leaf.keys_and_values()]


def _copied(arrays: list[mx.array], begin: int, end: int) -> list[mx.array]:
    """The stretch of each, in memory of its own; computed while the caller goes on."""
    copies = [mx.contiguous(array[..., begin:end, :]) for array in arrays]
    mx.async_eval(copies)  # type: ignore[no-untyped-call]
    return copies


def _joined(pieces: list[mx.array]) -> mx.array:
    return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, axis=2)


def _rebuilt(template: Sequence[Any], arrays: Any, tokens: int) -> list[Any]:
    """Caches like ``template`` that hold ``arrays``; the batch copies them when it merges."""
    rebuilt: list[Any] = []
    for entry in template:
        if type(entry) is CacheList:
            rebuilt.append(CacheList(*_rebuilt(entry.caches, arrays, tokens)))
        else:
            cache = KVCache()
            cache.keys, cache.values, cache.offset = next(arrays), next(arrays), tokens
            rebuilt.append(cache)
    return rebuilt


# --- caches that are only true where they were taken -----------------------------


class Checkpoints:
    """Whole caches, found by a digest of all of their tokens."""

    cuts_anywhere = False

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[int, bytes], list[Any]] = OrderedDict()
        self.nbytes = 0

    def find(self, tokens: Sequence[int]) -> Found:
        lengths = sorted({length for length, _ in self._kept if length < len(tokens)})
        best = None
        for length, digest in zip(lengths, digests(tokens, lengths), strict=True):
            if (length, digest) in self._kept:
                best = (length, digest)
        if best is None:
            return Found()
        self._kept.move_to_end(best)
        return Found(self._kept[best], best[0])

    def keep(self, tokens: Sequence[int], take: Callable[[], list[Any]]) -> None:
        (digest,) = digests(tokens, [len(tokens)])
        key = (len(tokens), digest)
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        cache = _owned(take())
        size = sum(leaf.nbytes for leaf in _leaves(cache))
        if size > self._bytes_max:
            return
        self._kept[key] = cache
        self.nbytes += size
        self.trim(self._bytes_max)

    def trim(self, bytes_max: int) -> None:
        while self._kept and self.nbytes > bytes_max:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= sum(leaf.nbytes for leaf in _leaves(dropped))

    def put_away(self) -> bool:
        return False


def digests(tokens: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """A digest of the first ``length`` tokens for each of the ascending ``lengths``."""
    raw = np.asarray(tokens, np.int32).tobytes()
    state, done = hashlib.blake2b(digest_size=16), 0
    digests = []
    for length in lengths:
        state.update(raw[4 * done : 4 * length])
        done = length
        digests.append(state.copy().digest())
    return digests


def _owned(cache: list[Any]) -> list[Any]:
    """The same caches with arrays in memory of their own, not views into the batch's."""
    copies: list[mx.array] = []
    for leaf in _leaves(cache):
        if type(leaf) is ArraysCache:
            leaf.cache = [None if array is None else mx.contiguous(array) for array in leaf.cache]
            copies += [array for array in leaf.cache if array is not None]
        elif leaf.keys is not None:
            leaf.keys, leaf.values = mx.contiguous(leaf.keys), mx.contiguous(leaf.values)
            copies += [leaf.keys, leaf.values]
    mx.async_eval(copies)  # type: ignore[no-untyped-call]
    return cache
