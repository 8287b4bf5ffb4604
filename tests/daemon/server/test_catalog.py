"""Names that were looked up a moment ago: when they are believed, and when not."""

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool
from daemon.server import catalog as catalog_module
from daemon.server.catalog import Catalog, Choice
from daemon.wire.errors import Code, MlxdError
from daemon.wire.settings import ModelSettings, Settings
from tests.contract.tiny import build_text_model
from tests.daemon.running import temporary_home

pytestmark = pytest.mark.anyio

NAME = "mlxd/glimpse"
EMPTY = Pool(limits=Limits(budget_bytes=1))


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with temporary_home() as home:
        yield Catalog(Settings(), home)


def holding(choice: Choice) -> Pool:
    """A pool in which the chosen model has a slot."""
    load = m.LoadStarted(
        model=choice[0][0].model,
        worker="w1",
        claim_bytes=1,
        kv_tokens=1,
        rows_max=1,
        reason="acquire",
        asked_by=("test",),
    )
    return evolve(EMPTY, load, 1)


async def test_only_what_is_in_memory_is_remembered(catalog: Catalog) -> None:
    choice = await catalog.options(NAME, ())
    assert catalog.remembered(NAME, (), EMPTY) is None
    assert catalog.remembered(NAME, (), holding(choice)) is choice
    assert catalog.remembered(NAME, ("vision",), holding(choice)) is None
    assert catalog.remembered("fish", (), holding(choice)) is None


async def test_new_settings_make_all_names_new(catalog: Catalog) -> None:
    choice = await catalog.options(NAME, ())
    catalog.configure(Settings())
    assert catalog.remembered(NAME, (), holding(choice)) is None


async def test_nothing_is_remembered_for_long(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "NAMES_AGE_S", 0.0)
    choice = await catalog.options(NAME, ())
    assert catalog.remembered(NAME, (), holding(choice)) is None


async def test_an_answer_that_new_settings_have_overtaken_is_not_kept(catalog: Catalog) -> None:
    found: list[Choice] = []

    async def look() -> None:
        found.append(await catalog.options(NAME, ()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await anyio.lowlevel.checkpoint()  # the folder is being read
        catalog.configure(Settings())
    assert catalog.remembered(NAME, (), holding(found[0])) is None


async def test_names_that_nobody_asks_for_again_do_not_pile_up(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "NAMES_MAX", 2)
    needs: tuple[tuple[str, ...], ...] = ((), ("text",), ("vision",))
    choices = [await catalog.options(NAME, need) for need in needs]
    kept = [catalog.remembered(NAME, need, holding(choices[0])) for need in needs]
    assert kept == [None, None, choices[2]]


async def test_a_folder_that_does_not_answer_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on a volume that has gone: whoever reads it waits, and nobody waits for them."""
    monkeypatch.setattr(catalog_module, "FOLDER_TIMEOUT_S", 0.05)
    back = threading.Event()
    try:
        with pytest.raises(MlxdError, match="check the volume") as caught:
            await catalog_module._in_time(back.wait, "bird")
        assert caught.value.code is Code.BUSY
    finally:
        back.set()


async def test_what_is_wrong_with_a_draft_is_said_of_its_model() -> None:
    glimpse = ModelSettings(draft=NAME)
    with temporary_home() as home:
        catalog = Catalog(Settings(models={NAME: glimpse}), home)
        (known,) = await catalog.known(EMPTY)
    assert known.problem is not None
    assert "a draft guesses for text models" in known.problem


async def test_a_name_is_one_models_while_it_is_in_memory(catalog: Catalog, tmp_path: Path) -> None:
    one, other = (build_text_model(tmp_path / name) for name in ("one", "other"))
    await catalog.register("dup", str(one), EMPTY)
    pool = holding(await catalog.options("dup", ()))
    await catalog.register("dup", str(one), pool)
    for ask in (catalog.register, catalog.options_at):
        with pytest.raises(MlxdError, match="unload it first") as caught:
            await ask("dup", str(other), pool)
        assert caught.value.code is Code.CONFLICT
    assert await catalog.key_of("dup", pool) == str(one)
    await catalog.register("dup", str(other), EMPTY)
    assert await catalog.key_of("dup", EMPTY) == str(other)
