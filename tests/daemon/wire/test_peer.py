"""Only the owner may speak."""

import os
import socket

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.peer import check_peer, peer_uid


def test_the_peer_is_named_and_checked() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert peer_uid(one) == os.geteuid()
        check_peer(one)
        check_peer(one, frozenset({os.geteuid()}))
        with pytest.raises(MlxdError) as caught:
            check_peer(one, frozenset({os.geteuid() + 1}))
        assert caught.value.code is Code.UNAUTHORIZED


def test_a_peer_that_cannot_be_named_is_refused() -> None:
    with socket.socket() as unconnected, pytest.raises(MlxdError) as caught:
        check_peer(unconnected, frozenset({os.geteuid()}))
    assert caught.value.code is Code.UNAUTHORIZED
