"""Known causes of failing loads, told before a worker is spent on them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from daemon.models import architectures as known
from daemon.models.folder import read_json
from daemon.models.safetensors import Tensor
from daemon.wire.errors import Code, MlxdError

PROCESSOR_FILES: Final = ("preprocessor_config.json", "processor_config.json")
NO_PROCESSOR_NEEDED: Final = frozenset({"moondream1", "moondream2", "moondream3"})

_VISION_TENSOR: Final = re.compile(
    r"(?:^|\.)(?:vision|visual|image|img|vit|vpm|siglip|sam_model|tower|resampler)"
)
_TOKENIZER_CODE: Final = ("AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
_CLASSIFIERS: Final = ("ForSequenceClassification", "ForTokenClassification")


def refuse_code(
    folder: Path, files: Mapping[str, os.stat_result], config: Mapping[str, Any]
) -> None:
    """Refuse a folder that wants its own Python files run: they could do anything.

    ``model_file`` always means that. ``auto_map`` does where no library here knows the type,
    and for tokenizers and processors whose Python file lies in the folder (mlx-vlm would run
    it without asking). Many folders carry an ``auto_map`` that nothing uses; those pass.

    Raises:
        MlxdError: ``incompatible`` naming the file that asks for it.
    """
    if (model_file := config.get("model_file")) is not None:
        raise _code(folder, "config.json", f"model_file {str(model_file)[:80]!r}")
    auto_map = config.get("auto_map")
    if isinstance(auto_map, dict) and auto_map and not _is_known(config):
        raise _code(folder, "config.json", "auto_map, for a type that no library here knows")
    for name in ("config.json", "tokenizer_config.json", *PROCESSOR_FILES):
        if name not in files:
            continue
        table = config if name == "config.json" else read_json(folder / name)
        auto_map = table.get("auto_map")
        entries = auto_map if isinstance(auto_map, dict) else {}
        for key in _TOKENIZER_CODE:
            for module in _modules(entries.get(key)):
                if f"{module}.py" in files:
                    raise _code(folder, name, f"auto_map, to {module}.py")


def check_vision(
    folder: Path,
    files: Mapping[str, os.stat_result],
    config: Mapping[str, Any],
    architecture: str,
    tensors: Mapping[str, Tensor],
) -> Literal["text", "vision"]:
    """Whether a folder of a vision type can be asked about pictures, or is text only.

    Conversions by mlx-lm keep config.json and drop the vision weights, so the weights
    decide.

    Raises:
        MlxdError: ``incompatible`` if vision parts are there and others are missing: then the
            libraries fail late and without naming the cause.
    """
    has_processor = any(name in files for name in PROCESSOR_FILES)
    has_tensors = any(_VISION_TENSOR.search(name) for name in tensors)
    vision = config.get("vision_config")
    required = known.VISION_FIELDS_REQUIRED.get(architecture, ())
    claims = has_tensors or has_processor or "ConditionalGeneration" in _architectures(config)
    if claims and not vision and required:
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"config.json in {folder} has no vision_config, though the model is the vision "
            f"variant of {architecture}: the conversion lost it, and building the vision model "
            f"needs its {len(required)} fields {', '.join(required)}; copy vision_config from "
            "the original model's config.json, or take another conversion",
            hint="copy vision_config from the original model's config.json",
            field="config.json",
        )
    if not has_tensors and (architecture in known.TEXT or not vision):
        return "text"
    needless = architecture in known.OWN_IMAGE_PROCESSOR or architecture in NO_PROCESSOR_NEEDED
    if not has_processor and not needless:
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"{PROCESSOR_FILES[0]} is missing in {folder}: without it {architecture} has no "
            "image processor and fails on its first picture; copy the processor files from "
            "the original model",
            hint="copy the processor files from the original model",
            field=PROCESSOR_FILES[0],
        )
    return "vision"


def unserved_task(config: Mapping[str, Any], model_type: str) -> str | None:
    """What a model is, if it is for a task that no engine here has; else None."""
    if model_type in known.OTHER_AUDIO:
        return f"an audio model of type {model_type}"
    architectures = _architectures(config)
    if any(name.endswith(_CLASSIFIERS) for name in architectures.split()):
        return f"a classifier ({architectures})"
    return None


def _architectures(config: Mapping[str, Any]) -> str:
    stated = config.get("architectures")
    names = stated if isinstance(stated, list) else [stated]
    return " ".join(name for name in names if isinstance(name, str))


def _is_known(config: Mapping[str, Any]) -> bool:
    model_type = str(config.get("model_type") or "").lower()
    return any(
        model_type in table
        for table in (
            known.TEXT,
            known.VISION,
            known.EMBEDDINGS,
            known.SPEECH,
            known.TRANSCRIPTION,
        )
    )


def _modules(reference: object) -> set[str]:
    """Modules named by an ``auto_map`` entry: "tokenization_x.Class", or a list of such."""
    entries = reference if isinstance(reference, list) else [reference]
    return {
        entry.rpartition("--")[2].rpartition(".")[0]
        for entry in entries
        if isinstance(entry, str) and "." in entry
    }


def _code(folder: Path, name: str, what: str) -> MlxdError:
    hint = 'set allow_code = true under [models."…"] if you trust it as you trust a program'
    return MlxdError(
        Code.INCOMPATIBLE,
        f"{name} in {folder} wants Python code from the folder to be run ({what}); {hint}",
        hint=hint,
        field=name,
    )
