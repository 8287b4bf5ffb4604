"""GGUF file of a Llama-architecture model -> folder that `mlx_lm.load` reads.

Covers what SmolLM2-135M-Instruct needs: Q4_0, Q4_1 and Q8_0 matrices, which MLX can keep packed as
they are, and a byte-level BPE tokenizer that splits digits one by one.

Names and conventions on the GGUF side come from llama.cpp (`convert_hf_to_gguf.py` and
`gguf-py/gguf/tensor_mapping.py`), on the MLX side from `mlx_lm/models/llama.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tests.models import ModelError

VERSION: Final = 1
"""Raise it whenever the same GGUF file would give a different folder."""

Weights = dict[str, mx.array]
Metadata = Mapping[str, Any]

_GROUP_SIZE: Final = 32  # the block length of Q4_0, Q4_1 and Q8_0

_LAYER_NAMES: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

# `tokenizer.ggml.token_type` values, from llama.cpp's `llama_token_type`.
_CONTROL_TOKEN: Final = 3


def convert(source: Path, out: Path, *, dequantize: bool) -> None:
    """Write `out` as an MLX model folder with the weights of `source`.

    Scales, biases and norms become float32, also where the GGUF has float16: on Linux, MLX's CPU
    kernels for quantised half-precision matrices are slow by an order of magnitude and imprecise.

    Args:
        source: A `.gguf` file.
        out: An existing folder.
        dequantize: Store plain float32 matrices instead of packed ones.

    Raises:
        ModelError: The file holds an architecture or a tokenizer that is not handled here.
    """
    weights, metadata = _load(source)
    weights = rename_and_unpermute(weights, metadata)
    bits = bits_per_module(weights)
    weights = {
        name: value if value.dtype == mx.uint32 else value.astype(mx.float32)
        for name, value in weights.items()
    }
    config = model_config(metadata, tied_head="lm_head.weight" not in weights)
    if dequantize:
        weights = _dequantized(weights, bits)
    else:
        config |= quantization_config(bits)
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    _write_json(out / "config.json", config)
    token_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(out / "generation_config.json", token_ids)
    build_tokenizer(metadata).save(str(out / "tokenizer.json"))
    _write_json(out / "tokenizer_config.json", tokenizer_config(metadata))


def _load(source: Path) -> tuple[Weights, Metadata]:
    loaded = cast(
        tuple[Weights, dict[str, Any]], mx.load(str(source), format="gguf", return_metadata=True)
    )
    weights, raw = loaded
    metadata = {
        key: value.tolist() if isinstance(value, mx.array) else value for key, value in raw.items()
    }
    architecture = metadata["general.architecture"]
    if architecture != "llama":
        raise ModelError(
            f"{source.name} is a {architecture!r} model and only 'llama' is handled; "
            "teach tests/models/gguf.py its names and its RoPE layout"
        )
    return weights, metadata


def rename_and_unpermute(weights: Weights, metadata: Metadata) -> Weights:
    """The same tensors under mlx_lm's names, with the rows of q and k in mlx_lm's order."""
    heads = {
        "self_attn.q_proj": metadata["llama.attention.head_count"],
        "self_attn.k_proj": metadata["llama.attention.head_count_kv"],
    }
    renamed: Weights = {}
    for name, value in weights.items():
        module, suffix = _mlx_module(name)
        head_count = heads.get(".".join(module.split(".")[-2:]))
        rows = unpermute(value, head_count) if head_count else value
        renamed[f"{module}.{suffix}"] = rows
    return renamed


def _mlx_module(gguf_name: str) -> tuple[str, str]:
    """`blk.0.attn_q.scales` -> (`model.layers.0.self_attn.q_proj`, `scales`)."""
    stem, suffix = gguf_name.rsplit(".", 1)
    if stem in _TOP_NAMES:
        return _TOP_NAMES[stem], suffix
    block, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if block != "blk" or part not in _LAYER_NAMES:
        raise ModelError(
            f"tensor {gguf_name!r} has no known place in a Llama model; "
            "add it to the name tables of tests/models/gguf.py"
        )
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}", suffix


def unpermute(rows: mx.array, head_count: int) -> mx.array:
    """Undo the row order that llama.cpp gives q and k for its interleaved RoPE.

    Within a head of `d` rows, llama.cpp has the rotation pairs side by side: rows 0, d/2, 1,
    d/2 + 1, … of the original. mlx_lm rotates row i with row i + d/2, as the original does.
    Only whole rows move, so packed weights, scales and biases are all treated alike.

    Args:
        rows: [head_count * d, anything].
        head_count: Number of heads stacked in the rows.

    Returns:
        An array of the same shape.
    """
    pairs = rows.reshape(head_count, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def bits_per_module(weights: Weights) -> dict[str, int]:
    """Width of every packed matrix, by module name.

    A matrix [out, in] is packed into uint32 [out, in * bits / 32] with scales [out, in / 32], so
    the ratio of the two column counts is the width.
    """
    modules = [name.removesuffix(".scales") for name in weights if name.endswith(".scales")]
    return {
        module: weights[f"{module}.weight"].shape[-1] // weights[f"{module}.scales"].shape[-1]
        for module in modules
    }


def _dequantized(weights: Weights, bits: Mapping[str, int]) -> Weights:
    plain = dict(weights)
    for module, width in bits.items():
        scales = plain.pop(f"{module}.scales")
        biases = plain.pop(f"{module}.biases")
        packed = plain[f"{module}.weight"]
        plain[f"{module}.weight"] = mx.dequantize(
            packed, scales, biases, group_size=_GROUP_SIZE, bits=width
        )
    return plain


def quantization_config(bits: Mapping[str, int]) -> dict[str, Any]:
    """mlx_lm's `quantization` table: the smallest width for all, exceptions by module name."""
    usual = min(bits.values())
    table: dict[str, Any] = {"group_size": _GROUP_SIZE, "bits": usual}
    for module, width in sorted(bits.items()):
        if width != usual:
            table[module] = {"group_size": _GROUP_SIZE, "bits": width}
    return {"quantization": table, "quantization_config": table}


