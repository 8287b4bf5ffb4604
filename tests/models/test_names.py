"""`model_path`: the one way tests find a model."""

from pathlib import Path

import pytest

from tests.models import MODELS, REPO_ROOT, ModelError, model_path, models_dir
from tests.models.check import CHECKS
from tests.models.recipes import RECIPES


def test_finds_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "kokoro-82m").mkdir()
    assert model_path("kokoro-82m", tmp_path) == tmp_path / "kokoro-82m"


def test_says_how_to_get_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run `make models`"):
        model_path("kokoro-82m", tmp_path)


def test_an_unknown_name_gets_the_list_of_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="choose one of: smollm2-135m-4bit, "):
        model_path("gpt-5", tmp_path)


def test_the_environment_moves_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLXD_TEST_MODELS", raising=False)
    assert models_dir() == REPO_ROOT / ".cache" / "models"
    monkeypatch.setenv("MLXD_TEST_MODELS", str(tmp_path))
    assert models_dir() == tmp_path


def test_every_name_has_a_recipe_and_a_check() -> None:
    assert tuple(recipe.name for recipe in RECIPES) == MODELS
    assert set(CHECKS) == set(MODELS)
