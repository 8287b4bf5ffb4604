"""What popular models are: their config.json, cut down to what can decide, and the files beside.

Folders carry misleading names on purpose: only what is inside may count.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from daemon.models import architectures as known
from daemon.models.inspect import inspect_folder
from tests.daemon.models.folders import llama_tensors, write_folder

TOWER: Final = {"vision_tower.blocks.0.k_proj.weight": ("BF16", (64, 64))}
PICTURES: Final = {"preprocessor_config.json": {"image_processor_type": "X"}}
POOLING: Final = {"1_Pooling/config.json": {"pooling_mode_mean_tokens": True}}
READABLE: Final[dict[str, Any]] = {"tokenizer.json": {}}
CHAT: Final = {"chat_template.jinja": "{{ messages }}"}
TOOLS: Final = "<tool_call>{{ tool_call.name }}"
QWEN3: Final = {
    "chat_template.jinja": f"{TOOLS}{{% if enable_thinking is false %}}<think></think>{{% endif %}}"
}
HARMONY: Final = {"chat_template.jinja": "<|channel|>analysis {{ reasoning_effort }}"}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A model's files, and what they say.

    Attributes:
        name: What its folder is called: as misleading as names are.
        can: Capabilities beyond its kind; those of text and vision models.
    """

    name: str
    config: Mapping[str, Any]
    kind: str
    files: Mapping[str, Any] = {}
    tower: bool = False
    can: frozenset[str] = frozenset()


def causal(model_type: str, stated: str, **more: Any) -> Mapping[str, Any]:
    return {"model_type": model_type, "architectures": [f"{stated}ForCausalLM"], **more}


def seeing(model_type: str, stated: str, **more: Any) -> Mapping[str, Any]:
    return {
        "model_type": model_type,
        "architectures": [f"{stated}ForConditionalGeneration"],
        "text_config": {"num_hidden_layers": 2, "hidden_size": 64},
        "vision_config": {"hidden_size": 64},
        **more,
    }


def text(name: str, config: Mapping[str, Any], *can: str, **files: Any) -> Sample:
    return Sample(
        name=name,
        config=config,
        kind="text",
        files=files.get("files", {}),
        can=frozenset(can),
    )


def vision(name: str, config: Mapping[str, Any], files: Mapping[str, Any] = PICTURES) -> Sample:
    return Sample(name=name, config=config, kind="vision", files=files, tower=True)


