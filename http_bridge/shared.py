"""Questions that many ask at the same moment, and that are asked once for all of them."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from daemon.wire.errors import Fault, MlxdError

T = TypeVar("T")


class _Round(Generic[T]):
    """Those who get one answer."""

    def __init__(self) -> None:
        self.answers: list[T] = []
        self.fault: Fault | None = None


class Shared(Generic[T]):
    """Asks ``ask`` once for everybody who came while it was being asked before.

    So nobody hears what was true only before they asked, and however many ask, there is
    one question at a time.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking = anyio.Lock(fast_acquire=True)
        self._gathering = _Round[T]()

    async def __call__(self) -> T:
        """The answer.

        Raises:
            MlxdError: What the question came to, for all of the round.
        """
        mine = self._gathering
        async with self._asking:
            if not mine.answers and mine.fault is None:
                self._gathering = _Round()  # whoever comes from now on asks anew
                try:
                    mine.answers.append(await self._ask())
                except MlxdError as error:
                    mine.fault = error.fault
        if mine.fault is not None:
            raise MlxdError.of(mine.fault)
        return mine.answers[0]
