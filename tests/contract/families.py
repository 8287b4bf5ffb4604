"""Small folders of other vision families, with random weights: do they run at all?

Their processors differ far more than their mathematics: how a picture is marked in a prompt,
how many tokens it takes, which tensors go with it. Random weights show all of that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.contract import tiny

_TEXT = {
    **tiny.TEXT,
    "head_dim": 16,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 8,
    "num_channels": 3,
}
_TURNS = """\
{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{% for part in message['content'] %}
{%- if part['type'] == 'image' %}{{ 'MARK' }}{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a family's folder.

    Attributes:
        mark: What the chat template writes for a picture.
        special: Its own special tokens; each is in the tokenizer.
        config: config.json without sizes of the text part; token ids stand as "id:<token>".
        preprocessor: preprocessor_config.json.
        tokens: What tokenizer_config.json says of special tokens.
        processor: processor_config.json.
    """

    mark: str
    special: tuple[str, ...]
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    tokens: Mapping[str, Any] = {}
    processor: Mapping[str, Any] | None = None


_QWEN_IDS = {
    "image_token_id": "id:<|image_pad|>",
    "video_token_id": "id:<|video_pad|>",
    "vision_start_token_id": "id:<|vision_start|>",
    "vision_end_token_id": "id:<|vision_end|>",
    "vision_token_id": "id:<|image_pad|>",
}
_QWEN_PICTURES = {
    "patch_size": 8,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 32 * 32,
    "max_pixels": 64 * 64,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_PLAIN_PICTURES = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_QWEN_VISION = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_patch_size": 8,
    "in_channels": 3,
    "in_chans": 3,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}

FAMILIES: Mapping[str, Family] = {
    "qwen2_vl": Family(
        mark="<|vision_start|><|image_pad|><|vision_end|>",
        special=(),
        config={
            **_TEXT,
            **_QWEN_IDS,
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "rope_scaling": _MROPE,
            "vision_config": {
                "model_type": "qwen2_vl",
                "embed_dim": 32,
                "hidden_size": 64,
                **_QWEN_VISION,
            },
        },
        preprocessor={
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            **_QWEN_PICTURES,
        },
    ),
    "qwen3_vl": Family(
        mark="<|vision_start|><|image_pad|><|vision_end|>",
        special=(),
        config={
            **_QWEN_IDS,
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "text_config": {**_TEXT, "model_type": "qwen3_vl_text", "rope_scaling": _MROPE},
            "vision_config": {
                "model_type": "qwen3_vl",
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
                **_QWEN_VISION,
            },
        },
        preprocessor={
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
            **_QWEN_PICTURES,
        },
    ),
    "gemma3": Family(
        mark="<start_of_image>",
        special=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        config={
            "architectures": ["Gemma3ForConditionalGeneration"],
            "mm_tokens_per_image": 16,
            "image_token_index": "id:<image_soft_token>",
            "boi_token_index": "id:<start_of_image>",
            "eoi_token_index": "id:<end_of_image>",
            "text_config": {
                **_TEXT,
                "model_type": "gemma3_text",
                "query_pre_attn_scalar": 16,
                "sliding_window": 64,
                "sliding_window_pattern": 2,
                "mm_tokens_per_image": 16,
            },
            "vision_config": _SIGLIP,
        },
        preprocessor={
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "size": {"height": 64, "width": 64},
            **_PLAIN_PICTURES,
        },
        tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        processor={"image_seq_length": 16, "processor_class": "Gemma3Processor"},
    ),
    "smolvlm": Family(
        mark="<image>",
        special=(
            "<image>",
            "<fake_token_around_image>",
            "<global-img>",
            "<end_of_utterance>",
            *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
        ),
        config={
            "architectures": ["SmolVLMForConditionalGeneration"],
            "image_token_id": "id:<image>",
            "scale_factor": 2,
            "text_config": {**_TEXT, "model_type": "llama"},
            "vision_config": {**_SIGLIP, "model_type": "smolvlm_vision"},
        },
        preprocessor={
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
            "do_image_splitting": False,
            "do_pad": True,
            "size": {"longest_edge": 64},
            "max_image_size": {"longest_edge": 64},
            **_PLAIN_PICTURES,
        },
        tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
        },
        processor={"image_seq_len": 16, "processor_class": "SmolVLMProcessor"},
    ),
    "paligemma": Family(
        mark="<image>",
        special=("<image>", "<bos>"),
        config={
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "image_token_index": "id:<image>",
            "hidden_size": 64,
            "projection_dim": 64,
            "text_config": {**_TEXT, "model_type": "gemma"},
            "vision_config": {**_SIGLIP, "projection_dim": 64},
        },
        preprocessor={
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "PaliGemmaProcessor",
            "size": {"height": 64, "width": 64},
            "image_seq_length": 64,
            **_PLAIN_PICTURES,
        },
        tokens={"bos_token": "<bos>", "image_token": "<image>"},
    ),
    "mistral3": Family(
        mark="[IMG]",
        special=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        config={
            "architectures": ["Mistral3ForConditionalGeneration"],
            "image_token_index": "id:[IMG]",
            "spatial_merge_size": 2,
            "vision_feature_layer": -1,
            "text_config": {**_TEXT, "model_type": "mistral"},
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "head_dim": 16,
                "image_size": 64,
                "patch_size": 8,
                "num_channels": 3,
                "rope_theta": 10000.0,
            },
        },
        preprocessor={
            "image_processor_type": "PixtralImageProcessor",
            "processor_class": "PixtralProcessor",
            "size": {"longest_edge": 64},
            "patch_size": {"height": 8, "width": 8},
            **_PLAIN_PICTURES,
        },
        processor={
            "patch_size": 8,
            "spatial_merge_size": 2,
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
            "processor_class": "PixtralProcessor",
        },
    ),
}


def build_family(folder: Path, name: str, seed: int = 7) -> Path:
    """A folder that mlx_vlm takes for a model of the family ``name``."""
    family = FAMILIES[name]
    special = (*tiny.SPECIAL, *family.special)
    vocab = tiny.write_tokenizer(folder, special)
    (folder / "chat_template.jinja").write_text(_TURNS.replace("MARK", family.mark))
    tiny.write_json(folder / "tokenizer_config.json", {**tiny.TOKENIZER_CONFIG, **family.tokens})
    tiny.write_json(folder / "preprocessor_config.json", dict(family.preprocessor))
    if family.processor is not None:
        tiny.write_json(folder / "processor_config.json", dict(family.processor))
    config = {
        "model_type": name,
        "vocab_size": vocab,
        "eos_token_id": special.index("<|im_end|>"),
        **_with_ids(family.config, special),
    }
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], "vocab_size": vocab}
    tiny.write_json(folder / "config.json", config)
    tiny.write_weights(folder, _model(config), seed)
    return folder


def _with_ids(config: Mapping[str, Any], special: tuple[str, ...]) -> dict[str, Any]:
    return {
        key: special.index(value[3:]) if str(value).startswith("id:") else value
        for key, value in config.items()
    }


def _model(config: dict[str, Any]) -> Any:
    """The library's model of this configuration, built as the library builds it."""
    from mlx_vlm.utils import get_model_and_args, update_module_configs  # noqa: PLC0415

    library, _ = get_model_and_args(config=dict(config))
    filled = {"text_config": {}, "vision_config": {}, **config}
    model_config = library.ModelConfig.from_dict(filled)
    parts = ["text", "vision", "perceiver", "projector"]
    return library.Model(update_module_configs(model_config, library, filled, parts))
