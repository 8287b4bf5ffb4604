"""LoRA adapters: applied as mlx_lm applies them, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model, save_model

from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import LoadRefused
from tests.contract.bench import NO_END, PROMPTS, Bench, alone, ask, begin
from tests.contract.tiny import build_text_model

LORA = {"rank": 4, "scale": 10.0, "dropout": 0.0}
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``mlx_lm.lora`` would write after some training: random, and not zero."""
    path = tmp_path_factory.mktemp("adapter")
    model = _with_lora(folder)
    weights = dict(tree_flatten(model.trainable_parameters()))
    mx.save_safetensors(str(path / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": LAYERS, "lora_parameters": LORA}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def _with_lora(folder: Path) -> Any:
    model, _ = load_model(folder)
    model.freeze()
    linear_to_lora_layers(model, LAYERS, LORA)
    keys = iter(mx.random.split(mx.random.key(3), 100))
    drawn = [
        (name, 0.1 * mx.random.normal(array.shape, key=next(keys)))
        for name, array in sorted(tree_flatten(model.trainable_parameters()))
    ]
    model.update(tree_unflatten(drawn))
    return model


@pytest.fixture(scope="module")
def fused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with the adapter worked into its weights by mlx_lm."""
    model = _with_lora(folder)
    layers = [
        (name, layer.fuse()) for name, layer in model.named_modules() if hasattr(layer, "fuse")
    ]
    model.update_modules(tree_unflatten(layers))
    path = tmp_path_factory.mktemp("fused") / "model"
    save_model(path, model)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).write_bytes((folder / name).read_bytes())
    return path


def answers(folder: Path, adapter: Path | None = None) -> list[str]:
    engine = REGISTRY["text"]()
    told = msgspec.structs.replace(begin(folder, "text"), adapter=adapter and str(adapter))
    engine.load(told, lambda _done, _total: None)
    try:
        bench = Bench(engine, told)
        return [alone(bench, ask(prompt, sampling=NO_END)).text for prompt in PROMPTS]
    finally:
        engine.close()


def test_it_answers_as_the_fused_model_does(folder: Path, adapter: Path, fused: Path) -> None:
    adapted = answers(folder, adapter)
    assert adapted == answers(fused)
    assert adapted != answers(folder)


def test_one_for_another_model_is_refused(
    adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    weights: Any = mx.load(str(adapter / "adapters.safetensors"))
    wrong = {str(name): mx.zeros((3, 5)) for name in weights}
    mx.save_safetensors(str(other / "adapters.safetensors"), wrong)
    (other / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    folder = build_text_model(tmp_path_factory.mktemp("base") / "model")
    with pytest.raises(LoadRefused) as caught:
        answers(folder, other)
    assert caught.value.reason == "incompatible"
