"""The pool as clients see it. Pure."""

import msgspec

from daemon.pool import messages as m
from daemon.pool.budget import committed_bytes, spare_bytes
from daemon.pool.decide import expiry_ms
from daemon.pool.estimate import TICKET, estimate
from daemon.pool.state import Busy, Draining, Idle, Loading, Pool, Slot, Stopping, Tenant
from daemon.wire import control as c
from daemon.wire.units import format_bytes


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of this daemon run and not of the pool."""

    version: str
    pid: int
    started_at_ms: int
    home: str
    memory_total_bytes: int


def status_view(
    request_id: int,
    pool: Pool,
    facts: Facts,
    *,
    now_ms: int,
    seq: int,
    rss_bytes: int,
    read_only: str | None,
) -> c.StatusView:
    """The pool now, for ``mlxctl status`` and for the start of a watch."""
    return c.StatusView(
        id=request_id,
        version=facts.version,
        pid=facts.pid,
        generation=pool.generation,
        started_at_ms=facts.started_at_ms,
        now_ms=now_ms,
        seq=seq,
        budget_bytes=pool.budget_bytes,
        committed_bytes=committed_bytes(pool) + spare_bytes(pool),
        spare_bytes=spare_bytes(pool),
        memory_total_bytes=facts.memory_total_bytes,
        rss_bytes=rss_bytes,
        home=facts.home,
        read_only=read_only is not None,
        stopping=pool.stopping is not None,
        pressure="none" if pool.pressure == "normal" else pool.pressure,
        safe_mode=pool.safe_mode_since_ms is not None,
        warnings=_warnings(pool, read_only),
        models=tuple(_resident(pool, key, slot) for key, slot in pool.slots.items()),
        queue=tuple(
            c.QueuedRequest(
                model=waiter.option.model.name,
                client=waiter.client,
                since_ms=waiter.since_ms,
                deadline_at_ms=waiter.deadline_at_ms,
                priority=waiter.priority,
            )
            for waiter in pool.waiters
        ),
    )


def estimate_view(
    request: c.EstimateLoad,
    choice: tuple[tuple[m.Option, ...], tuple[m.PassedOver, ...]],
    client: str,
    pool: Pool,
    now_ms: int,
) -> c.LoadEstimate:
    """What a load would come to, for ``mlxctl load --estimate``."""
    options, passed_over = choice
    load = m.Load(
        ticket=TICKET,
        client=client,
        options=options,
        passed_over=passed_over,
        over_budget=request.over_budget,
    )
    told = estimate(pool, load, now_ms)
    claim = told.claim
    return c.LoadEstimate(
        id=request.id,
        model=told.model.name,
        verdict=told.verdict,
        draft=told.model.draft,
        weights_bytes=claim.weights_bytes,
        overhead_bytes=claim.overhead_bytes,
        kv_tokens=claim.kv_tokens,
        kv_token_bytes=told.model.kv_token_bytes,
        kv_bytes=claim.kv_bytes,
        claim_bytes=claim.total_bytes,
        measured_bytes=told.measured_bytes,
        budget_bytes=told.budget_bytes,
        residue_bytes=told.residue_bytes,
        committed_bytes=told.committed_bytes,
        needed_bytes=told.needed_bytes,
        rule=told.rule,
        considered=tuple(
            c.Considered(
                model=candidate.model,
                claim_bytes=candidate.claim_bytes,
                last_used_at_ms=candidate.last_used_at_ms,
                why_not=candidate.why_not,
                goes=candidate.model in told.victims,
            )
            for candidate in told.candidates
        ),
        load_ms=told.load_ms,
        learned=told.learned,
        over_budget=told.over_budget,
        passed_over=tuple(f"{passed.model}: {passed.why}" for passed in told.passed_over),
        reason=told.reason,
        fault=told.fault,
        now_ms=now_ms,
    )


def _warnings(pool: Pool, read_only: str | None) -> tuple[str, ...]:
    warnings = []
    if read_only is not None:
        warnings.append(f"the event log cannot be written: {read_only}")
    if pool.stopping is not None:
        warnings.append(f"mlxd is shutting down ({pool.stopping})")
    if pool.safe_mode_since_ms is not None:
        warnings.append(
            "safe mode after several unclean starts: nothing is preloaded or restored; "
            "`mlxctl safe-mode clear` ends it"
        )
    if pool.pressure != "normal":
        consequence = {"soft": "nothing new is loaded", "hard": "idle models are evicted"}
        warnings.append(
            f"the machine is short of memory ({pool.pressure}): {consequence[pool.pressure]}"
        )
    residue_bytes = pool.limits.budget_bytes - pool.budget_bytes
    if residue_bytes > 0:
        warnings.append(
            f"{format_bytes(residue_bytes)} of ended workers are still wired; "
            "restarting the machine gives them back"
        )
    over_bytes = committed_bytes(pool) - pool.budget_bytes
    if over_bytes > 0:
        warnings.append(f"models claim {format_bytes(over_bytes)} more than the budget")
    quarantined = [
        f"{f.model} is quarantined: {f.message}; `mlxctl unquarantine {f.model}` lets it try again"
        for f in pool.failures.values()
        if f.quarantined
    ]
    return (*warnings, *quarantined)


def _resident(pool: Pool, key: str, slot: Slot) -> c.ResidentModel:
    tenant, service = slot.tenant, None
    if isinstance(slot, Idle | Busy | Draining):
        service = slot.service
    model = tenant.model
    return c.ResidentModel(
        name=model.name,
        path=model.path,
        kind=model.kind,
        capabilities=model.capabilities,
        state=state_name(slot),
        worker=tenant.worker,
        pid=tenant.process.pid if tenant.process is not None else None,
        claim_bytes=tenant.claim_bytes,
        measured_bytes=tenant.measured_bytes,
        context_tokens=service.context_tokens if service else _planned_tokens(tenant),
        leases=len(slot.leases) if isinstance(slot, Busy) else 0,
        running=slot.running if isinstance(slot, Busy) else 0,
        progress=_progress(slot),
        pinned=key in pool.pins,
        loaded_at_ms=service.loaded_at_ms if service else None,
        last_used_at_ms=service.last_used_at_ms if service else None,
        expires_at_ms=expiry_ms(pool, key, slot) if isinstance(slot, Idle) else None,
        tokens_per_s=round(tenant.tokens_per_s, 1),
    )


def _planned_tokens(tenant: Tenant) -> int:
    """The context of a model that is coming or going: at most its share of the KV cache."""
    wanted = tenant.model.context_tokens
    return min(wanted, tenant.kv_tokens) if wanted and tenant.kv_tokens else wanted


def state_name(slot: Slot) -> c.ModelState:
    """The word for a slot's state."""
    match slot:
        case Loading():
            return "loading"
        case Idle():
            return "idle"
        case Busy():
            return "busy"
        case Draining():
            return "draining"
        case Stopping():
            return "stopping"


def _progress(slot: Slot) -> float:
    if not isinstance(slot, Loading):
        return 1.0
    total_bytes = slot.tenant.model.weights_bytes
    return min(slot.done_bytes / total_bytes, 1.0) if total_bytes else 0.0
