"""What tests of the protocols say about plans."""

from msgspec.structs import replace

from http_bridge.naming import Names, Need
from http_bridge.plan import Plan

CHAT = Need(capability="chat")


def bare(plan: Plan) -> Plan:
    """A plan without its client's names, which never compare as equal."""
    return replace(plan, names=Names())


def needs(*pairs: tuple[str, str]) -> tuple[Need, ...]:
    """Needs of a chat, beyond being one: a capability, and the field that asks for it."""
    return (CHAT, *(Need(capability=capability, field=field) for capability, field in pairs))
