"""What a model claims of memory, and the arithmetic in words."""

from typing import Final

import msgspec

from daemon.pool.messages import Model, Option
from daemon.pool.state import Draining, Pool, Stopping
from daemon.wire.units import format_bytes

OVERHEAD_BYTES: Final = 192 << 20
"""A worker before its weights: interpreter and libraries take about 100 MB (measured on
Linux), the library's freed buffers up to 64 MiB, and activations the rest."""

SPARE_BYTES: Final = 112 << 20
"""A worker that has imported the libraries for every kind of model (102 MB on Linux)."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is reserved before a load: each part is told to people."""

    weights_bytes: int
    overhead_bytes: int
    kv_bytes: int
    kv_tokens: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.overhead_bytes + self.kv_bytes

    def arithmetic(self) -> str:
        """The sum in words: "541.2 MB = weights 119.0 MB + …"."""
        return (
            f"{format_bytes(self.total_bytes)} = weights {format_bytes(self.weights_bytes)}"
            f" + KV cache {format_bytes(self.kv_bytes)} ({self.kv_tokens:,} tokens)"
            f" + overhead {format_bytes(self.overhead_bytes)}"
        )


def claim_of(pool: Pool, option: Option) -> Claim:
    """What loading ``option`` would reserve.

    The KV allowance is never more than all rows at full context could use. A footprint
    learned from an earlier load replaces the estimate of weights and overhead if greater.
    """
    model = option.model
    kv_tokens = min(pool.limits.kv_tokens, model.context_tokens * option.terms.rows_max)
    learned = pool.learned.get(model.key)
    held_bytes = learned.measured_bytes if learned is not None else 0
    return Claim(
        weights_bytes=model.weights_bytes,
        overhead_bytes=max(OVERHEAD_BYTES, held_bytes - model.weights_bytes),
        kv_bytes=kv_tokens * model.kv_token_bytes,
        kv_tokens=kv_tokens,
    )


def committed_bytes(pool: Pool) -> int:
    """All claims together: loading, resident, draining and stopping."""
    return sum(slot.tenant.claim_bytes for slot in pool.slots.values())


def spare_bytes(pool: Pool) -> int:
    """What the spare takes: in no load's way, and so no part of :func:`committed_bytes`."""
    return 0 if pool.spare.name is None else SPARE_BYTES


def unmovable_bytes(pool: Pool, wanted: Model) -> int:
    """Claims of pinned models other than ``wanted``: no policy will ever free them."""
    return sum(
        slot.tenant.claim_bytes
        for key, slot in pool.slots.items()
        if key in pool.pins and key != wanted.key and not isinstance(slot, Draining | Stopping)
    )


def never_fits(pool: Pool, option: Option, *, over_budget: bool = False) -> str | None:
    """Why ``option`` can never fit as things are configured and pinned; None if it can."""
    workers_max = pool.limits.workers_max
    if workers_max is not None and _pinned_workers(pool, option.model) >= workers_max:
        return (
            f"all {workers_max} places for models are taken by pinned ones; "
            "unpin one, or raise pool.workers_max"
        )
    if over_budget:
        return None
    claim = claim_of(pool, option)
    budget, pinned = pool.budget_bytes, unmovable_bytes(pool, option.model)
    if claim.total_bytes <= budget - pinned:
        return None
    needs = f"{option.model.name} needs {claim.arithmetic()}"
    whole = f"the budget {_less_residue(pool)}"
    if claim.total_bytes > budget:
        return (
            f"{needs}; {whole}. Raise pool.memory, lower "
            "pool.kv_tokens, choose a smaller model, or load it with --over-budget"
        )
    return (
        f"{needs}; {whole}, and pinned models hold "
        f"{format_bytes(pinned)} of it. Unpin one, raise pool.memory, or lower pool.kv_tokens"
    )


def _pinned_workers(pool: Pool, wanted: Model) -> int:
    return sum(
        key in pool.pins and key != wanted.key and not isinstance(slot, Draining | Stopping)
        for key, slot in pool.slots.items()
    )


def _less_residue(pool: Pool) -> str:
    held_bytes = pool.limits.budget_bytes - pool.budget_bytes
    if not held_bytes:
        return f"is {format_bytes(pool.budget_bytes)}"
    return (
        f"of {format_bytes(pool.limits.budget_bytes)} has {format_bytes(pool.budget_bytes)} left: "
        f"{format_bytes(held_bytes)} did not come back from workers that ended, and will not "
        "before the machine is restarted"
    )
