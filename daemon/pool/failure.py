"""How often a model has failed, and whether it may be tried: back-off and quarantine."""

from typing import Final

from daemon.pool import messages as m
from daemon.pool.state import CRASHES_KEPT, Failures, Pool
from daemon.wire.errors import Code

BACK_OFF_FIRST_MS: Final = 1_000
BACK_OFF_MAX_MS: Final = 300_000


def back_off_ms(crashes: int, *, loading: bool) -> int:
    """How long to wait after so many crashes in the window: 1 s, doubling to 300 s.

    A model that served and crashed once may be tried at once: it can be loaded, and what
    crashed it may have been one request. One that crashed ``loading`` waits even then.
    """
    doublings = crashes - 1 if loading else crashes - 2
    return 0 if doublings < 0 else min(BACK_OFF_FIRST_MS << min(doublings, 20), BACK_OFF_MAX_MS)


def retry_at_ms(pool: Pool, key: str) -> int:
    """No load of this model before then; 0 if it may be tried at any time."""
    failures = pool.failures.get(key)
    if failures is None or failures.quarantined or not failures.crashed_at_ms:
        return 0
    last_ms = failures.crashed_at_ms[-1]
    return last_ms + back_off_ms(crashes_by(pool, failures, last_ms), loading=failures.loading)


def crashes_by(pool: Pool, failures: Failures, at_ms: int) -> int:
    """Crashes in the window that ended at ``at_ms``."""
    since_ms = at_ms - pool.limits.crash_window_ms
    return sum(t > since_ms for t in failures.crashed_at_ms)


def crashes_too_many(pool: Pool, key: str, now_ms: int) -> int | None:
    """The crashes that put ``key`` in quarantine; None if it is there or has not earned it."""
    failures = pool.failures.get(key)
    if failures is None or failures.quarantined:
        return None
    crashes = crashes_by(pool, failures, now_ms)
    return crashes if crashes >= min(pool.limits.crashes_max, CRASHES_KEPT) else None


def failed_before(pool: Pool, model: m.Model) -> tuple[Code, str] | None:
    """Why what is known of ``model`` forbids another try; None if nothing does."""
    failures = pool.failures.get(model.key)
    if failures is None:
        return None
    if failures.quarantined:
        crashes = len(failures.crashed_at_ms)
        after = f" after {crashes} crashes" if crashes else ""
        message = (
            f"{model.name} is quarantined{after}: {failures.message}. "
            f"`mlxctl unquarantine {model.name}` lets it try again"
        )
        return Code.QUARANTINED, message
    if failures.reason == "incompatible" and failures.identity == model.identity:
        message = (
            f"{model.name} cannot be loaded: {failures.message}. "
            "It is tried again once its files change"
        )
        return Code.INCOMPATIBLE, message
    return None
