"""What a model folder is: from its files only, never from its name.

Only headers and configuration are read, nothing is executed and no model library is
imported. The rules follow how mlx-lm, mlx-vlm and mlx-audio choose by config.json; the types
they know are in the generated table beside this module. A type that nobody knows counts as
text, and the library says what it thinks of it.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from daemon.models import architectures as known
from daemon.models import preflight
from daemon.models.folder import (
    broken,
    fingerprint_of,
    list_files,
    read_chat_template,
    read_json,
    read_weights,
)
from daemon.models.kv import KvShape, integer, kv_shape, text_config
from daemon.models.safetensors import Tensor
from daemon.wire.errors import Code, MlxdError

Kind = Literal["text", "vision", "embeddings", "speech", "transcription"]

CONTEXT_TOKENS_UNSAID: Final = 8192
"""Where a config names no limit; ``context_tokens`` in the settings says otherwise."""

TOOL_MARKERS: Final = (
    ("<minimax:tool_call>",),
    ("<|tool_call>", "<tool_call|>"),
    ("<start_function_call>",),
    ("<longcat_tool_call>",),
    ("<arg_key>",),
    ("<|tool_list_start|>",),
    ("<|tool_call_start|>",),
    ("<tool_call>\\n<function=",),
    ("<tool_call>\n<function=",),
    ("<|tool_calls_section_begin|>",),
    ('<function name="', '<param name="'),
    ("[TOOL_CALLS]",),
    ("<atem:function_calls>",),
    ("<tool_call>", "tool_call.name"),
)
"""Texts of a chat template by which mlx-lm picks a tool parser (tokenizer_utils.py)."""

THINK_MARKERS: Final = (
    "<think>",
    "<longcat_think>",
    "<|think:start|>",
    "<|channel>",
    "<|channel|>analysis",
    "enable_thinking",
)


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """How the weights are packed, as config.json says; layers may differ."""

    bits: int | None
    group_size: int | None
    mode: str


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a model folder.

    Attributes:
        path: The folder, absolute, links resolved.
        kind: Which engine serves it.
        capabilities: "text", "vision", "embeddings", "speech" or "transcription", and for
            text and vision also what requests may ask of it: "chat" and "count_tokens" (has a
            chat template), "tools", "thinking", "thinking_budget", "reasoning_effort" (the
            template has that variable), "logprobs" and "structured" (has a tokenizer that can
            be read token by token).
        architecture: The ``model_type``, or what stands for it where config.json has none.
        weights_bytes: What the loaded weights occupy.
        kv: The key-value cache that a token needs.
        context_tokens: Longest prompt and answer together.
        dtype: What most bytes of the weights are, as safetensors names it: "BF16", "U32".
        fingerprint: Changes when a file of the folder does.
        modified_at_ms: When config.json was last written.
    """

    path: str
    kind: Kind
    capabilities: tuple[str, ...]
    architecture: str
    weights_bytes: int
    kv: KvShape
    context_tokens: int
    quantization: Quantization | None
    dtype: str
    fingerprint: str
    modified_at_ms: int

    @property
    def precision(self) -> str:
        """How the weights are stored, for people: "4-bit", "mxfp4", "bf16", "f32"."""
        packed = self.quantization
        if packed is None:
            return self.dtype.lower()
        if packed.bits is None or packed.mode != "affine":
            return packed.mode
        return f"{packed.bits}-bit"

    @property
    def kv_token_bytes(self) -> int:
        """The most bytes of cache that one more token can cost."""
        return self.kv.token_bytes


def inspect_folder(path: str | Path, *, allow_code: bool = False) -> Inspection:
    """What the folder at ``path`` is.

    Blocks for as long as its volume does: call it in a thread.

    Args:
        path: The model folder.
        allow_code: Accept a folder that wants its own Python files to be run.

    Raises:
        MlxdError: ``not_found`` if there is no such folder; ``incompatible``, with the file
            in ``field``, if it cannot be loaded and its files already say so.
    """
    folder = Path(os.path.realpath(path))
    files = list_files(folder)
    if "config.json" not in files:
        raise _no_config(folder, files)
    config = read_json(folder / "config.json")
    if not allow_code:
        preflight.refuse_code(folder, files, config)
    kind, architecture = _kind(folder, files, config)
    tensors = read_weights(folder, files, only_named_model=kind == "text")
    if kind == "vision":
        kind = preflight.check_vision(folder, files, config, architecture, tensors)
    return Inspection(
        path=str(folder),
        kind=kind,
        capabilities=_capabilities(folder, files, kind),
        architecture=architecture,
        weights_bytes=sum(tensor.size_bytes for tensor in tensors.values()),
        kv=kv_shape(config, tensors) if kind in {"text", "vision"} else KvShape(),
        context_tokens=_context_tokens(folder, files, config, kind),
        quantization=_quantization(config),
        dtype=_dtype(tensors),
        fingerprint=fingerprint_of(files),
        modified_at_ms=files["config.json"].st_mtime_ns // 1_000_000,
    )


