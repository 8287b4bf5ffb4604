"""The recipe of an embedding model, as its files have it; vectors are in the contract."""

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.worker.engines.base import LoadRefused
from daemon.worker.engines.embeddings import BATCH_TOKENS, _batches, read_recipe


def recipe(folder: Path, context_tokens: int = 512, **files: Any) -> Any:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return read_recipe(folder, context_tokens)


def test_a_folder_without_any_file_of_sentence_transformers(tmp_path: Path) -> None:
    found = recipe(tmp_path)
    assert (found.tokens_max, found.pooling, found.normalize) == (512, None, True)
    assert (found.lower, found.prefix) == (False, "")


@pytest.mark.parametrize(
    ("files", "tokens_max"),
    [
        ({"sentence_bert_config": {"max_seq_length": 256}}, 256),
        ({"tokenizer_config": {"model_max_length": 128}}, 128),
        ({"tokenizer_config": {"model_max_length": 1e30}}, 512),
        (
            {
                "sentence_bert_config": {"max_seq_length": 256},
                "tokenizer_config": {"model_max_length": 300},
            },
            256,
        ),
        ({"sentence_bert_config": {"max_seq_length": None}}, 512),
    ],
)
def test_the_smallest_bound_counts(tmp_path: Path, files: Any, tokens_max: int) -> None:
    assert recipe(tmp_path, **files).tokens_max == tokens_max


def test_the_default_prompt_stands_before_texts(tmp_path: Path) -> None:
    overall = {"prompts": {"query": "query: ", "text": ""}, "default_prompt_name": "query"}
    assert recipe(tmp_path, config_sentence_transformers=overall).prefix == "query: "
    overall["default_prompt_name"] = None  # type: ignore[assignment]
    assert recipe(tmp_path, config_sentence_transformers=overall).prefix == ""


def test_modules_say_whether_vectors_are_normalised(tmp_path: Path) -> None:
    steps = [{"type": "sentence_transformers.models.Transformer"}]
    assert recipe(tmp_path, modules=steps).normalize is False
    steps.append({"type": "sentence_transformers.models.Normalize"})
    assert recipe(tmp_path, modules=steps).normalize is True


def test_a_broken_list_of_modules_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(LoadRefused, match=r"modules\.json"):
        read_recipe(tmp_path, 512)


def test_batches_hold_neighbours_in_length_within_their_bound() -> None:
    rows = [[0] * length for length in (5, 3000, 7, 1500, 1400, 9000, 6)]
    batches = _batches(rows)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches == [[0, 6, 2], [4, 3], [1], [5]]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(rows[i]) for i in batch) <= BATCH_TOKENS
