"""The pool in the words that people read."""

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.state import Failures, Limits, Pool, Residue, Spare
from daemon.server.views import Facts, status_view
from daemon.wire.control import StatusView
from tests.daemon.pool.world import GB, World, option

FACTS = Facts(version="1", pid=1, started_at_ms=0, home="/h", memory_total_bytes=10**10)
POOL = Pool(limits=Limits(budget_bytes=10**10))


def view(pool: Pool, read_only: str | None = None) -> StatusView:
    return status_view(1, pool, FACTS, now_ms=1, seq=7, rss_bytes=1, read_only=read_only)


def test_a_pool_that_is_well_says_nothing() -> None:
    shown = view(POOL)
    assert shown.warnings == ()
    assert (shown.seq, shown.budget_bytes, shown.stopping) == (7, 10**10, False)


def test_a_spare_is_counted() -> None:
    shown = view(replace(POOL, spare=Spare(name="s1")))
    assert shown.spare_bytes == shown.committed_bytes == 112 << 20


def test_what_is_not_well_is_said_with_what_follows() -> None:
    pool = replace(
        POOL,
        safe_mode_since_ms=5,
        pressure="hard",
        stopping="SIGTERM",
        residues={"w1": Residue(residue_bytes=3 * 10**9, boot_id="b")},
        failures={
            "/m": Failures(
                model="org/m", reason="crashed", message="signal 9", identity="", quarantined=True
            )
        },
    )
    said = "\n".join(view(pool, read_only="no space").warnings)
    for words in ("no space", "SIGTERM", "mlxctl safe-mode clear", "idle models are evicted"):
        assert words in said
    assert "org/m is quarantined: signal 9; `mlxctl unquarantine org/m`" in said
    assert "3.00 GB" in said or "3 GB" in said
    assert view(pool).budget_bytes == 7 * 10**9


def test_conditions_are_fields_too() -> None:
    shown = view(POOL)
    assert (shown.pressure, shown.safe_mode) == ("none", False)
    shown = view(replace(POOL, pressure="soft", safe_mode_since_ms=5))
    assert (shown.pressure, shown.safe_mode) == ("soft", True)


def test_the_speed_of_a_model_and_the_place_of_a_request_are_shown() -> None:
    world = World(Limits(budget_bytes=10 * GB))
    world.do(m.Load(ticket=world.ticket(), client="mlxctl", options=(option(3),)))
    world.do(m.ReportReady(worker="w1", measured_bytes=0, load_ms=1, context_tokens=1))
    world.do(m.ReportRunning(worker="w1", running=1))
    world.do(m.ReportSpeed(worker="w1", tokens_per_s=61.44))
    acquire = m.Acquire(
        ticket=world.ticket(),
        client="app",
        options=(option(2),),
        deadline_at_ms=world.now_ms + 60_000,
        priority=4,
    )
    world.do(acquire)

    shown = view(world.pool)
    assert [(one.name, one.tokens_per_s) for one in shown.models] == [("m3", 61.4)]
    assert [(waiting.model, waiting.priority) for waiting in shown.queue] == [("m2", 4)]


def test_the_context_of_a_model_on_its_way_is_at_most_its_share_of_the_cache() -> None:
    world = World(Limits(budget_bytes=10 * GB, kv_tokens=4096))
    model = replace(option(3).model, context_tokens=8192)
    options = (replace(option(3), model=model),)
    world.do(m.Load(ticket=world.ticket(), client="mlxctl", options=options))

    (loading,) = view(world.pool).models
    assert (loading.state, loading.context_tokens) == ("loading", 4096)
