"""What a load would come to. That it always comes so is shown by the state machine beside."""

from daemon.pool import messages as m
from daemon.pool.estimate import TICKET, Estimate, estimate
from daemon.wire.errors import Code
from tests.daemon.pool.estimates import check_estimate
from tests.daemon.pool.world import GB, World, option

OVERHEAD = 192 << 20


def world() -> World:
    made = World(m.Limits(budget_bytes=10 * GB, kv_tokens=1_000))
    made.restart("b0")
    return made


def load(*numbers: int, ticket: int = TICKET, over_budget: bool = False) -> m.Load:
    options = tuple(option(number) for number in numbers)
    return m.Load(ticket=ticket, client="mlxctl", options=options, over_budget=over_budget)


def told(asked: World, *numbers: int, over_budget: bool = False) -> Estimate:
    return estimate(asked.pool, load(*numbers, over_budget=over_budget), asked.now_ms)


def make_resident(asked: World, number: int) -> None:
    asked.do(load(number, ticket=asked.ticket()))
    slot = asked.pool.slots[f"/m{number}"]
    asked.advance(9_000)
    ready = m.ReportReady(
        worker=slot.tenant.worker,
        measured_bytes=slot.tenant.model.weights_bytes,
        load_ms=7_000,
        context_tokens=8192,
    )
    asked.do(ready)
    asked.advance(20_000)


def test_an_empty_pool_has_room() -> None:
    found = told(world(), 2)

    assert (found.verdict, found.claim.weights_bytes, found.claim.kv_bytes) == (
        "loads", 5 * GB, 1_000 * 2_000,
    )  # fmt: skip
    assert found.claim.total_bytes == 5 * GB + 2_000_000 + OVERHEAD
    assert (found.budget_bytes, found.committed_bytes) == (10 * GB, 0)
    assert (found.measured_bytes, found.load_ms, found.learned) == (None, 30_000, False)


def test_what_was_learned_is_told() -> None:
    asked = world()
    make_resident(asked, 2)

    found = told(asked, 2)

    assert (found.verdict, found.measured_bytes) == ("resident", 5 * GB)
    assert (found.load_ms, found.learned) == (9_000, True)


def test_who_would_go_and_by_which_rule_and_then_they_do() -> None:
    asked = world()
    for number in (0, 2):
        make_resident(asked, number)

    found = told(asked, 3)

    assert (found.verdict, found.victims) == ("evicts", ("m2",))
    assert found.rule == "lru: coldest single model that frees enough"
    short_bytes = (2 + 5 + 7 - 10) * GB + 3 * OVERHEAD + 5_000_000
    assert found.needed_bytes == short_bytes
    assert [(c.model, c.why_not) for c in found.candidates] == [("m0", None), ("m2", None)]
    held = set(asked.pool.slots)
    asked_for = load(3, ticket=asked.ticket())
    check_estimate(found, asked_for, held, asked.do(asked_for))
    asked.do(m.ReportDrained(worker="w2"))
    ended = asked.do(m.ReportExit(worker="w2", exit_code=0))
    assert [type(event) for event in ended] == [m.WorkerExited, m.EvictFinished, m.LoadStarted]


def test_what_can_never_fit_is_refused_with_the_arithmetic_and_evicts_nothing() -> None:
    asked = world()
    make_resident(asked, 0)

    found = told(asked, 4)

    assert found.verdict == "refused"
    assert found.fault is not None
    assert found.fault.code is Code.OVER_BUDGET
    assert "--over-budget" in found.fault.message
    assert found.victims == ()
    allowed = told(asked, 4, over_budget=True)
    assert (allowed.verdict, allowed.over_budget) == ("loads", True)


def test_of_an_alias_the_first_that_can_be_loaded_is_told() -> None:
    found = told(world(), 4, 1)

    assert (found.model.name, found.verdict) == ("m1", "loads")
    assert [passed.model for passed in found.passed_over] == ["m4"]


def test_what_it_would_wait_for() -> None:
    asked = world()
    asked.do(load(0, ticket=asked.ticket()))
    assert (told(asked, 0).verdict, told(asked, 1).verdict) == ("loading", "waits")
    assert told(asked, 1).reason.startswith("another model is being loaded")

    young = world()
    make_resident(young, 3)
    young.now_ms -= 15_000  # it was loaded 5 s ago
    assert told(young, 2).reason.startswith("m3 was loaded a moment ago")

    busy = world()
    make_resident(busy, 3)
    busy.do(m.ReportRunning(worker="w1", running=1))
    assert told(busy, 2).reason.startswith("models in use")


def test_the_residue_of_ended_workers_is_told() -> None:
    asked = world()
    asked.do(m.ReportResidue(worker="w9", residue_bytes=3 * GB))

    found = told(asked, 3)

    assert (found.budget_bytes, found.residue_bytes) == (7 * GB, 3 * GB)
    assert found.verdict == "refused"
