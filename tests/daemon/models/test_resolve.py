import os
from pathlib import Path

import msgspec
import pytest

from daemon.models.facts import Inspections, describe
from daemon.models.resolve import BUNDLED, Registry, Target, model_key
from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import Home, find_home
from daemon.wire.settings import Settings, parse_settings
from tests.daemon.models.folders import LLAMA, safetensors, write_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home(
        {"MLXD_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}, "linux"
    )


def cached(home: Home, name: str, revision: str = REVISION, *, ref: str | None = REVISION) -> Path:
    repo = home.hub_dirs[0] / ("models--" + name.replace("/", "--"))
    if ref is not None:
        (repo / "refs").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / "main").write_text(ref)
    return write_folder(repo / "snapshots" / revision)


def settings(text: str, base: Path = Path("/nowhere")) -> Settings:
    return parse_settings(text, base / "config.toml")


def refused(registry: Registry, name: str, code: Code) -> str:
    with pytest.raises(MlxdError) as caught:
        registry.resolve(name)
    assert caught.value.code is code
    assert caught.value.fault.field == "model"
    return caught.value.fault.message


def test_the_order_of_sources(home: Home, tmp_path: Path) -> None:
    snapshot = cached(home, "org/name")
    bundled = {"org/name": tmp_path / "bundled"}
    registered = {"org/name": str(tmp_path / "registered")}

    def where(text: str, **sources: object) -> tuple[str, str]:
        registry = Registry(settings(text), home, **sources)  # type: ignore[arg-type]
        (target,) = registry.resolve("org/name")
        return target.source, target.path

    assert where("") == ("cache", str(snapshot))
    assert where("", bundled={}, registered=registered) == ("loaded", registered["org/name"])
    both = {"bundled": bundled, "registered": registered}
    assert where("", **both) == ("bundled", str(bundled["org/name"]))
    assert where('[models."org/name"]\npath = "/m"', **both) == ("configured", "/m")
    assert where('[models."org/name"]\npin = true') == ("configured", str(snapshot))
    aliased = Registry(settings('aliases = {"org/name" = "mlxd/glimpse"}'), home)
    assert aliased.lookup("org/name").targets[0].name == "mlxd/glimpse"


def test_the_bundled_model_lies_beside_the_module(home: Home) -> None:
    (target,) = Registry(Settings(), home).resolve("mlxd/glimpse")
    assert target.path == str(BUNDLED["mlxd/glimpse"])
    assert target.path.endswith("daemon/models/glimpse")


def test_an_alias_names_models_in_order_and_says_what_it_passed_over(home: Home) -> None:
    cached(home, "org/a")
    text = """
    [aliases]
    best = ["org/gone", "org/a", "again", "mlxd/glimpse"]
    again = "org/a"
    """
    found = Registry(settings(text), home).lookup("best")
    assert found.alias == "best"
    assert [target.name for target in found.targets] == ["org/a", "mlxd/glimpse"]
    ((name, fault),) = found.passed_over
    assert (name, fault.code) == ("org/gone", Code.NOT_FOUND)


def test_an_alias_that_leads_nowhere(home: Home) -> None:
    registry = Registry(settings('aliases = {best = "org/gone"}'), home)
    assert "org/gone" in refused(registry, "best", Code.NOT_FOUND)


@pytest.mark.parametrize(
    "name",
    ["", " ", "../x", "a/../b", "/etc/passwd", "~/x", "a//b", ".", "..", "a\0b", "a\nb", "x" * 257,
     "..\\x", "a/", " a"],
)  # fmt: skip
def test_what_cannot_be_a_name(home: Home, name: str) -> None:
    refused(Registry(Settings(), home), name, Code.INVALID_REQUEST)


