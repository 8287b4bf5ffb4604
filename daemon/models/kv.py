"""How many bytes of key-value cache a token needs, from a folder's config and tensor shapes.

The shapes of the projections that fill the cache say it best: they count only the layers that
have attention, and hold where config.json leaves a library's defaults unsaid (Gemma 3's
``text_config`` names no heads). The formula from config.json is for models that fuse the
projections into one tensor.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon.models.safetensors import Tensor

PREFILL_TOKENS: Final = 512
"""A sliding window's cache holds its window and the chunk of prompt being read."""

MLA_EXPANDED: Final = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})
"""Model types whose mlx-lm module caches whole heads, and not the latent vector of
multi-head latent attention (read in mlx_lm/models, 0.32.2)."""

NOT_LANGUAGE: Final = re.compile(
    r"(?:^|\.)(?:vision|visual|image|img|vit|vpm|siglip|sam_model|tower|resampler|audio|speech"
    r"|encoder|mtp)"
)
"""Names of tensors outside the language model's own layers."""

_PROJECTION: Final = re.compile(
    r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.(?:\w+\.)*(k_proj|v_proj|kv_a_proj_with_mqa)\.weight$"
)
_FLOAT_BYTES: Final = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_EMBEDDING: Final = re.compile(r"(?:^|\.)(?:embed_tokens|wte|tok_embeddings|word_embeddings)\.")
_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config")


