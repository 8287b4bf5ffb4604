"""BERT as its paper and the original checkpoint's names have it, in float64 numpy.

The oracle for embeddings: it shares no code with the library that the engine stands on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy.special import erf

Array = npt.NDArray[np.float64]


class Bert:
    """One checkpoint with Hugging Face's names."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        loaded = load_file(folder / "model.safetensors")
        self._w = {k.removeprefix("bert."): v.astype(np.float64) for k, v in loaded.items()}

    def hidden(self, ids: list[int]) -> Array:
        """The last layer's states ``[tokens, width]`` of one text, without padding."""
        w = self._w
        states: Array = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: len(ids)]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._norm("embeddings.LayerNorm", states)
        for i in range(self._layers):
            layer = f"encoder.layer.{i}"
            attended = self._linear(f"{layer}.attention.output.dense", self._attend(layer, states))
            states = self._norm(f"{layer}.attention.output.LayerNorm", attended + states)
            inner = self._linear(f"{layer}.intermediate.dense", states)
            inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
            outer = self._linear(f"{layer}.output.dense", inner)
            states = self._norm(f"{layer}.output.LayerNorm", outer + states)
        return states

    def _attend(self, layer: str, states: Array) -> Array:
        parts = [
            self._linear(f"{layer}.attention.self.{name}", states)
            .reshape(len(states), self._heads, -1)
            .transpose(1, 0, 2)
            for name in ("query", "key", "value")
        ]
        query, key, value = parts
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed: Array = (weights @ value).transpose(1, 0, 2).reshape(len(states), -1)
        return mixed

    def _linear(self, name: str, states: Array) -> Array:
        result: Array = states @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return result

    def _norm(self, name: str, states: Array) -> Array:
        centred = states - states.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self._eps)
        result: Array = scaled * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]
        return result


def unit(vector: Array) -> Array:
    """The vector at length 1."""
    result: Array = vector / np.linalg.norm(vector)
    return result
