"""Who may ask: a Host allow-list, foreign web pages refused, API keys, JSON only.

Web pages reach servers on loopback through the browser: DNS rebinding is stopped by the Host
header's allow-list, cross-site requests by their Origin and by insisting on a JSON content
type, which no plain form can send.
"""

import hmac
import secrets
from urllib.parse import urlsplit

import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.settings import hashed_key, is_loopback
from http_bridge.errors import HttpProblem


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one request that decide whether it may be served.

    Attributes:
        local_host: The address of ours that the client connected to.
        credential: The ``Authorization`` header, or ``x-api-key`` as a bearer of it.
    """

    method: str
    host: str
    local_host: str
    origin: str | None = None
    credential: str | None = None
    content_type: str = ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may ask.

    Attributes:
        key_hashes: Of each accepted API key, as settings keep it; empty means that none is
            needed.
        allowed_hosts: Names beside loopback and the bound address, lower case.
        allowed_origins: Web origins that may call; with none there is no CORS at all.
    """

    key_hashes: tuple[bytes, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()


def make_policy(
    *,
    api_keys: tuple[str, ...] = (),
    allowed_hosts: tuple[str, ...] = (),
    allowed_origins: tuple[str, ...] = (),
) -> Policy:
    """The policy that settings ask for; keys are given as :func:`hashed_key` makes them."""
    return Policy(
        key_hashes=tuple(key.encode() for key in api_keys),
        allowed_hosts=frozenset(host.lower() for host in allowed_hosts),
        allowed_origins=frozenset(allowed_origins),
    )


def check_exposure(host: str, policy: Policy) -> None:
    """Refuse to listen where others can reach us unless they need a key.

    Raises:
        MlxdError: ``invalid_request`` naming ``http.api_keys``.
    """
    if not is_loopback(host) and not policy.key_hashes:
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"{host} can be reached by others: set http.api_keys in config.toml, "
            "or listen on 127.0.0.1",
            field="http.api_keys",
        )


def check_host(policy: Policy, asked: Asked) -> None:
    """Refuse names that are not ours, so that no foreign name can be pointed at us.

    Raises:
        HttpProblem: 403.
    """
    name = _host_name(asked.host)
    if name in policy.allowed_hosts or is_loopback(name) or (name and name == asked.local_host):
        return
    raise HttpProblem(
        403,
        f"the host name {asked.host!r} is not served here; use the address itself, or add the "
        "name to http.allowed_hosts in config.toml",
        code="host_not_allowed",
    )


def check_origin(policy: Policy, asked: Asked) -> None:
    """Refuse requests that a foreign web page makes through its visitor's browser.

    Raises:
        HttpProblem: 403.
    """
    if asked.origin is None or asked.origin in policy.allowed_origins:
        return
    if asked.origin in {f"http://{asked.host}", f"https://{asked.host}"}:
        return
    raise HttpProblem(
        403,
        f"web pages from {asked.origin!r} may not call; add the origin to http.allowed_origins "
        "in config.toml to let them",
        code="origin_not_allowed",
    )


def check_content_type(asked: Asked, accepted: str = "application/json") -> None:
    """Refuse bodies that do not say they are what is ``accepted``.

    A form is accepted only where a file is sent. Plain web pages can send one, too, but never
    without an Origin, which :func:`check_origin` refuses.

    Raises:
        HttpProblem: 415.
    """
    if asked.method == "POST" and asked.content_type != accepted:
        raise HttpProblem(
            415,
            f"the content type {asked.content_type!r} is not accepted; send {accepted}",
            code="unsupported_media_type",
        )


def has_key(policy: Policy, asked: Asked) -> bool:
    """Whether the request may be told everything: a valid key, or none needed."""
    if not policy.key_hashes:
        return True
    scheme, _, key = (asked.credential or "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    hashed = hashed_key(key.strip()).encode()
    # Every key is compared, so that the time taken does not tell which one was close.
    return sum(hmac.compare_digest(hashed, known) for known in policy.key_hashes) > 0


def check_key(policy: Policy, asked: Asked) -> None:
    """Refuse requests without a valid key, where keys are needed.

    Raises:
        MlxdError: ``unauthorized``.
    """
    if not has_key(policy, asked):
        hint = (
            "send the header Authorization: Bearer <key>, with a key whose hash is in config.toml"
        )
        raise MlxdError(Code.UNAUTHORIZED, f"no valid API key; {hint}", hint=hint)


def new_key() -> tuple[str, str]:
    """A key that nobody can guess, and what config.toml keeps of it."""
    key = f"mlxd-{secrets.token_urlsafe(32)}"
    return key, hashed_key(key)


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