class KvShape(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of cache, for all layers together.

    Attributes:
        full_token_bytes: For each token of a row, in layers that keep every token.
        window_token_bytes: The same, in layers that keep the last ``window_tokens`` only.
        window_tokens: The longest sliding window; 0 if there is none.
    """

    full_token_bytes: int = 0
    window_token_bytes: int = 0
    window_tokens: int = 0

    @property
    def token_bytes(self) -> int:
        """The most that one more token can cost."""
        return self.full_token_bytes + self.window_token_bytes

    def reserved_bytes(self, kv_tokens: int, rows_max: int) -> int:
        """The most that ``kv_tokens`` in all can hold, spread over ``rows_max`` rows or fewer.

        Windowed layers hold at most a window and a chunk of prompt for each row.
        """
        windowed_tokens = min(kv_tokens, rows_max * (self.window_tokens + PREFILL_TOKENS))
        return kv_tokens * self.full_token_bytes + windowed_tokens * self.window_token_bytes


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a config; keys of the whole stand in for missing ones."""
    outer = config.get("thinker_config")
    for source in (config, outer if isinstance(outer, dict) else {}):
        for name in _TEXT_CONFIGS:
            if isinstance(nested := source.get(name), dict) and nested:
                return {**config, **nested}
    return dict(config)


def integer(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these keys that holds a positive whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    return None


def activation_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of one value in the cache: activations have the type of the embeddings.

    Quantised embeddings come out in the type of their scales.
    """
    for suffix in (".scales", ".weight"):
        for name, tensor in tensors.items():
            if name.endswith(suffix) and _EMBEDDING.search(name) and tensor.dtype in _FLOAT_BYTES:
                return _FLOAT_BYTES[tensor.dtype]
    counts = dict.fromkeys(_FLOAT_BYTES, 0)
    for tensor in tensors.values():
        if tensor.dtype in counts:
            counts[tensor.dtype] += 1
    most = max(counts, key=lambda dtype: counts[dtype])
    return _FLOAT_BYTES[most] if counts[most] else 2


def kv_shape(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KvShape:
    """The cache that a model needs; layers without attention need none.

    Recurrent layers keep a state of constant size a row, which is not counted here.
    """
    inner = text_config(config)
    widths = _expanded_mla(config, inner) or _widths_of_tensors(inner, tensors)
    if not widths:
        widths = _widths_of_config(inner)
    item_bytes = activation_bytes(tensors)
    window_tokens = integer(inner, "sliding_window", "sliding_window_size") or 0
    windowed = _windowed_layers(inner, len(widths)) if window_tokens else frozenset()
    full = sum(width for layer, width in widths.items() if layer not in windowed)
    window = sum(width for layer, width in widths.items() if layer in windowed)
    return KvShape(
        full_token_bytes=full * item_bytes,
        window_token_bytes=window * item_bytes,
        window_tokens=window_tokens if window else 0,
    )


def _widths_of_tensors(inner: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[int, int]:
    """Values cached a token, by layer, from the shapes of the projections."""
    found: dict[str, dict[int, int]] = {"k_proj": {}, "v_proj": {}, "kv_a_proj_with_mqa": {}}
    for name, tensor in tensors.items():
        match = _PROJECTION.search(name)
        if match and len(tensor.shape) == 2 and not NOT_LANGUAGE.search(name):
            widths = found[match[2]]
            widths[int(match[1])] = widths.get(int(match[1]), 0) + tensor.shape[0]
    if latent := found["kv_a_proj_with_mqa"]:
        # Beside latent attention, k_proj belongs to linear attention or to an indexer.
        indexer = 2 * (integer(inner, "index_head_dim") or 0)
        return {layer: width + indexer for layer, width in latent.items()}
    keys, values = found["k_proj"], found["v_proj"]
    layers = integer(inner, "num_hidden_layers")
    shared = integer(inner, "num_kv_shared_layers") or 0
    own = layers - shared if layers and shared else None
    return {
        layer: width + values.get(layer, width)
        for layer, width in keys.items()
        if own is None or layer < own
    }


def _expanded_mla(config: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[int, int]:
    if not {str(inner.get("model_type")), str(config.get("model_type"))} & MLA_EXPANDED:
        return {}
    heads = integer(inner, "num_attention_heads")
    layers = integer(inner, "num_hidden_layers")
    rope = integer(inner, "qk_rope_head_dim")
    if not heads or not layers or not rope:
        return {}
    keys = (integer(inner, "qk_nope_head_dim") or 0) + rope
    values = integer(inner, "v_head_dim") or (integer(inner, "hidden_size") or 0) // heads
    return dict.fromkeys(range(layers), heads * (keys + values))


def _widths_of_config(inner: Mapping[str, Any]) -> dict[int, int]:
    """2 · kv_heads · head_dim for each layer with attention."""
    layers = integer(inner, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = integer(inner, "num_attention_heads", "n_head", "n_heads")
    hidden = integer(inner, "hidden_size", "n_embd", "d_model")
    if not layers or not heads or layers > 10_000:
        return {}
    nested = inner.get("attn_config")
    kv_heads = integer(inner, "num_key_value_heads", "num_kv_heads", "n_head_kv") or integer(
        nested if isinstance(nested, dict) else {}, "kv_n_heads"
    )
    if kv_heads is None:
        kv_heads = 1 if inner.get("multi_query") is True else heads
    head_dim = integer(inner, "head_dim") or (hidden or 0) // heads
    width = 2 * kv_heads * head_dim
    types = inner.get("layer_types")
    if isinstance(types, list) and len(types) == layers:
        attention = [i for i, kind in enumerate(types) if _is_attention(kind)]
        return dict.fromkeys(attention, width)
    return dict.fromkeys(range(layers), width)


def _is_attention(layer_type: object) -> bool:
    return isinstance(layer_type, str) and "attention" in layer_type and "linear" not in layer_type


def _windowed_layers(inner: Mapping[str, Any], layers: int) -> frozenset[int]:
    """Layers that mlx-lm gives a rotating cache: only where the config says which they are.

    A ``sliding_window`` alone (Mistral) is ignored by mlx-lm, and counted in full here.
    """
    types = inner.get("layer_types")
    if isinstance(types, list):
        return frozenset(i for i, kind in enumerate(types) if kind == "sliding_attention")
    pattern = integer(inner, "sliding_window_pattern")
    if pattern is None and str(inner.get("model_type")).startswith("gemma3"):
        pattern = 6
    if pattern is None:
        return frozenset()
    return frozenset(i for i in range(layers) if i % pattern != pattern - 1)
