"""Names become models the pool can decide about: look up, inspect, check what is asked."""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from msgspec.structs import replace

from daemon.models.facts import Inspections, describe
from daemon.models.resolve import Registry, Target, model_key
from daemon.pool.messages import Model, Option, PassedOver, Terms
from daemon.pool.state import Pool
from daemon.server.fitting import Room, room_for
from daemon.server.views import state_name
from daemon.wire.control import KnownModel
from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import Home
from daemon.wire.settings import Settings

T = TypeVar("T")
Choice = tuple[tuple[Option, ...], tuple[PassedOver, ...]]
"""What may serve, in order, and what cannot and why."""

PATH_MAX: Final = 1024
FOLDER_TIMEOUT_S: Final = 10.0
"""A folder on a volume that hangs must not hang the request for ever."""


NAMES_AGE_S: Final = 1.0
"""How long an answer about a resident model's name is good for: its folder may be replaced."""

NAMES_MAX: Final = 256


class Catalog:
    """The models there are. Reads folders in threads, with a time limit."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings = settings
        self._home = home
        self._registered: dict[str, str] = {}
        self._inspections = Inspections()
        self._names: dict[tuple[str, tuple[str, ...]], tuple[float, Choice]] = {}

    def configure(self, settings: Settings) -> None:
        """Names and terms are those of ``settings`` from now on."""
        self._settings = settings
        self._names = {}

    def remember(self, pool: Pool) -> None:
        """Names that were registered at run time, as the log knows them."""
        for slot in pool.slots.values():
            self._registered.setdefault(slot.tenant.model.name, slot.tenant.model.path)

    def remembered(self, name: str, needs: tuple[str, ...], pool: Pool) -> Choice | None:
        """What :meth:`options` said a moment ago, if the model that it chose is in memory."""
        found = self._names.get((name, needs))
        if found is None or anyio.current_time() >= found[0]:
            return None
        choice = found[1]
        return choice if choice[0][0].model.key in pool.slots else None

    async def options(self, name: str, needs: tuple[str, ...]) -> Choice:
        """What may serve a request for ``name``, in order, and what cannot and why.

        Raises:
            MlxdError: ``not_found``, ``incompatible``, or ``invalid_request`` if nothing
                that the name stands for can do what is needed.
        """
        names = self._names
        choice = await _in_time(lambda: self._options(name, needs), name)
        if len(names) >= NAMES_MAX:
            names.clear()
        # Names may mean something else by now: then nobody sees this dictionary any more.
        names[name, needs] = (anyio.current_time() + NAMES_AGE_S, choice)
        return choice

    async def register(self, name: str, path: str, pool: Pool) -> None:
        """Make ``name`` mean the folder ``path`` from now on.

        Raises:
            MlxdError: The folder is no model, or the name is taken by another.
        """
        _check_path(path)
        _check_name_free(name, path, pool)
        await _in_time(lambda: self._register(name, path), name)
        self._names = {}

    async def options_at(self, name: str, path: str, pool: Pool) -> Choice:
        """What :meth:`options` would say if ``name`` were registered for ``path``.

        Raises:
            MlxdError: As :meth:`register`.
        """
        _check_path(path)
        _check_name_free(name, path, pool)

        def read() -> Choice:
            self._check_folder(name, path)
            return self._options(name, (), {**self._registered, name: path})

        return await _in_time(read, name)

    async def key_of(self, name: str, pool: Pool) -> str:
        """The slot key that ``name`` means: a resident of that name, else its folder's."""
        for key, slot in pool.slots.items():
            if slot.tenant.model.name == name:
                return key
        targets = await _in_time(lambda: self._registry().resolve(name), name)
        resident = [target.key for target in targets if target.key in pool.slots]
        return resident[0] if resident else targets[0].key

    async def known(self, pool: Pool) -> tuple[KnownModel, ...]:
        """Everything that could be loaded, with what the pool says of it."""
        return await _in_time(lambda: self._known(pool), "the models")

    def _known(self, pool: Pool) -> tuple[KnownModel, ...]:
        registry = self._registry()
        states = {slot.tenant.model.path: state_name(slot) for slot in pool.slots.values()}
        rooms: dict[str, Room] = {}
        problems: dict[str, str] = {}
        for target in registry.targets():
            try:
                rooms[target.name] = room_for(pool, self._option(target, ()))
            except MlxdError as error:
                problems[target.name] = error.fault.message
        found: list[KnownModel] = []
        for model in registry.known(self._inspections.inspect):
            state = states.get(model.path)
            names = (model.name, *model.targets)
            room = next((rooms[name] for name in names if name in rooms), None)
            if state is None and room is not None and model.problem is None:
                model = replace(  # noqa: PLW2901 - the same model, with what the pool says of it
                    model, claim_bytes=room.claim_bytes, fits=room.fits, fit_note=room.note
                )
            problem = model.problem or problems.get(model.name)
            found.append(replace(model, state=state, problem=problem))
        return tuple(found)

    def _registry(self, registered: dict[str, str] | None = None) -> Registry:
        return Registry(self._settings, self._home, registered or self._registered)

    def _register(self, name: str, path: str) -> None:
        self._check_folder(name, path)
        self._registered[name] = path

    def _check_folder(self, name: str, path: str) -> None:
        self._registry().check_new_name(name, path)
        self._inspections.inspect(path)

    def _options(
        self, name: str, needs: tuple[str, ...], registered: dict[str, str] | None = None
    ) -> Choice:
        found = self._registry(registered).lookup(name)
        passed = [PassedOver(model=model, why=fault.message) for model, fault in found.passed_over]
        options: list[Option] = []
        failures: list[MlxdError] = []
        for target in found.targets:
            try:
                options.append(self._option(target, needs))
            except MlxdError as error:
                failures.append(error)
                passed.append(PassedOver(model=target.name, why=error.fault.message))
        if not options:
            raise failures[0]
        return tuple(options), tuple(passed)

    def _option(self, target: Target, needs: tuple[str, ...]) -> Option:
        model = describe(target, self._settings, self._inspections)
        _check_needs(model, needs)
        configured = self._settings.model(target.name)
        ttl_s = configured.ttl_s
        terms = Terms(
            ttl_ms=None if ttl_s is None else int(ttl_s * 1000),
            pin=configured.pin,
            rows_max=configured.concurrency,
        )
        return Option(model=model, terms=terms)


