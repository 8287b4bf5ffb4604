"""GGUF conversion on a tiny model that MLX itself writes."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.models import ModelError
from tests.models.gguf import (
    bits_per_module,
    build_tokenizer,
    convert,
    quantization_config,
    rename_and_unpermute,
    unpermute,
)

TOKENS = ["<|end|>", "<|start|>", *"ab12", "Ġ", "ab"]
HEADS, KV_HEADS, WIDTH = 4, 2, 32


def header() -> dict[str, Any]:
    """What llama.cpp writes before the tensors."""
    return {
        "general.architecture": "llama",
        "llama.embedding_length": mx.array(WIDTH, mx.uint32),
        "llama.feed_forward_length": mx.array(64, mx.uint32),
        "llama.block_count": mx.array(1, mx.uint32),
        "llama.context_length": mx.array(128, mx.uint32),
        "llama.attention.head_count": mx.array(HEADS, mx.uint32),
        "llama.attention.head_count_kv": mx.array(KV_HEADS, mx.uint32),
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5, mx.float32),
        "llama.rope.freq_base": mx.array(100000.0, mx.float32),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.token_type": mx.array([3, 3, 1, 1, 1, 1, 1, 1], mx.int32),
        "tokenizer.ggml.bos_token_id": mx.array(1, mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(0, mx.uint32),
        "tokenizer.ggml.unknown_token_id": mx.array(0, mx.uint32),
        "tokenizer.chat_template": "{{ messages }}",
    }


def tensors() -> dict[str, mx.array]:
    shapes = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.attn_q.weight": (WIDTH, WIDTH),
        "blk.0.attn_k.weight": (WIDTH // 2, WIDTH),
        "blk.0.attn_v.weight": (WIDTH // 2, WIDTH),
        "blk.0.attn_output.weight": (WIDTH, WIDTH),
        "blk.0.ffn_norm.weight": (WIDTH,),
        "blk.0.ffn_gate.weight": (64, WIDTH),
        "blk.0.ffn_up.weight": (64, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, 64),
    }
    random = np.random.default_rng(0)
    return {
        name: mx.array(random.standard_normal(shape, dtype=np.float32))
        for name, shape in shapes.items()
    }


def plain_header() -> dict[str, Any]:
    return {
        key: value.tolist() if isinstance(value, mx.array) else value
        for key, value in header().items()
    }


def llama_cpp_permute(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Row by row: pair i of a head is its rows i and i + d/2, and pairs become neighbours."""
    per_head = rows.shape[0] // heads
    order = [
        head * per_head + pair + half
        for head in range(heads)
        for pair in range(per_head // 2)
        for half in (0, per_head // 2)
    ]
    return rows[order]


def test_unpermute_undoes_llama_cpp() -> None:
    rows = np.arange(2 * 8 * 3).reshape(16, 3)
    permuted = llama_cpp_permute(rows, heads=2)
    assert permuted[:4, 0].tolist() == [0, 12, 3, 15]  # rows 0, 4, 1, 5
    assert np.array_equal(np.array(unpermute(mx.array(permuted), 2)), rows)


def test_unpermute_holds_for_packed_weights() -> None:
    original = mx.random.normal((16, 64), key=mx.random.key(0))
    permuted = mx.array(llama_cpp_permute(np.array(original), heads=2))
    packed = [unpermute(part, 2) for part in mx.quantize(permuted, group_size=32, bits=4)]
    expected = mx.quantize(original, group_size=32, bits=4)
    assert all(mx.array_equal(*both) for both in zip(packed, expected, strict=True))


def test_q_and_k_are_unpermuted_and_nothing_else() -> None:
    source = tensors()
    result = rename_and_unpermute(source, plain_header())
    layer = "model.layers.0.self_attn"
    q, k = (np.array(source[f"blk.0.attn_{name}.weight"]) for name in "qk")
    assert np.array_equal(llama_cpp_permute(np.array(result[f"{layer}.q_proj.weight"]), HEADS), q)
    assert np.array_equal(
        llama_cpp_permute(np.array(result[f"{layer}.k_proj.weight"]), KV_HEADS), k
    )
    assert mx.array_equal(result[f"{layer}.v_proj.weight"], source["blk.0.attn_v.weight"])
    assert mx.array_equal(result[f"{layer}.o_proj.weight"], source["blk.0.attn_output.weight"])
    assert len(result) == len(source)


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'blk.0.ssm_in.weight' has no known place"):
        rename_and_unpermute({"blk.0.ssm_in.weight": mx.zeros((2, 2))}, plain_header())


def test_widths_are_read_off_the_shapes() -> None:
    weights: dict[str, mx.array] = {}
    for module, bits in (("model.embed_tokens", 8), ("a.q_proj", 4), ("a.k_proj", 4)):
        packed = mx.quantize(mx.zeros((4, 64)), group_size=32, bits=bits)
        for suffix, part in zip(("weight", "scales", "biases"), packed, strict=True):
            weights[f"{module}.{suffix}"] = part
    bits_found = bits_per_module(weights)
    assert bits_found == {"model.embed_tokens": 8, "a.q_proj": 4, "a.k_proj": 4}
    assert quantization_config(bits_found)["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }


def test_writes_a_whole_folder(tmp_path: Path) -> None:
    source, out = tmp_path / "tiny.gguf", tmp_path / "out"
    mx.save_gguf(str(source), tensors(), header())
    out.mkdir()
    convert(source, out, dequantize=True)
    config = json.loads((out / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert (config["head_dim"], config["num_key_value_heads"], config["vocab_size"]) == (8, 2, 8)
    assert config["tie_word_embeddings"] is True
    assert "quantization" not in config
    chat = json.loads((out / "tokenizer_config.json").read_text())
    assert (chat["bos_token"], chat["eos_token"]) == ("<|start|>", "<|end|>")
    weights = mx.load(str(out / "model.safetensors"))
    assert isinstance(weights, dict)
    assert weights["model.layers.0.mlp.down_proj.weight"].shape == (WIDTH, 64)
    assert {value.dtype for value in weights.values()} == {mx.float32}
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.encode("ab12").tokens == ["ab", "1", "2"]


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    mx.save_gguf(str(source), tensors(), header() | {"general.architecture": "mamba"})
    with pytest.raises(ModelError, match="'mamba' model and only 'llama' is handled"):
        convert(source, tmp_path, dequantize=True)


def test_tokenizer_keeps_control_tokens_whole() -> None:
    tokenizer = build_tokenizer(plain_header())
    assert tokenizer.encode("<|start|>ab a<|end|>").tokens == [
        "<|start|>",
        "ab",
        "Ġ",
        "a",
        "<|end|>",
    ]
    assert tokenizer.decode([7, 6, 2, 4]) == "ab a1"


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(ModelError, match="not handled"):
        build_tokenizer(plain_header() | {"tokenizer.ggml.pre": "qwen2"})