def model_config(metadata: Metadata, *, tied_head: bool) -> dict[str, Any]:
    """The `config.json` of mlx_lm's `llama` class for this GGUF header."""
    eos = metadata["tokenizer.ggml.eos_token_id"]
    width = metadata["llama.embedding_length"]
    heads = metadata["llama.attention.head_count"]
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        # A float32 in the header: 9.999999747378752e-06 stands for 1e-05.
        "rms_norm_eps": round(metadata["llama.attention.layer_norm_rms_epsilon"], 12),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "rope_theta": metadata["llama.rope.freq_base"],
        "max_position_embeddings": metadata["llama.context_length"],
        "tie_word_embeddings": tied_head,
        "hidden_act": "silu",
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": eos,
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id", eos),
        "torch_dtype": "float32",
    }


def build_tokenizer(metadata: Metadata) -> Tokenizer:
    """The byte-level BPE tokenizer that the GGUF header describes.

    `smollm` pre-tokenisation, from llama.cpp's `llama-vocab.cpp`: single digits, then GPT-2's
    pattern.
    """
    kind = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise ModelError(
            f"tokenizer {kind} is not handled, only ('gpt2', 'smollm') is; "
            "teach build_tokenizer in tests/models/gguf.py how it splits text"
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges: list[str] = metadata["tokenizer.ggml.merges"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ", 1) for merge in merges)]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind_of_token in zip(tokens, types, strict=True)
            if kind_of_token == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """The `tokenizer_config.json` that names the special tokens and the chat template."""
    tokens = metadata["tokenizer.ggml.tokens"]
    eos = metadata["tokenizer.ggml.eos_token_id"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[eos],
        "pad_token": tokens[metadata.get("tokenizer.ggml.padding_token_id", eos)],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        "chat_template": metadata["tokenizer.chat_template"],
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
