"""Builds model folders for tests: config, safetensors with a header and zeroed data."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "U8": 1}

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The bytes of a file that holds these tensors, all zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx", "dtype": "a decoy"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = ITEM_BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def llama_tensors(
    layers: int = 2, kv_width: int = 32, dtype: str = "BF16"
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that matter of a llama: embeddings and the projections into the cache."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": (dtype, (10, 64))
    }
    for layer in range(layers):
        for part in ("k_proj", "v_proj"):
            tensors[f"model.layers.{layer}.self_attn.{part}.weight"] = (dtype, (kv_width, 64))
    return tensors


def write_folder(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    files: Mapping[str, Any] | None = None,
) -> Path:
    """A model folder; values of ``files`` are JSON, or text or bytes as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LLAMA if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(
        safetensors(llama_tensors() if tensors is None else tensors)
    )
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder
