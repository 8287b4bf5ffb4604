"""The allowance and the line; how rows live is in the engine contract."""

import pytest

from daemon.wire.data import Generate
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.output import TextOutput
from daemon.worker.engines.rows import WAITING_MAX, Allowance, Row, Rows, Token
from daemon.worker.engines.splitting import Markers, Splitter

REQUEST = Generate(lease="l", prompt="x")


@pytest.mark.parametrize(
    ("lengths", "holds", "admits"),
    [
        ([5000], True, True),
        ([256, 256], True, True),
        ([257, 1], True, False),
        ([512, 512], True, False),
        ([513, 1], False, False),
        ([1, 1, 1], True, False),
        ([1, 1, 1, 1], False, False),
    ],
)
def test_rows_times_the_longest(lengths: list[int], *, holds: bool, admits: bool) -> None:
    allowance = Allowance(kv_tokens=1024, rows_max=3)
    assert allowance.holds(lengths) is holds
    assert allowance.admits(lengths) is admits


class NoDecoder:
    """A decoder for rows that never get to run."""

    def defers(self, row: Row) -> bool:
        return False

    def insert(self, row: Row) -> int:
        raise NotImplementedError

    def remove(self, uid: int) -> None:
        raise NotImplementedError

    def next(self) -> list[Token]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to free."""


class NoText:
    """A detokenizer that is never asked."""

    last_segment = ""

    def add_token(self, token: int) -> None:
        raise NotImplementedError

    def finalize(self) -> None:
        raise NotImplementedError


def row() -> Row:
    return Row(prompt=[1], tokens_max=1, output=TextOutput(NoText(), Splitter(Markers(), ())))


def test_the_line_is_bounded() -> None:
    rows = Rows(lambda _request: row(), NoDecoder, Allowance(1024, 1))
    for number in range(WAITING_MAX):
        rows.submit(number, REQUEST)
    with pytest.raises(MlxdError) as caught:
        rows.submit(WAITING_MAX, REQUEST)
    assert caught.value.code is Code.QUEUE_FULL
    rows.cancel(0)
    rows.submit(WAITING_MAX, REQUEST)


def test_a_row_that_cannot_be_inserted_fails_alone() -> None:
    rows = Rows(lambda _request: row(), NoDecoder, Allowance(1024, 4))
    rows.submit(1, REQUEST)
    (emission,) = rows.step()
    assert emission.usage is not None
    assert emission.frames[0].fault.code is Code.WORKER_FAILED  # type: ignore[union-attr]
    assert not rows.busy
