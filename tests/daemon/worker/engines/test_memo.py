"""A tower's stand-in: the same values, computed once, within its bound."""

from typing import Any

import mlx.core as mx
import numpy as np

from daemon.worker.engines.memo import TowerMemo


class Tower:
    """Doubles its argument, and counts."""

    width = 7

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: Any, *rest: Any, **_options: Any) -> Any:
        self.calls += 1
        doubled = mx.array(pixels) * 2
        return (doubled, [doubled + 1]) if "pair" in map(str, rest) else doubled


def ones(count: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.ones((count,), dtype)


def test_equal_arguments_are_computed_once() -> None:
    tower = Tower()
    memo = TowerMemo(tower, 1000)
    for pixels in (ones(4), mx.ones((4,)), ones(8)[:4]):
        assert memo(pixels, np.array([1, 2]), deep=False).tolist() == [2.0] * 4
    assert (tower.calls, memo.hits, memo.nbytes, memo.width) == (1, 2, 16, 7)


def test_anything_else_is_another_call() -> None:
    tower = Tower()
    memo = TowerMemo(tower, 10_000)
    memo(ones(4))
    memo(ones(4), [1])
    memo(ones(4), [1], deep=True)
    memo(ones(4), [1], deep=1)
    memo(ones(4).reshape(2, 2))
    memo(ones(4, mx.float16))
    memo(ones(4, mx.bfloat16))
    assert (tower.calls, memo.hits) == (7, 0)


def test_what_the_caller_writes_into_is_not_what_is_kept() -> None:
    memo = TowerMemo(Tower(), 1000)
    for _ in range(2):
        found = memo(ones(3))
        found[0] = 9.0
        first, (second,) = memo(ones(3), "pair")
        first[:] = 0.0
        second[1] = 5.0
    assert memo(ones(3)).tolist() == [2.0] * 3
    assert memo(ones(3), "pair")[1][0].tolist() == [3.0] * 3


def test_the_bound_holds_and_the_oldest_goes() -> None:
    tower = Tower()
    memo = TowerMemo(tower, 100)
    for count in (10, 11, 10, 12):
        memo(ones(count))
    assert (tower.calls, memo.nbytes) == (3, 88)
    memo(ones(10))
    assert tower.calls == 3
    memo(ones(11))
    assert tower.calls == 4
    memo(ones(1000))
    assert memo.nbytes <= 100


def test_outputs_and_arguments_of_other_kinds_pass_through() -> None:
    tower = Tower()
    memo = TowerMemo(tower, 1000)
    assert memo(ones(2), object()).tolist() == memo(ones(2), object()).tolist()
    assert (tower.calls, memo.nbytes) == (2, 0)
    strange = TowerMemo(lambda _pixels: {"features": 1}, 1000)
    assert strange(ones(2)) == strange(ones(2)) == {"features": 1}
    assert strange.hits == 0
