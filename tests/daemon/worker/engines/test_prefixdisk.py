"""Blocks on disk: found by what they hold, checked before use, bounded, private."""

import os
import stat
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache

from daemon.worker.engines.prefix import PrefixTree
from daemon.worker.engines.prefixdisk import (
    BLOCK_TOKENS,
    Block,
    KeptOnDisk,
    Shelf,
    open_shelf,
)
from tests.contract.bench import begin
from tests.daemon.worker.engines.test_prefix import TOKEN_BYTES, cache_of, numbers

LONG = [n % 50 for n in range(2 * BLOCK_TOKENS + 100)]


def kept_in(folder: Path, bytes_max: int = 1 << 24) -> KeptOnDisk:
    """As a worker has it that has just loaded the model."""
    return KeptOnDisk(
        PrefixTree([KVCache(), KVCache()], 1 << 24), Shelf(folder / "model", bytes_max)
    )


def keep(store: KeptOnDisk, tokens: list[int]) -> None:
    store.keep(tokens, lambda: cache_of(tokens))
    while store.put_away():
        continue


def check(store: KeptOnDisk, tokens: list[int]) -> int:
    """What is found is what a model would have computed; gives how many tokens it covers."""
    found = store.find(tokens)
    if found.cache is not None:
        expected = cache_of(tokens[: found.tokens])
        for one, other in zip(numbers(found.cache), numbers(expected), strict=True):
            np.testing.assert_array_equal(one, other)
    return found.tokens


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    keep(kept_in(tmp_path), LONG)
    later = kept_in(tmp_path)
    assert check(later, [*LONG, 7]) == len(LONG), "to the last token"
    assert later.nbytes == len(LONG) * TOKEN_BYTES
    other = [*LONG[: BLOCK_TOKENS + 30], 77, 78]
    assert check(kept_in(tmp_path), other) == BLOCK_TOKENS, "whole blocks of another's beginning"
    assert check(kept_in(tmp_path), [9, *LONG]) == 0


def test_a_conversation_that_goes_on_adds_what_is_new(tmp_path: Path) -> None:
    keep(kept_in(tmp_path), LONG)
    written = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    longer = [*LONG, *range(300)]
    store = kept_in(tmp_path)
    assert check(store, [*longer, 1]) == len(LONG)
    keep(store, longer)
    assert check(kept_in(tmp_path), [*longer, 1]) == len(longer)
    new = set(files(tmp_path)) - written.keys()
    assert len(new) == 2, "the block that was not full, now full; and the one behind it"


def test_a_short_prompt_is_not_worth_a_file(tmp_path: Path) -> None:
    keep(kept_in(tmp_path), [1, 2, 3])
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_file_is_ignored_and_removed(tmp_path: Path, damage: str) -> None:
    keep(kept_in(tmp_path), LONG)
    later = kept_in(tmp_path)
    assert later.find([3, 4]).tokens == 0, "it has seen what there is"
    middle = next(path for path in files(tmp_path) if path.name.startswith(f"{BLOCK_TOKENS}-"))
    raw = bytearray(middle.read_bytes())
    raw[len(raw) // 2] ^= 1
    match damage:
        case "flipped":
            middle.write_bytes(raw)
        case "cut":
            middle.write_bytes(raw[:-10])
        case "empty":
            middle.write_bytes(b"")
        case "gone":
            middle.unlink()
    assert check(later, [*LONG, 7]) == BLOCK_TOKENS
    assert not middle.exists()
    assert check(later, [*LONG, 7]) == BLOCK_TOKENS, "and it is not asked for again"


def test_files_of_another_shape_are_refused(tmp_path: Path) -> None:
    """They say that they are this model's, and are whole: a library that has changed."""
    keep(kept_in(tmp_path), LONG)
    shelf = Shelf(tmp_path / "model", 1 << 24)
    one_layer = KeptOnDisk(PrefixTree([KVCache()], 1 << 24), shelf)
    assert one_layer.find([*LONG, 7]).tokens == 0


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "prefix"
    keep(kept_in(folder), LONG)
    for path in files(folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "model").stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_bound_holds_over_all_models_and_the_oldest_go(tmp_path: Path) -> None:
    keep(kept_in(tmp_path), LONG)
    size = sum(path.stat().st_size for path in files(tmp_path))
    for path in files(tmp_path):
        os.utime(path, (1000, 1000))
    other = Shelf(tmp_path / "other", size + 100)
    other.write(Block(0, 10, "ab"), [mx.ones((1, 1, 10, 4))])
    left = files(tmp_path)
    assert sum(path.stat().st_size for path in left) <= size + 100
    begins = sorted(int(path.name.split("-")[0]) for path in left if path.parent.name == "model")
    assert begins == [0, BLOCK_TOKENS], "of what was used together, the end goes first"


def test_a_disk_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file where a folder should be")
    store = kept_in(tmp_path)
    store.keep(LONG, lambda: cache_of(LONG))
    for _ in range(4):
        store.put_away()
    assert check(store, [*LONG, 7]) == len(LONG)


def test_what_cannot_be_removed_stays_and_is_no_failure(tmp_path: Path) -> None:
    other = tmp_path / "other" / "0-10-ab-cd.safetensors"
    other.mkdir(parents=True)  # no unlink takes away a folder
    os.utime(other, (1000, 1000))
    store = kept_in(tmp_path, bytes_max=1)
    store.keep(LONG, lambda: cache_of(LONG))
    while store.put_away():
        continue
    assert other.is_dir()
    assert len(files(tmp_path / "model")) == 0, "the bound goes on to the next"


def test_a_block_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "model", 1 << 24)
    (tmp_path / "model").mkdir()
    block, arrays = Block(0, 10, "ab"), [mx.ones((1, 1, 10, 4))]
    shelf.write(block, arrays)
    (written,) = files(tmp_path)
    written.unlink()
    written.mkdir()  # in the way of the next
    shelf.write(block, arrays)
    assert files(tmp_path) == [written]


@pytest.mark.parametrize("changed", [{"identity": "b"}, {"adapter": "/lora"}, {"path": "/other"}])
def test_each_model_has_a_folder_of_its_own(tmp_path: Path, changed: dict[str, Any]) -> None:
    told = {"prefix_dir": str(tmp_path), "prefix_disk_bytes": 1}
    one = open_shelf(begin(Path("/m"), "text", identity="a", **told))
    same = open_shelf(begin(Path("/m"), "text", identity="a", **told))
    other = open_shelf(begin(Path("/m"), "text", **{"identity": "a", **told, **changed}))
    assert one is not None
    assert same is not None
    assert other is not None
    assert one._folder == same._folder != other._folder
    assert open_shelf(begin(Path("/m"), "text")) is None
