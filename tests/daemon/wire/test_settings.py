import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.wire.errors import Code, MlxdError
from daemon.wire.settings import (
    ModelSettings,
    Settings,
    hashed_key,
    is_loopback,
    key_path,
    load_settings,
    name_problem,
    parse_settings,
)
from tests.daemon.wire.generate_settings_doc import EXAMPLE, TARGET, render

FILE = Path("/home/u/config.toml")


def refused(text: str) -> MlxdError:
    with pytest.raises(MlxdError) as caught:
        parse_settings(text, FILE)
    assert caught.value.code is Code.INVALID_REQUEST
    return caught.value


def test_a_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "config.toml")
    assert settings == Settings() == parse_settings("", FILE)
    assert (settings.pool.kv_tokens, settings.pool.loads_max, settings.http.port) == (
        16_384,
        1,
        11_411,
    )
    assert settings.http.host == "127.0.0.1"


def test_every_key() -> None:
    text = """
    [pool]
    memory = "24Gi"
    kv_tokens = 4096
    workers_max = 3
    ttl_s = "5m"
    preload = ["org/a"]
    loads_max = 2
    queue_max = 10
    [models."org/a"]
    path = "models/a"
    ttl_s = 60
    pin = true
    concurrency = 4
    context_tokens = 2048
    adapter = "/lora"
    allow_code = true
    draft = "org/small"
    draft_tokens = 5
    [aliases]
    one = "org/a"
    many = ["org/a", "one", "org/b"]
    [http]
    host = "0.0.0.0"
    port = 0
    api_keys = ["sha256:HASH"]
    allowed_hosts = ["box.local"]
    allowed_origins = ["https://chat.example.org"]
    body_bytes_max = "10M"
    [log]
    sync = false
    [worker]
    env = {LD_PRELOAD = "/x.so"}
    spare = true
    prefix_disk_bytes = "2G"
    [safety]
    crashes_max = 2
    unclean_starts_max = 9
    window_s = "1h"
    """.replace("HASH", "a5" * 32)
    settings = parse_settings(text, FILE)
    assert msgspec.json.decode(msgspec.json.encode(settings)) == {
        "pool": {"memory": 24 * 2**30, "kv_tokens": 4096, "workers_max": 3, "ttl_s": 300.0,
                 "preload": ["org/a"], "loads_max": 2, "queue_max": 10},
        "models": {"org/a": {"path": "/home/u/models/a", "ttl_s": 60.0, "pin": True,
                             "concurrency": 4, "context_tokens": 2048, "adapter": "/lora",
                             "allow_code": True, "draft": "org/small", "draft_tokens": 5}},
        "aliases": {"one": ["org/a"], "many": ["org/a", "one", "org/b"]},
        "http": {"host": "0.0.0.0", "port": 0, "api_keys": ["sha256:" + "a5" * 32],
                 "allowed_hosts": ["box.local"], "allowed_origins": ["https://chat.example.org"],
                 "body_bytes_max": 10_000_000},
        "log": {"sync": False},
        "worker": {"env": {"LD_PRELOAD": "/x.so"}, "spare": True,
                   "prefix_disk_bytes": 2_000_000_000},
        "safety": {"crashes_max": 2, "unclean_starts_max": 9, "window_s": 3600.0},
    }  # fmt: skip
    assert settings.model("org/a").pin
    assert settings.model("unknown") == ModelSettings()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[pool\n", 1, "Expected ']'"),
        ("[pool]\n\nmemory = \n", 3, "Invalid value"),
        ("[pool]\nkv_tokens = 1\nkv_tokens = 2", 3, "Cannot overwrite"),
        ('[pool]\npreload = ["a",\n', 3, "Invalid value"),
    ],
)
def test_a_syntax_error_names_file_and_line(text: str, line: int, reason: str) -> None:
    error = refused(text)
    assert error.fault.message.startswith(f"{FILE}:{line}: TOML syntax: ")
    assert reason in error.fault.message
    assert error.fault.field == str(FILE)


