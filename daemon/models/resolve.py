"""Names to folders. Names are looked up, never joined into paths.

The order: a configured id, an alias, the bundled model, names registered at run time
(``mlxctl load ./folder``), the Hugging Face cache. The cache is read with plain file calls:
its layout is ``models--org--name/refs/main`` → ``snapshots/<revision>``
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon.models.inspect import Inspection
from daemon.wire.control import KnownModel
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.paths import Home
from daemon.wire.settings import Settings, is_folder, name_problem

Source = Literal["configured", "bundled", "cache", "loaded"]
Inspect = Callable[..., Inspection]

BUNDLED: Final = {"mlxd/glimpse": Path(__file__).parent / "glimpse"}


def model_key(path: str | Path, adapter: str | Path | None = None) -> str:
    """What makes two names the same model: real folder and real adapter folder."""
    key = os.path.realpath(path)
    return key if adapter is None else f"{key}\n{os.path.realpath(adapter)}"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A name that leads to a folder.

    Attributes:
        name: The model's own name, for an alias the one that it led to.
        path: The folder, which need not exist.
        adapter: A folder of LoRA weights.
        draft: The folder of the model that guesses for this one.
        allow_code: Whether the folder's own Python files may be run.
    """

    name: str
    path: str
    source: Source
    adapter: str | None = None
    draft: str | None = None
    allow_code: bool = False

    @property
    def key(self) -> str:
        """Same real path and adapter, same key."""
        return model_key(self.path, self.adapter)


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """Where a name leads.

    Attributes:
        alias: The name asked for, if it was an alias.
        targets: Models to be tried in this order, one or more.
        passed_over: Models of the alias that are nowhere to be found, and why.
    """

    alias: str | None
    targets: tuple[Target, ...]
    passed_over: tuple[tuple[str, Fault], ...] = ()


