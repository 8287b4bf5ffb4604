"""The decision to load, and what earlier loads teach about how long one takes."""

from typing import Final

from daemon.pool import messages as m
from daemon.pool.budget import claim_of
from daemon.pool.draft import Draft
from daemon.pool.shapes import idle_ms
from daemon.pool.state import Pool

LOAD_TIME_GUESS_MS: Final = 30_000
"""Of a model that was never loaded before."""


def expected_load_ms(pool: Pool, key: str) -> int:
    """Learned from this model's last load; a guess for one never loaded."""
    learned = pool.learned.get(key)
    return learned.load_ms if learned is not None else LOAD_TIME_GUESS_MS


def emit_load(
    draft: Draft,
    option: m.Option,
    reason: m.LoadReason,
    *,
    asked_by: tuple[str, ...],
    passed_over: tuple[m.PassedOver, ...] = (),
    asked_ttl_ms: m.AskedIdle = None,
    over_budget: bool = False,
    used_at_ms: int | None = None,
) -> None:
    """Reserve the claim and let a worker be started.

    Args:
        asked_ttl_ms: Instead of what is configured for the model, or for all.
    """
    pool = draft.pool
    claim = claim_of(pool, option)
    ttl_ms = pool.limits.ttl_ms if option.terms.ttl_ms is None else option.terms.ttl_ms
    if asked_ttl_ms is not None:
        ttl_ms = idle_ms(asked_ttl_ms)
    draft.emit(
        m.LoadStarted(
            model=option.model,
            worker=f"w{pool.workers_started + 1}",
            claim_bytes=claim.total_bytes,
            kv_tokens=claim.kv_tokens,
            rows_max=option.terms.rows_max,
            reason=reason,
            asked_by=asked_by,
            passed_over=passed_over,
            ttl_ms=ttl_ms,
            ttl_asked=asked_ttl_ms is not None,
            over_budget=over_budget,
            used_at_ms=used_at_ms,
        )
    )
    if option.terms.pin and option.model.key not in pool.pins:
        draft.emit(m.ModelPinned(key=option.model.key, model=option.model.name))
