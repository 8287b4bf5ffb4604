"""Model folders for benches, made on the spot: ``python -m benchmarks.folders OUT``.

A child process makes them, so that no bench imports mlx itself.
"""

import json
import string
import sys
from pathlib import Path
from typing import Any, Final

STEPS_MS: Final = (0, 2, 6, 20)
"""Step times of the stand-ins."""

TOYS: Final = ("toy", "toy-2", "toy-3")
CONTEXT_TOKENS: Final = 16_384
_WIDTH: Final = 128
_LAYERS: Final = 5
_SAYS: Final = string.ascii_letters + string.digits


def stand_in_name(step_ms: int) -> str:
    """The folder whose stand-in decodes a step in ``step_ms``."""
    return f"stand-in-{step_ms}ms"


def make_folders(out: Path) -> None:
    """Toys (real llamas of about 2 ms a step on a CPU), and a stand-in a step time."""
    for seed, name in enumerate(TOYS, 7):
        _make_toy(out / name, seed)
    for step_ms in STEPS_MS:
        _make_stand_in(out / stand_in_name(step_ms), step_ms)


def _make_toy(folder: Path, seed: int) -> None:
    """A llama that answers letters and digits for ever: every token is text, none an end."""
    import mlx.core as mx  # noqa: PLC0415  (a child's alone)
    from mlx.utils import tree_flatten  # noqa: PLC0415
    from mlx_lm.models.llama import Model, ModelArgs  # noqa: PLC0415

    config = _tokenizer_and_config(folder) | {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    (folder / "config.json").write_text(json.dumps(config))
    keys = iter(mx.random.split(mx.random.key(seed), 1000))
    weights = {}
    for name, array in tree_flatten(Model(ModelArgs.from_dict(config)).parameters()):
        scale = 2 * (array.size // array.shape[0]) ** -0.5
        weights[name] = (
            mx.ones_like(array)
            if "norm" in name
            else mx.random.normal(array.shape, scale=scale, key=next(keys))
        )
    vocab = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    said = mx.array([vocab[letter] for letter in _SAYS])
    # The others' scores are 0, and the best of 62 random ones is above that.
    spoken = mx.zeros((len(vocab), 1))
    spoken[said] = 1.0
    weights["lm_head.weight"] = weights["lm_head.weight"] * spoken
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _make_stand_in(folder: Path, step_ms: int) -> None:
    """A folder that the catalog takes for a text model; its config says how to pretend."""
    config = _tokenizer_and_config(folder)
    config["fake"] = {"reply": _SAYS, "step_ms": step_ms, "load_steps": 1}
    (folder / "config.json").write_text(json.dumps(config))


def _tokenizer_and_config(folder: Path) -> dict[str, Any]:
    from tests.contract.tiny import build_text_model  # noqa: PLC0415

    build_text_model(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return {**config, "max_position_embeddings": CONTEXT_TOKENS}


if __name__ == "__main__":
    make_folders(Path(sys.argv[1]))
