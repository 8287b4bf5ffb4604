"""``config.toml``: one schema for the daemon, the bridge and ``mlxctl``.

Unknown keys are mistakes. A syntax error names the line, every other error names the key
path and, where the key can be found in the text, its line. docs/settings.md is generated
from these structs.
"""

import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import inspect

from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import parse_bytes, parse_duration_s

MODEL_NAME_CHARS_MAX: Final = 256
CONFIG_BYTES_MAX: Final = 1 << 20
HASHED_KEY: Final = re.compile("sha256:[0-9a-f]{64}")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


Bytes = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1, extra={"unit": "bytes"})]
"""In the file a number, or text such as "24G" (24·10⁹) or "24Gi" (24·2³⁰)."""
BytesOrNone = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1, extra={"unit": "bytes"})]
"""The same, and 0."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9, extra={"unit": "seconds"})]
"""In the file a number, or text such as "90s", "5m" or "2h"."""
Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Guesses = Annotated[int, msgspec.Meta(ge=1, le=16)]


class PoolSettings(_Section, frozen=True, kw_only=True):
    """What may be in memory, and for how long.

    Attributes:
        memory: Bytes for all models together. Absent: 90 % of the recommended working set,
            and 75 % of the memory at most. More than the machine has is clamped.
        kv_tokens: Tokens of conversation that each model keeps room for, over all requests.
        workers_max: Most models in memory at once. Absent: as many as fit.
        ttl_s: Idle seconds after which a model is unloaded. Absent: stays until the room is
            needed.
        preload: Models to load at start, in this order.
        loads_max: Loads that may run at once.
        queue_max: Requests that may wait for room or for a load; more are refused.
    """

    memory: Bytes | None = None
    kv_tokens: Positive = 16_384
    workers_max: Positive | None = None
    ttl_s: Seconds | None = None
    preload: tuple[str, ...] = ()
    loads_max: Positive = 1
    queue_max: Positive = 256


class ModelSettings(_Section, frozen=True, kw_only=True):
    """One model: ``[models."org/name"]``.

    Attributes:
        path: Its folder, absolute, from ``~``, or relative to the configuration file.
            Absent: the model of that name in the Hugging Face cache.
        ttl_s: Instead of ``pool.ttl_s``.
        pin: Never evict, never expire.
        concurrency: Most requests decoded at once; more wait.
        context_tokens: Longest prompt and answer together. Absent: what the model allows.
        adapter: A folder with LoRA weights to apply.
        allow_code: Run the Python files that the model's folder brings. Only for folders
            that you trust as you trust a program.
        draft: A smaller text model with the same tokens that guesses ahead while one request
            is answered alone: its name, or its folder if it begins with ``/``, ``./``,
            ``../`` or ``~``. Answers are those without it, but for rounding where two
            tokens are as likely, and come sooner where its guesses are mostly right; where
            too few are, they rest for a while. It takes its weights and room for its own KV
            cache.
        draft_tokens: How many tokens the draft guesses at a time.
    """

    path: str | None = None
    ttl_s: Seconds | None = None
    pin: bool = False
    concurrency: Positive = 16
    context_tokens: Positive | None = None
    adapter: str | None = None
    allow_code: bool = False
    draft: str | None = None
    draft_tokens: Guesses = 3


class HttpSettings(_Section, frozen=True, kw_only=True):
    """The bridge.

    Attributes:
        host: Address to listen on. Anything but loopback needs ``api_keys``.
        port: 0 takes a free one.
        api_keys: Hashes of keys, of which a request must present one (``mlx-bridge --new-key``
            makes one). Empty: none needed.
        allowed_hosts: Host headers accepted beside loopback names.
        allowed_origins: Web origins that may call, for example "https://chat.example.org".
        body_bytes_max: Largest request body.
    """

    host: str = "127.0.0.1"
    port: Port = 11_411
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    body_bytes_max: Bytes = 64_000_000


class LogSettings(_Section, frozen=True, kw_only=True):
    """The event log.

    Attributes:
        sync: Wait for the disk at decisions that must survive a power cut. False is for
            tests on throw-away machines.
    """

    sync: bool = True


class WorkerSettings(_Section, frozen=True, kw_only=True):
    """The processes that hold the models.

    Attributes:
        env: Environment variables for workers, beside the few that they always get.
        spare: Keep a process with the libraries imported, so that a load only has to read its
            weights. It takes about 110 MB, and goes when they are needed. "auto": on machines
            with 16 GB or more.
        prefix_disk_bytes: The most that computed prompts may take on disk, all models
            together: with them a conversation goes on quickly after its model was unloaded.
            They are readable by you alone and hold no text, but what a model made of it. 0
            keeps none.
    """

    env: dict[str, str] = {}
    prefix_disk_bytes: BytesOrNone = 0
    spare: bool | Literal["auto"] = "auto"


class SafetySettings(_Section, frozen=True, kw_only=True):
    """When to stop trying.

    Attributes:
        crashes_max: Crashes of one model within ``window_s`` that put it in quarantine.
        unclean_starts_max: Daemon runs in a row that ended early and put it in safe mode.
        window_s: The time in which crashes are counted.
    """

    crashes_max: Positive = 5
    unclean_starts_max: Positive = 3
    window_s: Seconds = 600.0


class Settings(_Section, frozen=True, kw_only=True):
    """The whole file; every part has a default.

    Attributes:
        pool: What may be in memory, and for how long.
        models: Models by name.
        aliases: Other names for models: one, or several to be tried in order.
        http: The bridge.
        log: The event log.
        worker: The processes that hold the models.
        safety: When to stop trying.
    """

    pool: PoolSettings = PoolSettings()
    models: dict[str, ModelSettings] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    worker: WorkerSettings = WorkerSettings()
    safety: SafetySettings = SafetySettings()

    def model(self, name: str) -> ModelSettings:
        """The settings of one model; the defaults if the file does not name it."""
        return self.models.get(name, ModelSettings())


def load_settings(config_file: Path) -> Settings:
    """Read the configuration; a missing file gives the defaults.

    Raises:
        MlxdError: ``invalid_request`` with the file and line of a syntax error, or the key
            path (``field``) of a wrong value.
    """
    try:
        with config_file.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise _bad(config_file, None, f"cannot be read: {error.strerror}", None) from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise _bad(config_file, None, f"is larger than {CONFIG_BYTES_MAX} bytes", None)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _bad(config_file, line, "is not UTF-8 text; save it as UTF-8", None) from error
    return parse_settings(text, config_file)


def parse_settings(text: str, config_file: Path) -> Settings:
    """The settings that a configuration's text means.

    Args:
        text: TOML.
        config_file: For error messages, and the base of relative model paths.

    Raises:
        MlxdError: As :func:`load_settings`.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        reason = re.sub(r" \(at .*\)$", "", str(error))
        raise _bad(config_file, line, f"TOML syntax: {reason}", None) from error
    try:
        table = _normal(table, inspect.type_info(Settings))
        settings = msgspec.convert(table, Settings)
        settings = _with_absolute_paths(settings, config_file.parent)
        _check(settings)
    except msgspec.ValidationError as error:
        reason, key = _reason_and_key(str(error), table)
        raise _bad(config_file, _line_of(text, key), reason, key) from error
    except _Wrong as error:
        raise _bad(config_file, _line_of(text, error.key), str(error), error.key) from error
    return settings