def _kind(
    folder: Path, files: Mapping[str, os.stat_result], config: Mapping[str, Any]
) -> tuple[Kind, str]:
    """The engine and the architecture; a vision type may still turn out to be text only."""
    model_type = _model_type(config)
    if model_type is None:
        raise broken(folder / "config.json", "has no model_type, so nothing knows how to load it")
    if model_type in known.SPEECH:
        return "speech", known.SPEECH[model_type]
    if model_type in known.TRANSCRIPTION:
        return "transcription", known.TRANSCRIPTION[model_type]
    unserved = preflight.unserved_task(config, model_type)
    if unserved:
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"the model in {folder} is {unserved}, which no engine here serves; "
            "choose a text, vision, embeddings, speech or transcription model",
            field="config.json",
        )
    if model_type in known.EMBEDDINGS or "config_sentence_transformers.json" in files:
        return "embeddings", model_type
    if (folder / "1_Pooling" / "config.json").is_file():
        return "embeddings", model_type
    return ("vision" if model_type in known.VISION else "text"), model_type


def _model_type(config: Mapping[str, Any]) -> str | None:
    """``model_type``, or the audio architecture whose fields a config without one has."""
    stated = config.get("model_type") or config.get("architecture")
    if stated == "llama" and "acoustic_dim" in config:
        return "tada"
    if isinstance(stated, str):
        return stated.lower()
    for fields, architecture in (
        ({"istftnet", "plbert"}, "kokoro"),
        ({"flow_lm", "mimi"}, "pocket_tts"),
        ({"n_mels", "n_audio_ctx", "n_text_ctx"}, "whisper"),
        ({"speech_vocab_size", "delay_pattern"}, "mimo_audio"),
    ):
        if fields <= config.keys():
            return architecture
    if str(config.get("target")).startswith("nemo.collections.asr."):
        return "parakeet"
    return None


def _no_config(folder: Path, files: Mapping[str, os.stat_result]) -> MlxdError:
    if gguf := next((name for name in files if name.lower().endswith(".gguf")), None):
        what, name = f"{gguf} is GGUF, which MLX models are not", gguf
        hint = "get the MLX conversion of this model, or convert the original with mlx_lm.convert"
    else:
        what, name = "it has no config.json", "config.json"
        hint = "name the folder that holds config.json and the weights"
    return MlxdError(
        Code.INCOMPATIBLE, f"{folder} is not a model folder: {what}; {hint}", hint=hint, field=name
    )


def _capabilities(folder: Path, files: dict[str, os.stat_result], kind: Kind) -> tuple[str, ...]:
    if kind not in {"text", "vision"}:
        return (kind,)
    template = read_chat_template(folder, files)
    found = ["text"] if kind == "text" else ["text", "vision"]
    if template:
        found.append("chat")
    if any(all(marker in template for marker in markers) for markers in TOOL_MARKERS):
        found.append("tools")
    if any(marker in template for marker in THINK_MARKERS):
        found += ["thinking", "thinking_budget"]
    if "reasoning_effort" in template:
        found.append("reasoning_effort")
    if "tokenizer.json" in files:
        found += ["logprobs", "structured"]
    return (*found, "count_tokens") if template else tuple(found)


def _context_tokens(
    folder: Path, files: Mapping[str, os.stat_result], config: Mapping[str, Any], kind: Kind
) -> int:
    inner = text_config(config)
    stated = integer(
        inner,
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "n_ctx",
        "max_target_positions",
        "n_text_ctx",
    )
    if stated is None and str(inner.get("model_type")).startswith("gemma3"):
        stated = 131_072  # transformers' default, which Gemma 3's configs rely on
    if kind == "embeddings" and "sentence_bert_config.json" in files:
        # What the model was tuned for, often less than it has positions.
        tuned = integer(read_json(folder / "sentence_bert_config.json"), "max_seq_length")
        stated = min(tuned, stated) if tuned and stated else tuned or stated
    return stated or CONTEXT_TOKENS_UNSAID


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    """The type that takes most of the bytes; empty without tensors."""
    bytes_of: Counter[str] = Counter()
    for tensor in tensors.values():
        bytes_of[tensor.dtype] += tensor.size_bytes
    return max(bytes_of, key=bytes_of.__getitem__, default="")


def _quantization(config: Mapping[str, Any]) -> Quantization | None:
    for source in (config, text_config(config)):
        for name in ("quantization", "quantization_config"):
            found = source.get(name)
            if isinstance(found, dict) and found:
                mode = found.get("mode") or found.get("quant_method") or "affine"
                return Quantization(
                    bits=integer(found, "bits"),
                    group_size=integer(found, "group_size"),
                    mode=str(mode),
                )
    return None
