"""Expected figures are worked out by hand from the published configurations."""

from typing import Any

import pytest

from daemon.models.kv import KvShape, activation_bytes, kv_shape
from daemon.models.safetensors import Tensor

BF16_EMBEDDING = {"model.embed_tokens.weight": Tensor("BF16", (4, 4), (0, 32))}


def weights(names: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    return BF16_EMBEDDING | {name: Tensor("BF16", shape, (0, 0)) for name, shape in names.items()}


def layers(count: int, parts: dict[str, int], prefix: str = "model.") -> dict[str, Tensor]:
    return weights(
        {
            f"{prefix}layers.{layer}.self_attn.{part}.weight": (width, 8)
            for layer in range(count)
            for part, width in parts.items()
        }
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Phi-3-mini (fused qkv): 32 layers, 32 heads of 96, 2 bytes
        ({"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 3072},
         2 * 32 * 32 * 96 * 2),
        # GPT-2: 12 layers, 12 heads of 64
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 2 * 12 * 12 * 64 * 2),
        # DBRX: 40 layers, 8 kv heads of 128
        ({"n_layers": 40, "n_heads": 48, "d_model": 6144, "attn_config": {"kv_n_heads": 8}},
         2 * 40 * 8 * 128 * 2),
        # Mamba: no attention
        ({"num_hidden_layers": 48, "hidden_size": 1024}, 0),
        # one of two layers attends
        ({"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
          "layer_types": ["linear_attention", "full_attention"]}, 2 * 2 * 8 * 2),
        # DeepSeek-V2-Lite: mlx-lm caches 27 layers of 16 heads of 192 + 128
        ({"model_type": "deepseek_v2", "num_hidden_layers": 27, "num_attention_heads": 16,
          "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
         27 * 16 * 320 * 2),
    ],
)  # fmt: skip
def test_from_config(config: dict[str, Any], expected: int) -> None:
    assert kv_shape(config, BF16_EMBEDDING).token_bytes == expected


def test_from_shapes_where_the_config_is_silent() -> None:
    """gemma-3-4b-it: 34 layers, 4 kv heads of 256, and text_config names neither."""
    config = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "sliding_window": 1024},
    }
    tensors = layers(34, {"k_proj": 1024, "v_proj": 1024}, "language_model.model.")
    shape = kv_shape(config, tensors)
    # layers 5, 11, 17, 23 and 29 see everything
    assert shape == KvShape(
        full_token_bytes=5 * 2048 * 2, window_token_bytes=29 * 2048 * 2, window_tokens=1024
    )
    assert shape.reserved_bytes(16_384, 1) == 16_384 * 5 * 4096 + 1536 * 29 * 4096
    assert shape.reserved_bytes(16_384, 64) == 16_384 * 34 * 4096


def test_latent_attention() -> None:
    """DeepSeek-V3: 512 + 64 values a layer; linear layers beside it have k_proj of their own."""
    tensors = layers(3, {"kv_a_proj_with_mqa": 576}) | weights(
        {"model.layers.3.self_attn.k_proj.weight": (4096, 8)}
    )
    assert kv_shape({"num_hidden_layers": 4}, tensors).token_bytes == 3 * 576 * 2
    indexed = kv_shape({"num_hidden_layers": 4, "index_head_dim": 128}, tensors)
    assert indexed.token_bytes == 3 * (576 + 256) * 2


def test_hybrid_layers_without_attention_cost_nothing_a_token() -> None:
    tensors = layers(1, {"k_proj": 64, "v_proj": 64}) | weights(
        {"model.layers.1.mamba.in_proj.weight": (64, 8)}
    )
    assert kv_shape({"num_hidden_layers": 2}, tensors).token_bytes == 128 * 2


def test_layers_that_share_anothers_cache_cost_nothing() -> None:
    config = {"num_hidden_layers": 4, "num_kv_shared_layers": 1}
    assert kv_shape(config, layers(4, {"k_proj": 8, "v_proj": 8})).token_bytes == 3 * 16 * 2


def test_keys_that_are_values_too_are_cached_twice() -> None:
    assert kv_shape({}, layers(1, {"k_proj": 8})).token_bytes == 16 * 2


def test_activations_have_the_type_of_the_embeddings() -> None:
    f32 = Tensor("F32", (1,), (0, 4))
    u8 = Tensor("U8", (1,), (0, 1))
    u32 = Tensor("U32", (1,), (0, 4))
    bf16 = Tensor("BF16", (1,), (0, 2))
    name = "model.embed_tokens"
    assert activation_bytes({f"{name}.weight": u32, f"{name}.scales": f32, "norm": bf16}) == 4
    assert activation_bytes({f"{name}.weight": bf16, "a": f32, "b": f32}) == 2
    assert activation_bytes({f"{name}.weight": u32, f"{name}.scales": u8, "norm": f32}) == 4
    assert activation_bytes({}) == 2
