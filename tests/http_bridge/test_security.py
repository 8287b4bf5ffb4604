"""Who may ask."""

import hashlib

import pytest

from daemon.wire.errors import Code, MlxdError
from http_bridge.errors import HttpProblem
from http_bridge.security import (
    Asked,
    check_content_type,
    check_exposure,
    check_host,
    check_origin,
    has_key,
    make_policy,
    new_key,
)


def asked(
    *, host: str = "localhost:1", origin: str | None = None, credential: str | None = None
) -> Asked:
    return Asked(
        method="POST", host=host, local_host="10.0.0.7", origin=origin, credential=credential
    )


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:11411", "127.9.9.9", "[::1]:1", "[::1]",
     "10.0.0.7:80", "box.local:1"],
)  # fmt: skip
def test_our_own_names_are_served(host: str) -> None:
    check_host(make_policy(allowed_hosts=("Box.local",)), asked(host=host))


@pytest.mark.parametrize(
    "host",
    ["", ":80", "evil.example", "localhost.evil.example", "10.0.0.8", "127.0.0.1.nip.io",
     "evil@localhost.example", "[::1", "0.0.0.0"],
)  # fmt: skip
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        check_host(make_policy(), asked(host=host))
    assert caught.value.status == 403


@pytest.mark.parametrize("origin", [None, "http://localhost:1", "https://chat.example.org"])
def test_known_origins_are_served(origin: str | None) -> None:
    check_origin(make_policy(allowed_origins=("https://chat.example.org",)), asked(origin=origin))


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://localhost:2", "http://chat.example.org"],
)
def test_foreign_origins_are_not(origin: str) -> None:
    policy = make_policy(allowed_origins=("https://chat.example.org",))
    with pytest.raises(HttpProblem) as caught:
        check_origin(policy, asked(origin=origin))
    assert caught.value.status == 403


ONE = "sha256:" + hashlib.sha256(b"one-key").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"other-key").hexdigest()


@pytest.mark.parametrize(
    ("credential", "good"),
    [
        ("Bearer one-key", True),
        ("bearer one-key", True),
        ("Bearer other-key", True),
        (f"Bearer {ONE}", False),
        ("Bearer one-ke", False),
        ("Bearer ", False),
        ("Basic one-key", False),
        ("one-key", False),
        ("Bearer \udcff", False),
        (None, False),
    ],
)
def test_keys(credential: str | None, good: bool) -> None:
    policy = make_policy(api_keys=(ONE, OTHER))
    assert has_key(policy, asked(credential=credential)) is good


def test_no_keys_means_none_needed() -> None:
    assert has_key(make_policy(), asked())


def test_a_new_key_is_let_in_by_its_hash_and_by_no_other() -> None:
    (key, kept), (_, another) = new_key(), new_key()
    assert len(key) > 40
    for hashes, good in (((kept,), True), ((another,), False)):
        policy = make_policy(api_keys=hashes)
        assert has_key(policy, asked(credential=f"Bearer {key}")) is good


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.local"])
def test_others_are_kept_out_without_a_key(host: str) -> None:
    with pytest.raises(MlxdError) as caught:
        check_exposure(host, make_policy())
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "http.api_keys"
    check_exposure(host, make_policy(api_keys=(ONE,)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(host, make_policy())


def test_a_form_is_no_json() -> None:
    for content_type in ("", "text/plain", "application/x-www-form-urlencoded"):
        form = Asked(method="POST", host="", local_host="", content_type=content_type)
        with pytest.raises(HttpProblem) as caught:
            check_content_type(form)
        assert caught.value.status == 415
    check_content_type(
        Asked(method="POST", host="", local_host="", content_type="application/json")
    )
    check_content_type(Asked(method="GET", host="", local_host=""))


def test_a_file_comes_in_a_form_and_in_nothing_else() -> None:
    kind = "multipart/form-data"
    check_content_type(Asked(method="POST", host="", local_host="", content_type=kind), kind)
    sent = Asked(method="POST", host="", local_host="", content_type="application/json")
    with pytest.raises(HttpProblem, match="send multipart/form-data"):
        check_content_type(sent, kind)