TEXT: Final = (
    text("Mixtral-8x7B-tts", causal("mixtral", "Mixtral", num_local_experts=8)),
    text("dac-llama-whisper", causal("llama", "Llama"), "chat", files=CHAT),
    text("mistral-vision", causal("mistral", "Mistral", sliding_window=4096)),
    text("qwen2.5-vl-not", causal("qwen2", "Qwen2")),
    text("qwen2-moe", causal("qwen2_moe", "Qwen2Moe")),
    text(
        "Qwen3-0.6B",
        causal("qwen3", "Qwen3"),
        *("chat", "tools", "thinking", "thinking_budget", "logprobs", "structured"),
        files=QWEN3 | READABLE,
    ),
    text("Qwen3-30B-A3B", causal("qwen3_moe", "Qwen3Moe")),
    text("Qwen3-Next", causal("qwen3_next", "Qwen3Next", layer_types=["linear_attention"])),
    text("gemma-embedding", causal("gemma", "Gemma")),
    text("gemma-2-9b-it", causal("gemma2", "Gemma2")),
    text("gemma-3-1b-it", causal("gemma3_text", "Gemma3")),
    text("gemma-3-4b-it-text", {**seeing("gemma3", "Gemma3"), "architectures": []}),
    text("phi-2", causal("phi", "Phi")),
    text("Phi-3-vision-name", causal("phi3", "Phi3")),
    text("Phi-3.5-MoE", causal("phimoe", "PhiMoE")),
    text(
        "gpt-oss-20b",
        causal("gpt_oss", "GptOss", quantization={"mode": "mxfp4", "bits": 4, "group_size": 32}),
        *("chat", "thinking", "thinking_budget", "reasoning_effort"),
        files=HARMONY,
    ),
    text("DeepSeek-V2-Lite", causal("deepseek_v2", "DeepseekV2")),
    text("DeepSeek-V3", causal("deepseek_v3", "DeepseekV3")),
    text("GLM-4.5-Air", causal("glm4_moe", "Glm4Moe")),
    text("c4ai-command-r", causal("cohere", "Cohere")),
    text("command-r7b", causal("cohere2", "Cohere2")),
    text("starcoder2-3b", causal("starcoder2", "Starcoder2")),
    text("OLMo-2", causal("olmo2", "Olmo2")),
    text("SmolLM3-3B", causal("smollm3", "SmolLM3")),
    text("granite-3.3", causal("granite", "Granite")),
    text("granite-4.0-h-tiny", causal("granitemoehybrid", "GraniteMoeHybrid")),
    text("Falcon-H1", causal("falcon_h1", "FalconH1")),
    text("mamba2-codec", causal("mamba2", "Mamba2")),
    text("LFM2-1.2B", causal("lfm2", "Lfm2")),
    text("EXAONE-4.0", causal("exaone4", "Exaone4")),
    text("ERNIE-4.5-0.3B", causal("ernie4_5", "Ernie4_5")),
    text("Hunyuan-0.5B", causal("hunyuan_v1_dense", "HunYuanDenseV1")),
    text("Seed-OSS", causal("seed_oss", "SeedOss")),
    text("Nemotron-H", causal("nemotron_h", "NemotronH")),
    text("internlm2-chat", causal("internlm2", "InternLM2")),
    text("stablelm-2", causal("stablelm", "StableLm")),
)
VISION: Final = (
    vision("Qwen2-VL", seeing("qwen2_vl", "Qwen2VL")),
    vision("text-only-qwen", seeing("qwen2_5_vl", "Qwen2_5_VL")),
    vision("Qwen3-VL-4B", seeing("qwen3_vl", "Qwen3VL")),
    vision("Qwen3-VL-30B-A3B", seeing("qwen3_vl_moe", "Qwen3VLMoe")),
    vision("gemma-3-4b-it", seeing("gemma3", "Gemma3")),
    vision("gemma-3n-E4B", seeing("gemma3n", "Gemma3n")),
    vision("Mistral-Small-3.1", seeing("mistral3", "Mistral3")),
    vision("pixtral-12b", seeing("pixtral", "Llava")),
    vision("llava-1.5-7b", seeing("llava", "Llava")),
    vision("Idefics3", seeing("idefics3", "Idefics3")),
    vision("SmolVLM-tts", seeing("smolvlm", "SmolVLM")),
    vision("paligemma2", seeing("paligemma", "PaliGemma")),
    vision("InternVL3", {**causal("internvl_chat", "InternVLChat"), "vision_config": {"x": 1}}),
    vision("Llama-3.2-Vision", seeing("mllama", "Mllama")),
    vision("Llama-4-Scout", seeing("llama4", "Llama4")),
    vision("Kimi-VL", seeing("kimi_vl", "KimiVL")),
    vision("GLM-4.1V", seeing("glm4v", "Glm4v")),
)
OTHERS: Final = (
    Sample(name="all-MiniLM-L6-v2", config={"model_type": "bert"}, kind="embeddings"),
    Sample(name="bge-m3", config={"model_type": "xlm-roberta"}, kind="embeddings"),
    Sample(name="modernbert", config={"model_type": "modernbert"}, kind="embeddings"),
    Sample(
        name="Qwen3-Embedding",
        config=causal("qwen3", "Qwen3"),
        kind="embeddings",
        files=POOLING | QWEN3 | READABLE,
    ),
    Sample(name="Kokoro-82M", config={"istftnet": {}, "plbert": {}}, kind="speech"),
    Sample(name="a-text-model", config={"model_type": "qwen3_tts"}, kind="speech"),
    Sample(name="llama-tts", config={"model_type": "llama", "acoustic_dim": 1}, kind="speech"),
    Sample(
        name="whisper-large-v3",
        config={"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
        kind="transcription",
    ),
    Sample(
        name="whisper-mlx-old",
        config={"n_mels": 80, "n_audio_ctx": 1500, "n_text_ctx": 448},
        kind="transcription",
    ),
    Sample(
        name="parakeet-tdt",
        config={"target": "nemo.collections.asr.models.EncDecRNNTBPEModel"},
        kind="transcription",
    ),
)
SAMPLES: Final = {sample.name: sample for sample in (*TEXT, *VISION, *OTHERS)}


def build(folder: Path, sample: Sample) -> Path:
    tensors = llama_tensors() | (TOWER if sample.tower else {})
    return write_folder(folder, sample.config, tensors, sample.files)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_say_what_a_model_is(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    found = inspect_folder(build(tmp_path / name, sample))
    assert found.kind == sample.kind
    can = set(found.capabilities)
    if sample.kind not in {"text", "vision"}:
        assert can == {sample.kind}
        return
    expected = {"text", *sample.can}
    expected |= {"vision"} if sample.kind == "vision" else set()
    expected |= {"count_tokens"} if "chat" in sample.can else set()
    assert can == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_a_name_changes_nothing(tmp_path: Path, name: str) -> None:
    """The same files under the name of every other kind."""
    sample = SAMPLES[name]
    found = {
        (inspection.kind, inspection.capabilities, inspection.weights_bytes)
        for other in ("whisper-tts-dac", "Mixtral-8x7B-VL-vision", "bge-embedding", "llama")
        for inspection in [inspect_folder(build(tmp_path / other, sample))]
    }
    assert len(found) == 1


CONVERTED: Final = [sample for sample in VISION if sample.config["model_type"] in known.TEXT]


@pytest.mark.parametrize("sample", CONVERTED, ids=lambda sample: sample.name)
def test_a_vision_type_whose_conversion_left_no_vision_is_text(
    tmp_path: Path, sample: Sample
) -> None:
    """mlx-lm keeps config.json and drops the vision weights, of the types that it knows."""
    folder = write_folder(tmp_path / sample.name, sample.config, llama_tensors(), sample.files)
    assert inspect_folder(folder).kind == "text"
