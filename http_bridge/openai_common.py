"""What the OpenAI protocols share of their requests. Pure."""

from typing import Any, Final

from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from daemon.wire.units import parse_duration_s
from http_bridge.errors import refuse
from http_bridge.naming import Need
from http_bridge.openai_schema import Effort, TextRequest
from http_bridge.plan import PRIORITIES, Priority

_TIERS: Final = {"flex": PRIORITIES["low"], "priority": PRIORITIES["high"]}


def check_common(request: TextRequest) -> None:
    """Refuse what is well-formed and cannot be honoured.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter.
    """
    if request.stream_options is not None and not request.stream:
        raise refuse("stream_options", "only together with stream: true")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        raise refuse("stream_options.include_obfuscation", "nothing is obfuscated; leave it out")


def sampling_of(request: TextRequest) -> d.Sampling:
    """How tokens are drawn; what was not given stays the model's own default."""
    return d.Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
    )


def stops_of(request: TextRequest) -> tuple[str, ...]:
    """The stop texts as a tuple."""
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else request.stop


def ttl_s_of(ttl: float | None, keep_alive: str | float | None) -> float | None:
    """Idle seconds from ``ttl`` or ``keep_alive``.

    Raises:
        MlxdError: ``invalid_request`` if they differ, or if ``keep_alive`` is no length of time.
    """
    if keep_alive is None:
        return ttl
    try:
        keep_alive_s = parse_duration_s(keep_alive, field="keep_alive")
    except MlxdError as error:
        raise refuse(
            "keep_alive",
            f"{keep_alive!r} is not a length of time; send seconds or text such as "
            '"5m" (to keep a model for ever, pin it: mlxctl load --pin)',
        ) from error
    if ttl not in {None, keep_alive_s}:
        raise refuse("ttl", "differs from keep_alive; send one of them")
    return keep_alive_s


def priority_of(priority: Priority | None, service_tier: str | None = None) -> int:
    """The wire's priority; the tiers "flex" and "priority" are other words for low and high.

    Raises:
        MlxdError: ``invalid_request`` if both are given and differ.
    """
    tier = _TIERS.get(service_tier or "")
    if priority is None:
        return tier or 0
    value = PRIORITIES[priority] if isinstance(priority, str) else priority
    if tier not in {None, value}:
        raise refuse("service_tier", "differs from priority; send one of them")
    return value


def thinking_of(
    effort: Effort | None, field: str, given: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, tuple[Need, ...]]:
    """Template variables for an effort, joined with those that were ``given``.

    ``none`` sets ``enable_thinking`` to false; the others set it to true and
    ``reasoning_effort`` to their name, which only some templates read: those models have the
    capability "reasoning_effort". ``medium`` is what models do by themselves.

    Raises:
        MlxdError: ``invalid_request`` if ``given`` speaks of the same variables.
    """
    if effort is None:
        return given, ()
    if given is not None and not {"enable_thinking", "reasoning_effort"}.isdisjoint(given):
        raise refuse(field, "chat_template_kwargs says it, too; send one of them")
    if effort == "none":
        return {**(given or {}), "enable_thinking": False}, ()
    variables = {**(given or {}), "enable_thinking": True, "reasoning_effort": effort}
    needed = Need(capability="reasoning_effort", field=field)
    return variables, () if effort == "medium" else (needed,)