Key = tuple[str, ...]


class _Wrong(Exception):
    """A value that its type allows and its meaning does not."""

    def __init__(self, key: Key, message: str) -> None:
        super().__init__(message)
        self.key = key


def key_path(key: Key) -> str:
    """A key as one would write it: ``pool.memory``, ``models."x/y".ttl_s``."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]+|\[\d+\]", part) else f'"{part}"' for part in key
    ).replace(".[", "[")


def _bad(config_file: Path, line: int | None, reason: str, key: Key | None) -> MlxdError:
    where = f"{config_file}:{line}" if line else str(config_file)
    path = key_path(key) if key else None
    subject = f"{where}: {path}: " if path else f"{where}: "
    hint = "correct the file, then check it with: mlxd check"
    return MlxdError(
        Code.INVALID_REQUEST,
        f"{subject}{reason}; {hint}",
        hint=hint,
        field=path or str(config_file),
    )


def _normal(value: Any, kind: inspect.Type, key: Key = ()) -> Any:
    """What was written in other forms, in the schema's own: units, and single alias targets.

    Values of a wrong type are left as they are; the conversion after this one names them.
    """
    if isinstance(kind, inspect.UnionType):
        return _normal(value, kind.types[0], key)
    if isinstance(kind, inspect.Metadata) and isinstance(value, str):
        return _in_units(value, (kind.extra or {}).get("unit"), key)
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        types = {field.encode_name: field.type for field in kind.fields}
        return {
            name: _normal(item, types[name], (*key, name)) if name in types else item
            for name, item in value.items()
        }
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _normal(item, kind.value_type, (*key, name)) for name, item in value.items()}
    if key[:1] == ("aliases",) and isinstance(value, str):
        return [value]
    return value


def _in_units(text: str, unit: str | None, key: Key) -> Any:
    try:
        if unit == "bytes":
            return parse_bytes(text)
        return parse_duration_s(text) if unit == "seconds" else text
    except MlxdError as error:
        raise _Wrong(key, error.fault.message) from error


def _with_absolute_paths(settings: Settings, base: Path) -> Settings:
    models = {
        name: msgspec.structs.replace(
            model,
            path=_absolute(model.path, base, ("models", name, "path")),
            adapter=_absolute(model.adapter, base, ("models", name, "adapter")),
            draft=_draft(model.draft, base, ("models", name, "draft")),
        )
        for name, model in settings.models.items()
    }
    return msgspec.structs.replace(settings, models=models)


def _absolute(given: str | None, base: Path, key: Key) -> str | None:
    if given is None:
        return None
    if not given or "\0" in given:
        raise _Wrong(key, "expected a folder")
    try:
        return str(base.absolute() / Path(given).expanduser())
    except RuntimeError as error:
        raise _Wrong(key, f"{given!r} names an unknown user's home") from error


def is_folder(named: str) -> bool:
    """Whether a text that may name a model or a folder is meant as a folder."""
    return named.startswith(("/", "~", "./", "../"))


def _draft(given: str | None, base: Path, key: Key) -> str | None:
    """A folder made absolute; a name as it is."""
    if given is None or is_folder(given):
        return _absolute(given, base, key)
    _check_name(key, given)
    return given


def _check(settings: Settings) -> None:
    for name in settings.models:
        _check_name(("models", name), name)
    for index, name in enumerate(settings.pool.preload):
        _check_name(("pool", "preload", f"[{index}]"), name)
    _check_aliases(settings)
    _check_http(settings.http)
    for name, value in settings.worker.env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            raise _Wrong(("worker", "env", name), "not an environment variable")


def _check_name(key: Key, name: str) -> None:
    if problem := name_problem(name):
        raise _Wrong(key, problem)


def name_problem(name: str) -> str | None:
    """Why a text cannot name a model, or None if it can.

    Names are looked up and never opened as paths; the rule keeps out what could only be
    meant as one, and what would garble a table.
    """
    if not name or name != name.strip():
        return "a model name must not be empty, nor begin or end with a space"
    if len(name) > MODEL_NAME_CHARS_MAX:
        return f"a model name has {MODEL_NAME_CHARS_MAX} characters at most"
    if not name.isprintable():
        return "a model name must not hold control characters"
    if name.startswith(("/", "~", "\\")) or {"..", ".", ""} & set(re.split(r"[/\\]", name)):
        return "a model name is not a path; register a folder with: mlxctl load ./folder"
    return None


def _check_aliases(settings: Settings) -> None:
    for name, targets in settings.aliases.items():
        key = ("aliases", name)
        _check_name(key, name)
        if name in settings.models:
            raise _Wrong(key, "is also the name of a model; rename one of them")
        if not targets:
            raise _Wrong(key, "names no model; list one or more")
        for target in targets:
            _check_name(key, target)
        if len(set(targets)) != len(targets):
            raise _Wrong(key, "names a model twice")
    for name in settings.aliases:
        _check_cycle(settings.aliases, (name,))


def _check_cycle(aliases: Mapping[str, tuple[str, ...]], chain: tuple[str, ...]) -> None:
    for target in aliases.get(chain[-1], ()):
        if target in chain:
            loop = " → ".join((*chain, target))
            raise _Wrong(("aliases", chain[0]), f"comes back to itself: {loop}")
        _check_cycle(aliases, (*chain, target))


def _check_http(http: HttpSettings) -> None:
    if not http.host or not http.host.isprintable() or " " in http.host:
        raise _Wrong(("http", "host"), "expected an address")
    if not is_loopback(http.host) and not http.api_keys:
        raise _Wrong(
            ("http", "host"),
            f"{http.host} can be reached by others: set http.api_keys, or keep 127.0.0.1",
        )
    for index, api_key in enumerate(http.api_keys):
        if not HASHED_KEY.fullmatch(api_key):
            raise _Wrong(
                ("http", "api_keys", f"[{index}]"),
                "keys are kept as their hash, sha256: and 64 hex digits; make one with: "
                "mlx-bridge --new-key",
            )
    for index, origin in enumerate(http.allowed_origins):
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", origin):
            raise _Wrong(
                ("http", "allowed_origins", f"[{index}]"),
                'expected an origin such as "https://chat.example.org", without a path',
            )


def hashed_key(key: str) -> str:
    """An API key as config.toml keeps it: who reads the file does not have the key."""
    return "sha256:" + hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; names other than localhost are not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _reason_and_key(message: str, table: dict[str, Any]) -> tuple[str, Key | None]:
    """Splits msgspec's "Expected … - at `$.pool.memory`" into the reason and the key."""
    reason, _, path = message.partition(" - at `")
    unknown = re.search(r"unknown field `(.*)`", reason)
    parts = [part for part in re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]$`]+", path) if part]
    key = _named(tuple(parts), table)
    if unknown:
        return "unknown key; see docs/settings.md for those there are", (*key, unknown[1])
    words = reason.replace("`object`", "a table").replace("`array`", "a list")
    return words[:1].lower() + words[1:], key or None


def _named(parts: Key, table: dict[str, Any]) -> Key:
    """The key path with ``[...]`` replaced by the entry that does not convert on its own."""
    if "[...]" not in parts:
        return parts
    kinds: dict[Key, Any] = {
        ("models",): ModelSettings,
        ("aliases",): tuple[str, ...],
        ("worker", "env"): str,
    }
    at = parts.index("[...]")
    entries: Any = table
    for part in parts[:at]:
        entries = entries[part]
    for name, entry in entries.items():
        try:
            msgspec.convert(entry, kinds[parts[:at]])
        except msgspec.ValidationError:
            return (*parts[:at], name, *parts[at + 1 :])
    return parts[:at]


def _line_of(text: str, key: Key | None) -> int | None:
    """The line on which a key stands, found by parsing ever longer beginnings of the text.

    The first beginning that parses and holds the key ends on the key's line (or on the last
    line of its value), whatever way of writing tables and keys the author chose.
    """
    if key is None:
        return None
    wanted = [part for part in key if not part.startswith("[")]
    lines = text.splitlines(keepends=True)
    if len(lines) > 2000:  # every beginning is parsed: quadratic, and a hand-written file is short
        return None
    for count in range(1, len(lines) + 1):
        try:
            node: Any = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        for part in wanted:
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            return count
    return None
