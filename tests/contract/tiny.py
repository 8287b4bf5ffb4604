"""Model folders of a few hundred kilobytes, made on the spot: real architectures, random weights.

Weights come from a seed, so an answer is the same every time; they are float32, which is
the one type that is right and quick on CPUs. The tokenizer is byte-level: a token a byte,
and the special tokens.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

LETTERS = "abcdefghijklmnopqrstuvwxyz ."

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\nCalls look like <tool_call>{...}</tool_call>.\\n' }}
{%- for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message['role'] == 'tool' and loop.first %}
{{- raise_exception('a conversation cannot begin with a tool result') }}{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{% for part in message['content'] %}
{%- if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}
{%- for call in message['tool_calls'] or [] %}{% set tool_call = call['function'] %}
{{- '<tool_call>' }}{{ {'name': tool_call.name, 'arguments': tool_call.arguments} | tojson }}
{{- '</tool_call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
}
_PATCH = 8


def build_text_model(folder: Path, seed: int = 7, *, special: tuple[str, ...] = SPECIAL) -> Path:
    """A llama; ``special`` may leave out thinking or tool markers."""
    from mlx_lm.models.llama import Model, ModelArgs  # noqa: PLC0415

    vocab = write_tokenizer(folder, special)
    config = {
        **TEXT,
        "model_type": "llama",
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "eos_token_id": _id(special, "<|im_end|>"),
    }
    write_json(folder / "config.json", config)
    write_weights(folder, Model(ModelArgs.from_dict(config)), seed)
    return folder


def build_window_model(folder: Path, seed: int = 7) -> Path:
    """A gemma3 text model whose first layer sees 64 tokens back, in a rotating cache."""
    from mlx_lm.models.gemma3_text import Model, ModelArgs  # noqa: PLC0415

    config = {
        **TEXT,
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "sliding_window_pattern": 2,
        "vocab_size": write_tokenizer(folder, SPECIAL),
        "eos_token_id": _id(SPECIAL, "<|im_end|>"),
    }
    write_json(folder / "config.json", config)
    write_weights(folder, Model(ModelArgs.from_dict(config)), seed)
    return folder


def build_hybrid_model(folder: Path, seed: int = 7) -> Path:
    """An lfm2: a convolution's state beside a key-value cache."""
    from mlx_lm.models.lfm2 import Model, ModelArgs  # noqa: PLC0415

    config = {
        **TEXT,
        "model_type": "lfm2",
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_ff_dim": 128,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1],
        "vocab_size": write_tokenizer(folder, SPECIAL),
        "eos_token_id": _id(SPECIAL, "<|im_end|>"),
    }
    write_json(folder / "config.json", config)
    write_weights(folder, Model(ModelArgs.from_dict(config)), seed)
    return folder


def build_vision_model(folder: Path, seed: int = 7) -> Path:
    """A qwen2_5_vl: its processor in mlx_vlm needs numpy and Pillow only."""
    from mlx_vlm.models import qwen2_5_vl as library  # noqa: PLC0415
    from mlx_vlm.utils import update_module_configs  # noqa: PLC0415

    vocab = write_tokenizer(folder, SPECIAL)
    config = _vision_config(vocab)
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", _preprocessor_config())
    config = {"text_config": {}, **config}
    model_config = library.ModelConfig.from_dict(config)
    update_module_configs(model_config, library, config, ["text", "vision"])
    write_weights(folder, library.Model(model_config), seed)
    return folder


def build_embedding_model(
    folder: Path,
    seed: int = 7,
    *,
    pooling: str = "pooling_mode_mean_tokens",
    normalize: bool = True,
    tokens_max: int = 32,
) -> Path:
    """A bert with the files of sentence-transformers; words are letters."""
    from mlx_vlm.models.bert import Model, ModelConfig  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(("[PAD]", "[CLS]", "[SEP]", "[UNK]", *LETTERS))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "vocab_size": len(vocab),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": tokens_max})
    steps = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [{"type": f"sentence_transformers.models.{step}"} for step in steps]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", {pooling: True})
    write_weights(folder, Model(ModelConfig.from_dict(config)), seed)
    return folder


def _vision_config(vocab: int) -> dict[str, Any]:
    tokens = {
        name.strip("<|>").replace("pad", "token") + "_id": _id(SPECIAL, name)
        for name in ("<|image_pad|>", "<|video_pad|>")
    }
    return {
        **TEXT,
        **tokens,
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vocab_size": vocab,
        "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "eos_token_id": _id(SPECIAL, "<|im_end|>"),
        "vision_start_token_id": _id(SPECIAL, "<|vision_start|>"),
        "vision_end_token_id": _id(SPECIAL, "<|vision_end|>"),
        "vision_token_id": _id(SPECIAL, "<|image_pad|>"),
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_heads": 2,
            "patch_size": _PATCH,
            "spatial_patch_size": _PATCH,
            "in_channels": 3,
            "in_chans": 3,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 64,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "hidden_act": "silu",
        },
    }


def _preprocessor_config() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": _PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 32 * 32,
        "max_pixels": 64 * 64,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }


def write_tokenizer(folder: Path, special: tuple[str, ...]) -> int:
    """The special tokens come first, then one token a byte; gives the vocabulary's size."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*special, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    return len(vocab)


def write_weights(folder: Path, model: Any, seed: int) -> None:
    """Random weights wide enough that the best token is clearly the best."""
    keys = iter(mx.random.split(mx.random.key(seed), 1000))
    weights = {}
    for name, array in sorted(tree_flatten(model.parameters())):
        if array.ndim == 1:
            # Norms go by many names; whatever else has one axis is a bias.
            weights[name] = mx.zeros_like(array) if name.endswith("bias") else mx.ones_like(array)
        else:
            scale = (array.size // array.shape[0]) ** -0.5
            weights[name] = mx.random.normal(array.shape, scale=2 * scale, key=next(keys))
    model.update(tree_unflatten(list(weights.items())))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _id(special: tuple[str, ...], token: str) -> int:
    return special.index(token)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
