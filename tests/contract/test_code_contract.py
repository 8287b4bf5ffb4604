"""Python files that a model's folder brings: run for models that are allowed to, and no others."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import LoadRefused
from tests.contract.bench import Bench, alone, ask, begin
from tests.contract.tiny import build_text_model, build_vision_model

BUILD: dict[str, Callable[[Path], Path]] = {
    "text": build_text_model,
    "vision": build_vision_model,
}
LIBRARY = {"text": "mlx_lm.models.llama", "vision": "mlx_vlm.models.qwen2_5_vl"}


@pytest.fixture(params=sorted(BUILD))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, kind: str) -> Path:
    """A model whose config.json names a Python file beside it; running that leaves a trace."""
    folder = BUILD[kind](tmp_path / kind)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_file": "own.py"}))
    code = f"from {LIBRARY[kind]} import *\nopen({str(tmp_path / 'trace')!r}, 'w').close()\n"
    (folder / "own.py").write_text(code)
    return folder


def test_it_is_refused_and_not_run(folder: Path, kind: str, tmp_path: Path) -> None:
    engine = REGISTRY[kind]()
    with pytest.raises(LoadRefused, match=r"own\.py.*allow_code"):
        engine.load(begin(folder, kind), lambda _done, _total: None)
    assert not (tmp_path / "trace").exists()


def test_it_runs_where_it_is_allowed(folder: Path, kind: str, tmp_path: Path) -> None:
    engine = REGISTRY[kind]()
    told = msgspec.structs.replace(begin(folder, kind), allow_code=True)
    engine.load(told, lambda _done, _total: None)
    answer = alone(Bench(engine, told), ask())
    engine.close()
    assert answer.done is not None
    assert (tmp_path / "trace").exists()
