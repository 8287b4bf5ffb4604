"""What must hold of a draft, and the cache of what it has read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, load_tokenizer

from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import LoadRefused
from daemon.worker.engines.draftmodel import Draft, DraftModel, open_draft
from tests.contract.bench import begin
from tests.contract.tiny import (
    SPECIAL,
    build_hybrid_model,
    build_text_model,
    build_window_model,
    write_json,
)

VOCABULARY = len(SPECIAL) + 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_model(folder)[0]


@pytest.fixture
def draft(model: Any) -> Draft:
    return Draft(DraftModel(model, VOCABULARY), VOCABULARY)


def load(model: Path, draft: Path) -> list[tuple[int, int]]:
    """Loads both; gives the calls of progress."""
    engine = REGISTRY["text"]()
    calls: list[tuple[int, int]] = []
    engine.load(
        begin(model, "text", draft=str(draft)), lambda done, total: calls.append((done, total))
    )
    engine.close()
    return calls


@pytest.mark.parametrize("build", [build_window_model, build_hybrid_model])
@pytest.mark.parametrize("swapped", [False, True])
def test_caches_that_cannot_be_cut_are_refused(
    folder: Path, tmp_path: Path, build: Callable[[Path], Path], swapped: bool
) -> None:
    other = build(tmp_path / "other")
    with pytest.raises(LoadRefused, match="cannot be taken back") as caught:
        load(*((other, folder) if swapped else (folder, other)))
    assert caught.value.reason == "incompatible"
    assert str(other) in caught.value.message
    assert "remove draft" in caught.value.message


def test_other_tokens_are_refused(folder: Path, tmp_path: Path) -> None:
    other = build_text_model(tmp_path / "other", special=SPECIAL[::-1])
    with pytest.raises(LoadRefused, match="has other tokens than") as caught:
        load(folder, other)
    assert caught.value.reason == "incompatible"


def test_a_tokenizer_written_in_another_way_is_the_same(folder: Path, tmp_path: Path) -> None:
    other = build_text_model(tmp_path / "other", seed=8)
    file = other / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7))
    assert open_draft(other, folder, load_tokenizer(folder)).width == VOCABULARY


def test_a_folder_that_is_no_model_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadRefused, match=r"config\.json is missing") as caught:
        load(folder, tmp_path)
    assert str(tmp_path) in caught.value.message


def test_progress_counts_both(folder: Path, tmp_path: Path) -> None:
    alone: list[int] = []
    engine = REGISTRY["text"]()
    engine.load(begin(folder, "text"), lambda _done, total: alone.append(total))
    engine.close()
    calls = load(folder, build_text_model(tmp_path / "other", seed=8))
    assert {total for _, total in calls} == {2 * alone[0]}
    assert calls[-1] == (2 * alone[0], 2 * alone[0])


def test_code_of_a_drafts_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", {**config, "model_file": "own.py"})
    engine = REGISTRY["text"]()
    with pytest.raises(LoadRefused, match=r"own\.py"):
        engine.load(
            begin(folder, "text", draft=str(other), allow_code=True), lambda _done, _total: None
        )


@pytest.mark.parametrize("width", [VOCABULARY - 9, VOCABULARY, VOCABULARY + 9])
def test_logits_are_as_many_as_the_models(model: Any, width: int) -> None:
    tokens = [20, 30, 40]
    expected = model(mx.array([tokens]))[0, -1]
    draft = Draft(DraftModel(model, VOCABULARY), width)
    logits = draft(mx.array([tokens]), draft.cache)[0, -1]
    shared = min(width, VOCABULARY)
    assert logits.shape == (width,)
    assert mx.allclose(logits[:shared], expected[:shared], atol=1e-5)
    assert mx.all(logits[shared:] == -mx.inf)


def test_tokens_that_it_does_not_have_are_harmless(model: Any) -> None:
    draft = Draft(DraftModel(model, VOCABULARY), VOCABULARY + 9)
    logits = draft(mx.array([[20, VOCABULARY + 8]]), draft.cache)
    assert mx.array_equal(logits, draft(mx.array([[20, VOCABULARY - 1]]), make_prompt_cache(model)))


def test_it_reads_in_pieces_and_goes_on_from_what_it_knows(model: Any, draft: Draft) -> None:
    talk = list(range(20, 60))
    assert draft.follow(talk, 32) == (32, 8)
    assert draft.follow(talk, 32) == (8, 0)
    assert draft.follow([*talk, 5, 6], 32) == (2, 0)
    assert draft.follow([*talk, 9], 32) == (1, 0)
    fresh = make_prompt_cache(model)
    model(mx.array([[*talk, 9]]), cache=fresh)
    for entry, expected in zip(draft.cache, fresh, strict=True):
        assert entry.offset == expected.offset == 41
        for one, other in zip(entry.keys_and_values(), expected.keys_and_values(), strict=True):
            assert mx.allclose(one, other, atol=1e-5)


def test_what_others_took_back_is_read_again(draft: Draft) -> None:
    talk = list(range(20, 60))
    draft.follow(talk, 64)
    for entry in draft.cache:
        entry.trim(3)
    draft.told([*talk, 1, 2])
    assert draft.follow([*talk, 1, 2], 64) == (5, 0)
    draft.forget()
    assert draft.nbytes == 0
    assert draft.follow(talk, 64) == (40, 0)
