"""Whisper conversion on tensors small enough to read."""

from typing import Any

import numpy as np
import pytest

from tests.models import ModelError
from tests.models.ctranslate2 import Array
from tests.models.whisper import (
    generation_config,
    hugging_face_weights,
    model_config,
    with_timestamps,
)

WIDTH, MELS, VOCABULARY = 4, 3, 51864


def variables() -> dict[str, Array]:
    """One encoder block and two decoder blocks; every tensor has values of its own."""
    random = np.random.default_rng(0)
    made: dict[str, Array] = {"encoder/num_heads": np.array(2, np.int8)}

    def linear(key: str, *shape: int) -> None:
        made[f"{key}/weight"] = random.standard_normal(shape)
        made[f"{key}/bias"] = random.standard_normal(shape[0])

    def norm(key: str) -> None:
        made[f"{key}/gamma"] = random.standard_normal(WIDTH)
        made[f"{key}/beta"] = random.standard_normal(WIDTH)

    linear("encoder/conv1", WIDTH, MELS, 3)
    linear("encoder/conv2", WIDTH, WIDTH, 3)
    made["encoder/position_encodings/encodings"] = random.standard_normal((10, WIDTH))
    made["decoder/position_encodings/encodings"] = random.standard_normal((5, WIDTH))
    made["decoder/embeddings/weight"] = random.standard_normal((VOCABULARY, WIDTH))
    for side, layers in (("encoder", 1), ("decoder", 2)):
        norm(f"{side}/layer_norm")
        for block in (f"{side}/layer_{layer}" for layer in range(layers)):
            linear(f"{block}/self_attention/linear_0", 3 * WIDTH, WIDTH)
            linear(f"{block}/self_attention/linear_1", WIDTH, WIDTH)
            norm(f"{block}/self_attention/layer_norm")
            linear(f"{block}/ffn/linear_0", 4 * WIDTH, WIDTH)
            linear(f"{block}/ffn/linear_1", WIDTH, 4 * WIDTH)
            norm(f"{block}/ffn/layer_norm")
            if side == "decoder":
                linear(f"{block}/attention/linear_0", WIDTH, WIDTH)
                linear(f"{block}/attention/linear_1", 2 * WIDTH, WIDTH)
                linear(f"{block}/attention/linear_2", WIDTH, WIDTH)
                norm(f"{block}/attention/layer_norm")
    return made


def test_fused_projections_come_apart_in_order() -> None:
    source = variables()
    weights = hugging_face_weights(source)
    fused = source["decoder/layer_1/self_attention/linear_0/weight"]
    block = "model.decoder.layers.1"
    for part, rows in (("q_proj", range(4)), ("k_proj", range(4, 8)), ("v_proj", range(8, 12))):
        assert np.array_equal(weights[f"{block}.self_attn.{part}.weight"], fused[list(rows)])
    cross = source["decoder/layer_1/attention/linear_1/weight"]
    assert np.array_equal(weights[f"{block}.encoder_attn.k_proj.weight"], cross[:4])
    assert np.array_equal(weights[f"{block}.encoder_attn.v_proj.weight"], cross[4:])


def test_keys_have_no_bias() -> None:
    weights = hugging_face_weights(variables())
    assert not [name for name in weights if name.endswith("k_proj.bias")]
    # Hugging Face's state dict: two convolutions, three embeddings, two final norms; blocks.
    outside, encoder_block, decoder_block = 4 + 3 + 4, 15, 24
    assert len(weights) == outside + encoder_block + 2 * decoder_block


def test_only_decoder_blocks_listen() -> None:
    listening = [name for name in hugging_face_weights(variables()) if "encoder_attn" in name]
    assert {name.split(".layers")[0] for name in listening} == {"model.decoder"}


def test_config_is_read_off_the_tensors() -> None:
    config = model_config(variables())
    assert (config["encoder_layers"], config["decoder_layers"]) == (1, 2)
    assert (config["d_model"], config["num_mel_bins"], config["vocab_size"]) == (4, 3, VOCABULARY)
    assert (config["max_source_positions"], config["max_target_positions"]) == (10, 5)
    assert config["encoder_attention_heads"] == 2
    # tiny.en: <|endoftext|> is 50256, <|startoftranscript|> 50257
    assert (config["eos_token_id"], config["decoder_start_token_id"]) == (50256, 50257)


def test_generation_config_keeps_the_lists() -> None:
    original = {"alignment_heads": [[1, 0]], "suppress_ids": [1, 2], "suppress_ids_begin": [220]}
    assert generation_config(original, VOCABULARY) == {
        "alignment_heads": [[1, 0]],
        "suppress_tokens": [1, 2],
        "begin_suppress_tokens": [220],
        "is_multilingual": False,
    }


def tokenizer() -> dict[str, Any]:
    added = [{"content": "<|notimestamps|>", "id": 50362}]
    return {"added_tokens": added, "model": {"vocab": {"a": 0}}}


def test_timestamps_fill_the_vocabulary() -> None:
    added = with_timestamps(tokenizer(), VOCABULARY)["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    # OpenAI's English vocabulary: <|0.00|> is 50363 and <|30.00|> the last of 51864 tokens.
    assert (ids["<|0.00|>"], ids["<|0.02|>"], ids["<|30.00|>"]) == (50363, 50364, 51863)
    assert len(added) == 1502


def test_timestamps_are_added_once() -> None:
    once = with_timestamps(tokenizer(), VOCABULARY)
    assert with_timestamps(once, VOCABULARY) == once


def test_a_vocabulary_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ModelError, match=r"does not fit its model\.bin"):
        with_timestamps(tokenizer(), VOCABULARY + 1)