class Registry:
    """Every name that there is, from settings, bundle, run time and cache.

    Immutable but for the cache folder, which is read at each call: models downloaded while
    the daemon runs are found. Its methods read the disk, so call them in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        registered: Mapping[str, str] | None = None,
        bundled: Mapping[str, Path] = BUNDLED,
    ) -> None:
        """Args as the attributes of the same names; ``registered`` maps names to folders."""
        self._settings = settings
        self._hub_dirs = home.hub_dirs
        self._registered = dict(registered or {})
        self._bundled = bundled

    def resolve(self, name: str) -> tuple[Target, ...]:
        """The models that a name stands for, in the order in which to try them.

        Raises:
            MlxdError: As :meth:`lookup`.
        """
        return self.lookup(name).targets

    def lookup(self, name: str) -> Resolution:
        """As :meth:`resolve`, with what an alias had to leave out.

        Raises:
            MlxdError: ``invalid_request`` for what cannot be a name (a path, control
                characters, too long), ``not_found`` for a name that leads nowhere.
        """
        if problem := name_problem(name):
            raise MlxdError(Code.INVALID_REQUEST, problem, field="model")
        cached = self._cached()
        if name in self._settings.models or name not in self._settings.aliases:
            return Resolution(alias=None, targets=(self._single(name, cached),))
        targets: dict[str, Target] = {}
        passed_over: list[tuple[str, Fault]] = []
        for model in self._models_of(name):
            try:
                target = self._single(model, cached)
                targets.setdefault(target.key, target)
            except MlxdError as error:
                passed_over.append((model, error.fault))
        if not targets:
            reasons = "; ".join(fault.message for _, fault in passed_over)
            raise MlxdError(
                Code.NOT_FOUND,
                f"the alias {name!r} leads to no model: {reasons}",
                hint=f"correct aliases.{name} in the configuration",
                field="model",
            )
        return Resolution(
            alias=name, targets=tuple(targets.values()), passed_over=tuple(passed_over)
        )

    def check_new_name(self, name: str, path: str) -> None:
        """Whether a folder may be registered under a name: free, or the same folder's.

        Raises:
            MlxdError: ``conflict`` if the name means something else already,
                ``invalid_request`` if it cannot be a name.
        """
        try:
            found = self.lookup(name)
        except MlxdError as error:
            if error.code is Code.NOT_FOUND and name not in self._settings.aliases:
                return
            if error.code is not Code.NOT_FOUND:
                raise
            found = None
        if found and not found.alias and found.targets[0].key == model_key(path):
            return
        if found and found.targets[0].source == "loaded":
            return  # A name given at run time may be given anew.
        hint = "give the folder another name with --name"
        raise MlxdError(
            Code.CONFLICT,
            f"{name!r} is already the name of another model; {hint}",
            hint=hint,
            field="model",
        )

    def targets(self) -> tuple[Target, ...]:
        """Every single model, once a name; aliases are left out."""
        cached = self._cached()
        names = (*self._settings.models, *self._bundled, *self._registered, *cached)
        found: list[Target] = []
        for name in dict.fromkeys(names):
            try:
                found.append(self._single(name, cached))
            except MlxdError:
                continue  # Configured, and it or its draft not downloaded: known() tells.
        return tuple(found)

    def known(self, inspect: Inspect) -> tuple[KnownModel, ...]:
        """Everything that could be asked for, for ``mlxctl models`` and ``/v1/models``.

        Folders that cannot be loaded are listed with their ``problem``; ``state`` is left
        for the pool to fill in.

        Args:
            inspect: :meth:`daemon.models.facts.Inspections.inspect`, or what it wraps.
        """
        single = {target.name: self._known(target, inspect) for target in self.targets()}
        for name in self._settings.models:
            if name not in single:
                single[name] = _missing(name, self._why_not(name))
        aliases = []
        for alias in self._settings.aliases:
            models = self._models_of(alias)
            usable = [single[m] for m in models if m in single and not single[m].problem]
            base = usable[0] if usable else _missing(alias, "none of its models can be loaded")
            aliases.append(
                msgspec.structs.replace(base, name=alias, source="alias", targets=models)
            )
        return (*aliases, *single.values())

    def _why_not(self, name: str) -> str:
        """Why a configured name leads nowhere."""
        try:
            self._single(name, self._cached())
        except MlxdError as error:
            return error.fault.message
        return "it has just appeared; ask again"

    def _known(self, target: Target, inspect: Inspect) -> KnownModel:
        try:
            found = inspect(target.path, allow_code=target.allow_code)
        except MlxdError as error:
            broken = _missing(target.name, error.fault.message)
            return msgspec.structs.replace(broken, path=target.path, source=target.source)
        context_tokens = self._settings.model(target.name).context_tokens
        return KnownModel(
            name=target.name,
            path=found.path,
            source=target.source,
            kind=found.kind,
            capabilities=found.capabilities,
            weights_bytes=found.weights_bytes,
            context_tokens=context_tokens or found.context_tokens,
            state=None,
            created_at_ms=found.modified_at_ms,
            quantization=found.precision or None,
        )

    def _single(self, name: str, cached: Mapping[str, Path]) -> Target:
        """The target of a name that is no alias."""
        settings = self._settings.model(name)
        found = self._folder(name, settings.path, cached)
        if found is None:
            raise self._not_found(name, cached)
        source, path = found
        return Target(
            name=name,
            path=str(path),
            source="configured" if name in self._settings.models else source,
            adapter=settings.adapter,
            draft=self._draft(name, settings.draft, cached),
            allow_code=settings.allow_code,
        )

    def _draft(self, name: str, draft: str | None, cached: Mapping[str, Path]) -> str | None:
        """The folder of a model's draft, which settings name or give."""
        if draft is None or is_folder(draft):
            return draft
        found = self._folder(draft, self._settings.model(draft).path, cached)
        if found is not None:
            return str(found[1])
        reason = f"{draft!r}, the draft of {name!r}, is not on this machine"
        hint = "get it with mlxctl pull, or remove draft from the model's settings"
        raise MlxdError(Code.NOT_FOUND, f"{reason}; {hint}", hint=hint, field="draft")

    def _folder(
        self, name: str, configured: str | None, cached: Mapping[str, Path]
    ) -> tuple[Source, str | Path] | None:
        if configured is not None:
            return "configured", configured
        if name in self._bundled:
            return "bundled", self._bundled[name]
        if name in self._registered:
            return "loaded", self._registered[name]
        return ("cache", cached[name]) if name in cached else None

    def _models_of(self, alias: str) -> tuple[str, ...]:
        """An alias's models in order, aliases in it followed; the settings have no cycles."""
        models: dict[str, None] = {}
        for target in self._settings.aliases[alias]:
            followed = target in self._settings.aliases
            models |= dict.fromkeys(self._models_of(target) if followed else (target,))
        return tuple(models)

    def _cached(self) -> dict[str, Path]:
        """Models of the Hugging Face cache by name; earlier caches win."""
        found: dict[str, Path] = {}
        for hub_dir in self._hub_dirs:
            for folder in _folders(hub_dir):
                prefix, _, repo = folder.name.partition("--")
                name = repo.replace("--", "/")
                if prefix != "models" or name_problem(name) or name in found:
                    continue
                if snapshot := _snapshot(folder):
                    found[name] = snapshot
        return found

    def _not_found(self, name: str, cached: Mapping[str, Path] | tuple[()]) -> MlxdError:
        settings = self._settings
        names = sorted(
            {*settings.models, *settings.aliases, *self._bundled, *self._registered, *cached}
            - {name}
        )
        hint = "see what there is with: mlxctl models"
        guess = ", ".join(_close(name, names))
        if name in settings.models:
            reason = f"{name!r} is configured without a path and is not in the Hugging Face cache"
        else:
            reason = f"no model is named {name!r}"
        meant = f"; did you mean {guess}?" if guess else ""
        return MlxdError(Code.NOT_FOUND, f"{reason}{meant or ';'} {hint}", hint=hint, field="model")


def _close(name: str, names: list[str]) -> list[str]:
    """Names like this one, by the whole or by the part after the slash."""
    folded = {known.lower(): known for known in names}
    tails = {known.lower().rpartition("/")[2]: known for known in names}
    wanted = name.lower()
    near = [folded[match] for match in difflib.get_close_matches(wanted, folded, 3, 0.6)]
    tail = wanted.rpartition("/")[2]
    near += [tails[match] for match in difflib.get_close_matches(tail, tails, 3, 0.6)]
    return list(dict.fromkeys(near))[:3]


def _snapshot(folder: Path) -> Path | None:
    """The revision that ``refs/main`` names, else the newest one there is."""
    snapshots = {found.name: found for found in _folders(folder / "snapshots")}
    try:
        with (folder / "refs" / "main").open("rb") as file:
            revision = file.read(128).decode("ascii", "replace").strip()
    except OSError:
        revision = ""
    if revision in snapshots:
        return snapshots[revision]
    return max(snapshots.values(), key=_modified, default=None)


def _modified(folder: Path) -> tuple[int, str]:
    try:
        return folder.stat().st_mtime_ns, folder.name
    except OSError:  # removed since it was listed
        return 0, folder.name


def _folders(parent: Path) -> list[Path]:
    """Folders in a folder, by name; none where it is missing or closed to this user."""
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []


def _missing(name: str, problem: str) -> KnownModel:
    return KnownModel(
        name=name,
        path="",
        source="configured",
        kind=None,
        capabilities=(),
        weights_bytes=0,
        context_tokens=0,
        state=None,
        created_at_ms=0,
        problem=problem,
    )
