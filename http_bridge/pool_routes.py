"""What is served about the pool, and the page made of it: beside the protocols of others."""

from typing import Final

import msgspec

from http_bridge.routes import Route


class LoadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``ttl_s``: idle seconds before it may be unloaded."""

    model: str
    ttl_s: float | None = None
    pin: bool = False


class ModelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str


POOL_ROUTES: Final = (
    Route(method="GET", path="/pool", name="pool", summary="The pool now"),
    Route(
        method="GET",
        path="/pool/events",
        name="pool_events",
        summary="The pool as it changes: the status, then every record of the event log",
        answers=("text/event-stream",),
        query=("after",),
    ),
    Route(
        method="GET",
        path="/pool/history",
        name="pool_history",
        summary="Records of the event log, each with the pool after it",
        query=("after", "before", "limit"),
    ),
    Route(
        method="POST", path="/pool/load", name="pool_load", summary="Load a model", body=LoadBody
    ),
    Route(
        method="POST",
        path="/pool/unload",
        name="pool_unload",
        summary="Unload an idle model",
        body=ModelBody,
    ),
    Route(
        method="POST",
        path="/pool/pin",
        name="pool_pin",
        summary="Never evict, never expire a model",
        body=ModelBody,
    ),
    Route(
        method="POST",
        path="/pool/unpin",
        name="pool_unpin",
        summary="Let a model be evicted and expire again",
        body=ModelBody,
    ),
)

PAGE_ROUTES: Final = (
    Route(method="GET", path="/", name="page", summary="The page", answers=("text/html",)),
    Route(
        method="GET",
        path="/page/{id}",
        name="page_file",
        summary="A file of the page",
        answers=("text/css", "text/javascript", "image/svg+xml"),
    ),
)
"""They hold nothing secret and need no key: the page asks for one where one is needed."""
