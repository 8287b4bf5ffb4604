"""Requests about one model, as commands to the kernel. Pure."""

from daemon.pool import messages as m
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError

TTL_S_MAX = 10 * 365 * 86_400.0

ModelVerb = (
    c.UnloadModel | c.EvictModel | c.PinModel | c.UnpinModel | c.SetTtl | c.UnquarantineModel
)


def command_of(request: ModelVerb, key: str, client: str, ticket: int) -> m.ClientCommand:
    """The command that ``request`` asks for, about the model whose slot key is ``key``.

    Raises:
        MlxdError: ``invalid_request`` for a time to live that is none.
    """
    name = request.model
    match request:
        case c.UnloadModel():
            return m.Unload(ticket=ticket, client=client, key=key, name=name)
        case c.EvictModel():
            return m.Evict(ticket=ticket, client=client, key=key, name=name)
        case c.PinModel():
            return m.Pin(ticket=ticket, client=client, key=key, name=name)
        case c.UnpinModel():
            return m.Unpin(ticket=ticket, client=client, key=key, name=name)
        case c.UnquarantineModel():
            return m.Unquarantine(ticket=ticket, client=client, key=key, name=name)
        case c.SetTtl():
            return m.SetTtl(
                ticket=ticket,
                client=client,
                key=key,
                name=name,
                ttl_ms=None if request.ttl_s is None else milliseconds(request.ttl_s),
            )


def asked_idle(ttl_s: c.Ttl) -> m.AskedIdle:
    """The same where it may be left out, or be "never"."""
    return ttl_s if ttl_s is None or ttl_s == "never" else milliseconds(ttl_s)


def checked_priority(priority: int) -> int:
    """A place in the queue.

    Raises:
        MlxdError: ``invalid_request`` for one that is out of bounds.
    """
    if abs(priority) > c.PRIORITY_MAX:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"priority is {priority}; give {-c.PRIORITY_MAX} to {c.PRIORITY_MAX}",
            field="priority",
        )
    return priority


def milliseconds(ttl_s: float) -> int:
    """A time to live in whole milliseconds.

    Raises:
        MlxdError: ``invalid_request`` for a negative, endless or absurd one.
    """
    if not 0 <= ttl_s <= TTL_S_MAX:
        raise MlxdError(
            Code.INVALID_REQUEST, f"ttl_s is {ttl_s}; give seconds, 0 or more", field="ttl_s"
        )
    return int(ttl_s * 1000)
