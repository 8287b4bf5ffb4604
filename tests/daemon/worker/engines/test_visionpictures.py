"""Tensors of rows that wait; that answers are the same is in the vision contract."""

from collections.abc import Sequence

import mlx.core as mx
import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.visionpictures import PictureLine, Pictures, Tensors, size_bytes

BOUND = "daemon.worker.engines.visionpictures.TENSORS_BYTES_MAX"
FILES_BOUND = "daemon.worker.engines.visionpictures.FILES_BYTES_MAX"


class Maker:
    """Makes tensors of files, a byte a byte, and remembers of which."""

    def __init__(self) -> None:
        self.made: list[Sequence[bytes]] = []

    def __call__(self, files: Sequence[bytes]) -> Tensors:
        self.made.append(files)
        return of(files)


def of(files: Sequence[bytes]) -> Tensors:
    return {"pixel_values": [mx.array(list(file), mx.uint8) for file in files]}


def add(line: PictureLine, make: Maker, *files: bytes) -> Pictures:
    pictures = Pictures(files, make)
    line.add(pictures, of(files))
    return pictures


def bytes_of(tensors: Tensors) -> list[bytes]:
    return [bytes(array.tolist()) for array in tensors["pixel_values"]]


def test_arrays_are_counted_wherever_they_are() -> None:
    grid = mx.zeros((1, 3), mx.int32)
    tensors = {"a": mx.zeros((2, 5)), "b": [grid, [grid]], "c": None, "d": "x", "e": 7}
    assert size_bytes(tensors) == 40 + 12 + 12
    assert size_bytes({}) == 0


def test_tensors_that_were_kept_are_handed_over_and_made_again_after_that() -> None:
    line, make = PictureLine(), Maker()
    pictures = add(line, make, b"abc", b"de")
    assert line.tensors_bytes == 5
    assert bytes_of(pictures.take()) == [b"abc", b"de"]
    assert make.made == []
    assert line.tensors_bytes == 0
    assert bytes_of(pictures.take()) == [b"abc", b"de"]
    assert make.made == [(b"abc", b"de")]
    assert line.tensors_bytes == 0, "they are for the batch, and not kept again"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BOUND, 10)
    line, make = PictureLine(), Maker()
    rows = [add(line, make, b"abcd") for _ in range(4)]
    assert line.tensors_bytes == 8
    small = add(line, make, b"xy")
    assert line.tensors_bytes == 10
    assert all(bytes_of(row.take()) == [b"abcd"] for row in rows)
    assert len(make.made) == 2
    assert bytes_of(small.take()) == [b"xy"]
    assert len(make.made) == 2


def test_the_only_ones_are_kept_whatever_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a large picture would be prepared twice where nothing waits."""
    monkeypatch.setattr(BOUND, 10)
    line, make = PictureLine(), Maker()
    large, further = add(line, make, bytes(50)), add(line, make, b"x")
    assert line.tensors_bytes == 50
    large.take()
    assert make.made == []
    further.take()
    assert make.made == [(b"x",)]


def test_a_row_that_is_gone_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BOUND, 10)
    monkeypatch.setattr(FILES_BOUND, 10)
    line, make = PictureLine(), Maker()
    waiting = add(line, make, bytes(8))
    with pytest.raises(MlxdError):
        line.check_room([bytes(8)])
    del waiting
    assert line.tensors_bytes == 0
    line.check_room([bytes(8)])


def test_files_are_bounded_but_for_the_only_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FILES_BOUND, 10)
    line, make = PictureLine(), Maker()
    line.check_room([bytes(8), bytes(8)])
    first = add(line, make, bytes(8))
    line.check_room([b"xy"])
    line.check_room([])
    with pytest.raises(MlxdError, match="try again later") as caught:
        line.check_room([b"x", b"yz"])
    assert caught.value.code is Code.QUEUE_FULL
    first.take()
    with pytest.raises(MlxdError, match="try again later"):
        line.check_room([b"xyz"])
