"""``/v1/models`` as Anthropic's clients read it. Pure.

Field names and meanings are Anthropic's (https://docs.anthropic.com/en/api/models-list).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from daemon.wire import control as c
from http_bridge.errors import refuse

LIMIT_MAX: Final = 1000


def model_info(model: c.KnownModel) -> dict[str, Any]:
    """One model; ``problem``, why it cannot be loaded, is ours."""
    created = datetime.fromtimestamp(model.created_at_ms // 1000, UTC)
    shown: dict[str, Any] = {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens or None,
    }
    if model.problem is not None:
        shown["problem"] = model.problem
    return shown


def model_page(known: c.ModelsView, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the models that could serve a request; without a limit, a thousand.

    Args:
        query: ``limit``, and ``after_id`` or ``before_id``.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter.
    """
    infos = [model_info(model) for model in known.models if model.problem is None]
    first, end = 0, len(infos)
    ids = [info["id"] for info in infos]
    if (after := query.get("after_id")) is not None:
        first = _index(ids, after, "after_id") + 1
    if (before := query.get("before_id")) is not None:
        end = _index(ids, before, "before_id")
    page, limit = infos[first:end], _limit(query)
    backwards = before is not None and after is None
    shown = page[-limit:] if backwards else page[:limit]
    return {
        "data": shown,
        "has_more": len(shown) < len(page),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def _index(ids: list[str], wanted: str, field: str) -> int:
    if wanted not in ids:
        raise refuse(field, f"no model {wanted!r} is listed; begin again without it")
    return ids.index(wanted)


def _limit(query: Mapping[str, str]) -> int:
    given = query.get("limit", str(LIMIT_MAX))
    whole = given.isascii() and given.isdigit() and len(given) <= 4
    if not whole or not 1 <= int(given) <= LIMIT_MAX:
        raise refuse("limit", f"ask for 1 to {LIMIT_MAX} models")
    return int(given)
