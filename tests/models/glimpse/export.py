"""Turns a training checkpoint into the folder that mlx-vlm loads.

python -m tests.models.glimpse.export glimpse.pt daemon/models/glimpse
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tests.models.glimpse import checkpoint, tokenizer
from tests.models.glimpse.twin import NORM_EPS, Glimpse, Sizes

SIDE_MIN_PX, SIDE_MAX_PX = 48, 288  # pictures outside are resized to hold as many pixels


def mlx_weights(model: Glimpse) -> dict[str, Tensor]:
    """The weights as mlx-vlm names and shapes them, without the training-only heads."""
    sizes = model.sizes
    weights = {}
    for name, stored in model.state_dict().items():
        if name.startswith("heads."):
            continue
        weights[name] = _mlx_weight(name, stored, sizes).to(torch.float32).contiguous()
    return weights


def _mlx_weight(name: str, weight: Tensor, sizes: Sizes) -> Tensor:
    if not name.endswith("patch_embed.proj.weight"):
        return weight
    kernel = weight.view(sizes.vision_width, 3, sizes.patch, sizes.patch).permute(0, 2, 3, 1)
    # A still picture is two equal frames, so each temporal half gives half the sum.
    return torch.stack([kernel / 2, kernel / 2], 1)


def vision_config(sizes: Sizes) -> dict[str, Any]:
    """The `vision_config` part of config.json."""
    return {
        "model_type": "qwen2_5_vl",
        "depth": sizes.vision_depth,
        "hidden_size": sizes.vision_width,
        "intermediate_size": sizes.vision_inner,
        "out_hidden_size": sizes.width,
        "num_heads": sizes.vision_heads,
        "patch_size": sizes.patch,
        "spatial_patch_size": sizes.patch,
        "in_channels": 3,
        "in_chans": 3,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": sizes.window,
        "fullatt_block_indexes": list(sizes.full_attention_blocks),
        "tokens_per_second": 2,
        "hidden_act": "silu",
    }


def model_config(sizes: Sizes, built: Tokenizer) -> dict[str, Any]:
    """config.json; the language model's settings stand at its root, where mlx-vlm looks."""
    token = built.token_to_id
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.inner,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads,
        "rms_norm_eps": NORM_EPS,
        "vocab_size": built.get_vocab_size(),
        "max_position_embeddings": 4096,
        "rope_theta": sizes.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(sizes.rope_sections)},
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "eos_token_id": [token(tokenizer.END_OF_TURN), token(tokenizer.PADDING)],
        "pad_token_id": token(tokenizer.PADDING),
        "bos_token_id": token(tokenizer.PADDING),
        "image_token_id": token(tokenizer.IMAGE_SLOT),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_token_id": token("<|vision_pad|>"),
        "vision_config": vision_config(sizes),
    }


def preprocessor_config(sizes: Sizes) -> dict[str, Any]:
    """preprocessor_config.json."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": sizes.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": SIDE_MIN_PX**2,
        "max_pixels": SIDE_MAX_PX**2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,
    }


def export(model: Glimpse, built: Tokenizer, folder: Path) -> None:
    """Write every file of the model folder but its card."""
    tokenizer.save(built, folder)
    weights = folder / "model.safetensors"
    save_file(mlx_weights(model), weights, metadata={"format": "mlx"})
    weights.chmod(0o644)  # safetensors makes it readable by its owner alone
    config = model_config(model.sizes, built)
    generation = {
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
        "do_sample": False,
        "temperature": 0.0,
    }
    for name, content in (
        ("config.json", config),
        ("preprocessor_config.json", preprocessor_config(model.sizes)),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Export a checkpoint and list what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    built = tokenizer.build()
    model = checkpoint.new_model(built)
    checkpoint.load_into(model, built, options.checkpoint)
    export(model, built, options.folder)
    for path in sorted(options.folder.iterdir()):
        print(f"{path.stat().st_size:>9} {path.name}")


if __name__ == "__main__":
    main()