def test_names_are_not_paths(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name in the working directory, or in the cache, is not opened."""
    write_folder(home.root / "folder")
    cached(home, "org/a")
    monkeypatch.chdir(home.root)
    registry = Registry(Settings(), home)
    refused(registry, "folder", Code.NOT_FOUND)
    refused(registry, f"org/a/snapshots/{REVISION}", Code.NOT_FOUND)
    refused(registry, "models--org--a", Code.NOT_FOUND)


def test_a_typo_is_met_with_a_guess(home: Home) -> None:
    cached(home, "mlx-community/SmolLM2-135M-Instruct")
    registry = Registry(Settings(), home)
    message = refused(registry, "smollm2-135m-instrct", Code.NOT_FOUND)
    assert "did you mean mlx-community/SmolLM2-135M-Instruct?" in message
    assert "mlxctl models" in message
    assert "did you mean" not in refused(registry, "zzzzzz", Code.NOT_FOUND)


def test_configured_but_not_downloaded(home: Home) -> None:
    registry = Registry(settings('[models."org/x"]'), home)
    assert "configured without a path" in refused(registry, "org/x", Code.NOT_FOUND)


def test_the_cache_is_read_as_hugging_face_writes_it(home: Home) -> None:
    wanted = cached(home, "org/a")
    cached(home, "org/a", "f" * 40)
    os.utime(wanted, ns=(1, 1))
    assert Registry(Settings(), home).resolve("org/a")[0].path == str(wanted)
    for ref in ("../../..", "", "e" * 40, "main\0"):
        newest = cached(home, "org/a", "f" * 40, ref=ref)
        assert Registry(Settings(), home).resolve("org/a")[0].path == str(newest)
    (home.hub_dirs[0] / "models--org--empty" / "snapshots").mkdir(parents=True)
    (home.hub_dirs[0] / "datasets--org--data" / "snapshots" / REVISION).mkdir(parents=True)
    for odd in ("models--..--x", "models--", "models--org--a\n", "README"):
        (home.hub_dirs[0] / odd / "snapshots" / REVISION).mkdir(parents=True)
    names = [target.name for target in Registry(Settings(), home).targets()]
    assert names == ["mlxd/glimpse", "org/a"]


def test_new_names(home: Home, tmp_path: Path) -> None:
    cached(home, "org/a")
    text = '[models."org/here"]\npath = "/m"\n[models."org/x"]\n[aliases]\nbest = "org/gone"'
    registry = Registry(settings(text), home, registered={"mine": str(tmp_path)})
    for name, path in (
        ("new", "/x"),
        ("mine", "/other"),
        ("org/here", "/m"),
        ("org/x", "/downloaded"),
    ):
        registry.check_new_name(name, path)
    for name in ("best", "org/here", "org/a", "mlxd/glimpse"):
        with pytest.raises(MlxdError) as caught:
            registry.check_new_name(name, "/x")
        assert caught.value.code is Code.CONFLICT


def test_same_folder_and_adapter_same_key(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(folder)
    assert model_key(tmp_path / "link") == model_key(folder) == str(folder.resolve())
    assert model_key(folder, tmp_path / "link") == model_key(folder, folder) != model_key(folder)
    target = Target(name="x", path=str(tmp_path / "link" / ".." / "real"), source="loaded")
    assert target.key == model_key(folder)


def test_known_lists_everything_with_its_problem(home: Home, tmp_path: Path) -> None:
    cached(home, "org/a")
    broken = write_folder(tmp_path / "broken", files={"config.json": "{"})
    text = f"""
    [models."org/broken"]
    path = "{broken}"
    [models."org/gone"]
    [models."org/a"]
    context_tokens = 77
    [aliases]
    best = ["org/gone", "org/a"]
    bad = "org/broken"
    """
    registry = Registry(settings(text), home, registered={"mine": str(broken)}, bundled={})
    models = {model.name: model for model in registry.known(Inspections().inspect)}
    assert list(models) == ["best", "bad", "org/broken", "org/a", "mine", "org/gone"]
    assert (models["org/a"].kind, models["org/a"].context_tokens) == ("text", 77)
    assert models["org/a"].source == "configured"
    assert models["org/a"].created_at_ms > 0
    assert models["best"].targets == ("org/gone", "org/a")
    assert (models["best"].source, models["best"].kind) == ("alias", "text")
    assert models["mine"].source == "loaded"
    for name in ("bad", "org/broken", "mine", "org/gone"):
        assert models[name].problem
        assert models[name].kind is None
    assert "config.json" in str(models["org/broken"].problem)
    assert models["org/broken"].path == str(broken)


def test_inspections_are_kept_until_the_files_change(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    inspections = Inspections()
    first = inspections.inspect(folder)
    assert inspections.inspect(folder) is first
    (folder / "config.json").write_text("{")
    for _ in range(2):
        with pytest.raises(MlxdError, match="not JSON"):
            inspections.inspect(folder)
    write_folder(tmp_path)
    os.utime(folder / "config.json", ns=(5_000_000, 5_000_000))
    assert inspections.inspect(folder).modified_at_ms == 5
    with pytest.raises(MlxdError) as caught:
        inspections.inspect(tmp_path / "none")
    assert caught.value.code is Code.NOT_FOUND


def test_code_allowed_for_one_name_is_not_allowed_for_another(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LLAMA | {"model_file": "own.py"})
    inspections = Inspections()
    assert inspections.inspect(folder, allow_code=True).kind == "text"
    with pytest.raises(MlxdError, match=r"own\.py"):
        inspections.inspect(folder)


def test_facts_for_the_pool(home: Home, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    text = f'[models."org/a"]\npath = "{folder}"\ncontext_tokens = 500'
    target = Registry(settings(text), home).resolve("org/a")[0]
    model = describe(target, settings(text), Inspections())
    assert msgspec.structs.asdict(model) | {"identity": ""} == {
        "key": str(folder.resolve()),
        "name": "org/a",
        "path": str(folder.resolve()),
        "kind": "text",
        "capabilities": ("text",),
        "weights_bytes": 17_664,
        "kv_token_bytes": 256,
        "context_tokens": 500,
        "adapter": None,
        "identity": "",
        "allow_code": False,
        "draft": None,
        "draft_tokens": 3,
    }
    assert model.identity
    trusting = settings(text + "\nallow_code = true")
    target = Registry(trusting, home).resolve("org/a")[0]
    assert describe(target, trusting, Inspections()).allow_code


def test_windowed_layers_are_reserved_for_every_row(home: Home, tmp_path: Path) -> None:
    """Layer 0 slides (128 bytes a token), layer 1 does not (128 bytes)."""
    config = LLAMA | {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 256,
        "max_position_embeddings": 100_000,
    }
    folder = write_folder(tmp_path / "model", config)
    for rows, windowed in ((1, 768), (2, 1536), (64, 16_384)):
        text = f'[models."a"]\npath = "{folder}"\nconcurrency = {rows}'
        target = Registry(settings(text), home).resolve("a")[0]
        model = describe(target, settings(text), Inspections())
        held_bytes = 16_384 * 128 + windowed * 128
        assert 0 <= model.kv_token_bytes * 16_384 - held_bytes < 16_384


def test_an_adapter_is_part_of_the_model(home: Home, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    text = f'[models."a"]\npath = "{folder}"\nadapter = "{adapter}"'
    target = Registry(settings(text), home).resolve("a")[0]
    with pytest.raises(MlxdError) as caught:
        describe(target, settings(text), Inspections())
    assert caught.value.fault.field == "adapter_config.json"
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapters.safetensors").write_bytes(safetensors({"a": ("F32", (3,))}))
    model = describe(target, settings(text), Inspections())
    assert (model.weights_bytes, model.adapter) == (17_664 + 12, str(adapter.resolve()))
    assert model.key == f"{folder.resolve()}\n{adapter.resolve()}"


def test_a_draft_is_part_of_what_a_model_takes(home: Home, tmp_path: Path) -> None:
    folder, small = write_folder(tmp_path / "model"), write_folder(tmp_path / "small")
    alone = f'[models."a"]\npath = "{folder}"\n'
    for more in (
        f'draft = "{small}"\ndraft_tokens = 5',
        f'draft = "org/small"\ndraft_tokens = 5\n[models."org/small"]\npath = "{small}"',
    ):
        text = alone + more
        target = Registry(settings(text), home).resolve("a")[0]
        model = describe(target, settings(text), Inspections())
        assert (model.draft, model.draft_tokens) == (str(small.resolve()), 5)
        assert (model.weights_bytes, model.kv_token_bytes) == (2 * 17_664, 2 * 256)
        plain = describe(
            Registry(settings(alone), home).resolve("a")[0], settings(alone), Inspections()
        )
        assert model.key == plain.key, "a draft makes no other model of it"
        assert model.identity != plain.identity, "what was refused for its draft is tried again"


def test_a_draft_that_is_not_there(home: Home, tmp_path: Path) -> None:
    text = f'[models."a"]\npath = "{write_folder(tmp_path / "model")}"\ndraft = "org/small"'
    registry = Registry(settings(text), home)
    with pytest.raises(MlxdError, match=r"'org/small', the draft of 'a'.*mlxctl pull") as caught:
        registry.resolve("a")
    assert (caught.value.code, caught.value.fault.field) == (Code.NOT_FOUND, "draft")
    (known,) = [one for one in registry.known(Inspections().inspect) if one.name == "a"]
    assert known.problem is not None
    assert "the draft of 'a'" in known.problem


@pytest.mark.parametrize("swapped", [False, True])
def test_a_draft_is_for_text_and_is_text(home: Home, tmp_path: Path, swapped: bool) -> None:
    audio = {"model_type": "whisper", "n_mels": 80, "n_audio_ctx": 10, "n_text_ctx": 10}
    folders = [write_folder(tmp_path / "model"), write_folder(tmp_path / "audio", audio)]
    model, draft = reversed(folders) if swapped else folders
    text = f'[models."a"]\npath = "{model}"\ndraft = "{draft}"'
    target = Registry(settings(text), home).resolve("a")[0]
    with pytest.raises(MlxdError, match="for transcription; remove draft") as caught:
        describe(target, settings(text), Inspections())
    assert (caught.value.code, caught.value.fault.field) == (Code.INCOMPATIBLE, "draft")