@pytest.mark.parametrize(
    ("text", "field", "line", "reason"),
    [
        ('[pool]\n\nmemory = "24Q"', "pool.memory", 3, "not a size"),
        ("[pool]\nmemory = 0", "pool.memory", 2, ">= 1"),
        ("[pool]\nmemory = 1.5", "pool.memory", 2, "expected `int"),
        ("[pool]\nmemory = true", "pool.memory", 2, "expected `int"),
        ("[pool]\nkv_tokens = 0", "pool.kv_tokens", 2, ">= 1"),
        ("[pool]\nttl_s = inf", "pool.ttl_s", 2, "<="),
        ("[pool]\nttl_s = nan", "pool.ttl_s", 2, ">"),
        ('[pool]\nttl_s = "0s"', "pool.ttl_s", 2, "> 0"),
        ('[pool]\npreload = ["a", 1]', "pool.preload[1]", 2, "expected `str`"),
        ('[pool]\npreload = ["../a"]', "pool.preload[0]", 2, "not a path"),
        ("nope = 1", "nope", 1, "unknown key"),
        ("[pool]\nmem = 1", "pool.mem", 2, "unknown key"),
        ('[models."x/y"]\npin = true\n\nttl_s = true', 'models."x/y".ttl_s', 4, "got `bool`"),
        ('[models."x/y"]\nttl_s = "x"', 'models."x/y".ttl_s', 2, "not a duration"),
        ('[models.a]\n[models."b".c]\nd = 1', "models.b.c", 2, "unknown key"),
        ('[models."x/y"]\npath = ""', 'models."x/y".path', 2, "expected a folder"),
        ('[models]\n"../x" = {}', 'models."../x"', 2, "not a path"),
        ("pool = 3", "pool", 1, "expected a table"),
        ("[aliases]\na = []", "aliases.a", 2, "names no model"),
        ("[aliases]\na = [1]", "aliases.a[0]", 2, "expected `str`"),
        ('[aliases]\nb = "x"\na = "a"', "aliases.a", 3, "a → a"),
        ('[aliases]\na = ["x", "b"]\nb = "c"\nc = "a"', "aliases.a", 2, "a → b → c → a"),
        ('[aliases]\na = ["x", "x"]', "aliases.a", 2, "twice"),
        ('[aliases]\na = "/etc"', "aliases.a", 2, "not a path"),
        ('[models.a]\n[aliases]\na = "x"', "aliases.a", 3, "also the name of a model"),
        ('[http]\nhost = "0.0.0.0"', "http.host", 2, "set http.api_keys"),
        ('[http]\nhost = "box.local"', "http.host", 2, "set http.api_keys"),
        ('[http]\nhost = ""', "http.host", 2, "expected an address"),
        ("[http]\nport = 65536", "http.port", 2, "<= 65535"),
        ("[http]\nport = -1", "http.port", 2, ">= 0"),
        ('[http]\napi_keys = ["plain-text-key"]', "http.api_keys[0]", 2, "--new-key"),
        ('[http]\napi_keys = ["sha256:00"]', "http.api_keys[0]", 2, "64 hex digits"),
        ('[http]\nallowed_origins = ["https://*"]', "http.allowed_origins[0]", 2, "an origin"),
        ("[worker.env]\nA = 1", "worker.env.A", 2, "expected `str`"),
        ('[worker]\nenv = {"A B" = "x"}', 'worker.env."A B"', 2, "environment variable"),
        ('[worker]\nspare = "yes"', "worker.spare", 2, "yes"),
        ("[safety]\ncrashes_max = 0", "safety.crashes_max", 2, ">= 1"),
    ],
)
def test_a_wrong_value_names_its_key_and_line(
    text: str, field: str, line: int, reason: str
) -> None:
    fault = refused(text).fault
    assert fault.field == field
    assert fault.message.startswith(f"{FILE}:{line}: {field}: ")
    assert reason in fault.message
    assert "mlxd check" in str(fault.hint)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"[pool]\n# \xff\n")
    with pytest.raises(MlxdError, match=r"config\.toml:2: is not UTF-8"):
        load_settings(file)
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(MlxdError, match="larger than"):
        load_settings(file)
    with pytest.raises(MlxdError, match="cannot be read"):
        load_settings(tmp_path)


def test_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/other")
    text = '[models.a]\npath = "~/a"\nadapter = "b/c"\n[models.b]\npath = "/d"'
    models = parse_settings(text, FILE).models
    assert (models["a"].path, models["a"].adapter) == ("/home/other/a", "/home/u/b/c")
    assert models["b"].path == "/d"
    assert refused('[models.a]\npath = "~nobody-here/x"').fault.field == "models.a.path"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("org/small", "org/small"), ("./small", "/home/u/small"), ("../small", "/home/u/../small"),
     ("~/small", "/home/other/small"), ("/small", "/small")],
)  # fmt: skip
def test_a_draft_is_a_name_or_a_folder(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", "/home/other")
    assert parse_settings(f'[models.a]\ndraft = "{written}"', FILE).models["a"].draft == meant


def test_what_cannot_be_a_draft() -> None:
    assert refused('[models.a]\ndraft = "a/../b"').fault.field == "models.a.draft"
    assert refused('[models.a]\ndraft = ""').fault.field == "models.a.draft"
    assert refused("[models.a]\ndraft_tokens = 0").fault.field == "models.a.draft_tokens"


def test_a_reachable_host_with_a_key() -> None:
    text = f'[http]\nhost = "0.0.0.0"\napi_keys = ["{hashed_key("x")}"]'
    assert parse_settings(text, FILE).http.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True),
     ("localhost", True), ("0.0.0.0", False), ("::", False), ("192.168.0.1", False),
     ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@given(st.text(max_size=300))
def test_a_name_never_leads_out_of_a_folder(name: str) -> None:
    if name_problem(name) is None:
        base = "/models"
        inside = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - what it must survive
        assert inside.startswith(base + "/")
        assert len(name) <= 256
        assert "\0" not in name


@given(st.text(max_size=60))
def test_any_text_is_settings_or_refused(text: str) -> None:
    try:
        parse_settings(text, FILE)
    except MlxdError as refusal:
        if refusal.code is not Code.INVALID_REQUEST:
            raise


def test_key_paths_are_written_as_in_the_file() -> None:
    assert key_path(("models", "x/y", "ttl_s")) == 'models."x/y".ttl_s'
    assert key_path(("pool", "preload", "[1]")) == "pool.preload[1]"


def test_the_page_is_current() -> None:
    assert TARGET.read_text("utf-8") == render(), (
        "run: python -m tests.daemon.wire.generate_settings_doc"
    )


def test_the_example_of_the_page_is_valid() -> None:
    settings = parse_settings(EXAMPLE, FILE)
    assert settings.aliases["chat"] == ("mlx-community/Qwen3-8B-4bit", "mlxd/glimpse")