def _check_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path or len(path) > PATH_MAX:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"a model folder is an absolute path of at most {PATH_MAX} characters: {path!r}",
            field="path",
        )


def _check_name_free(name: str, path: str, pool: Pool) -> None:
    """One name, one model: that of another folder may be in memory, or be waited for."""
    there = [slot.tenant.model for slot in pool.slots.values()]
    coming = [waiter.option.model for waiter in pool.waiters]
    for model in (*there, *coming):
        if model.name == name and model_key(model.path) != model_key(path):
            hint = f"unload it first (mlxctl unload {name}), or give this folder another name"
            raise MlxdError(
                Code.CONFLICT,
                f"{name!r} is the name of a model in memory, {model.path}; {hint}",
                hint=f"{hint} with --name",
                field="model",
            )


def _check_needs(model: Model, needs: tuple[str, ...]) -> None:
    for index, need in enumerate(needs):
        if need in model.capabilities:
            continue
        if need == "vision":
            message = (
                f"{model.name} reads text only and cannot see pictures; "
                "send text alone or choose a vision model (`mlxctl models` lists them)"
            )
        else:
            message = (
                f"{model.name} cannot do {need}: its kind is {model.kind}; "
                "`mlxctl models` lists what each model can do"
            )
        raise MlxdError(Code.INVALID_REQUEST, message, field=f"needs[{index}]")


async def _in_time(read: Callable[[], T], name: str) -> T:
    try:
        with anyio.fail_after(FOLDER_TIMEOUT_S):
            return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
    except TimeoutError as error:
        raise MlxdError(
            Code.BUSY,
            f"the folder of {name} did not answer within {FOLDER_TIMEOUT_S:.0f} s; "
            "check the volume it lies on and its privacy permissions",
        ) from error
