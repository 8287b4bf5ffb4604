"""Compares the torch twin with mlx-vlm: the same weights must give the same logits.

Two commands, since no environment holds both PyTorch and MLX:

    python -m tests.models.glimpse.parity torch glimpse.pt logits.npz
    python -m tests.models.glimpse.parity mlx daemon/models/glimpse logits.npz
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.models.glimpse import dialogs, pictures
from tests.models.glimpse.batches import DialogBatches

DIFFERENCE_MAX = 1e-3  # logits are about 10 in size
CASES = (("one", (128, 128), 1), ("odd", (112, 144), 1), ("two", (128, 192), 2))


def _shown(size: tuple[int, int], count: int) -> list[pictures.Picture]:
    rng = random.Random(f"parity {size} {count}")
    return [pictures.any_picture(rng, *size, 0.5) for _ in range(count)]


def write_torch(checkpoint_path: Path, out: Path) -> None:
    """Store the twin's prompts and logits for every case."""
    import torch  # noqa: PLC0415  # see above: one of the two is always missing

    from tests.models.glimpse import checkpoint, tokenizer  # noqa: PLC0415

    built = tokenizer.build()
    model = checkpoint.new_model(built)
    checkpoint.load_into(model, built, checkpoint_path)
    layout = DialogBatches(built, 1024, 0.5)
    arrays: dict[str, Any] = {}
    for name, size, count in CASES:
        shown = _shown(size, count)
        tokens, positions = layout.prompt(dialogs.DESCRIBE_GOLDEN, shown)
        images = torch.from_numpy(np.stack([picture.pixels for picture in shown]))
        everywhere = torch.ones(1, len(tokens), dtype=torch.bool)
        with torch.no_grad():
            output = model(
                torch.tensor([tokens]), torch.tensor(positions).T[:, None], images, everywhere
            )
        arrays[f"{name} tokens"] = np.array(tokens)
        arrays[f"{name} logits"] = output.logits.numpy()
    np.savez(out, **arrays)


def compare_mlx(folder: Path, stored: Path) -> bool:
    """Print the largest difference of every case; true when all are small."""
    import mlx.core as mx  # noqa: PLC0415
    from mlx_vlm import load  # noqa: PLC0415

    from tests.models.glimpse.asking import user  # noqa: PLC0415

    model, processor = load(str(folder))
    arrays = np.load(stored)
    agreed = True
    for name, size, count in CASES:
        images = [Image.fromarray(picture.pixels) for picture in _shown(size, count)]
        prompt = processor.tokenizer.apply_chat_template(
            [user(dialogs.DESCRIBE_GOLDEN, count)], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[prompt], images=images)
        tokens = inputs["input_ids"]
        output = model(tokens, inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"])
        logits = np.array(output.logits.astype(mx.float32))[0]
        same_tokens = np.array_equal(np.array(tokens)[0], arrays[f"{name} tokens"])
        difference = (
            float(np.abs(logits - arrays[f"{name} logits"]).max()) if same_tokens else np.inf
        )
        print(f"{name}: same tokens {same_tokens}, largest difference {difference:.1e}")
        agreed &= difference < DIFFERENCE_MAX
    return agreed


def main() -> int:
    """Run one of the two sides."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", choices=["torch", "mlx"])
    parser.add_argument("model", type=Path, help="checkpoint (torch) or model folder (mlx)")
    parser.add_argument("logits", type=Path)
    options = parser.parse_args()
    if options.side == "torch":
        write_torch(options.model, options.logits)
        return 0
    return 0 if compare_mlx(options.model, options.logits) else 1


if __name__ == "__main__":
    sys.exit(main())
