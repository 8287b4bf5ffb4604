"""A watcher that never forgets: what it was shown must be there after every death."""

import anyio

from daemon.eventlog.log import EventLog
from daemon.eventlog.reader import DECODER, Line
from daemon.kernel import Subscription
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool
from tests.sim.books import Books
from tests.sim.worker import Violation


class Witness:
    """Hears every line as it becomes visible, and folds it: books of its own, and the pool.

    Attributes:
        pool: What the lines add up to, as a replay of the log gives it.
        power_lost: Since the log was last looked at: what was not synced may be gone.
    """

    def __init__(self, limits: Limits) -> None:
        self.books = Books()
        self.pool = Pool(limits=limits)
        self._shown: dict[int, str] = {}
        self.power_lost = False
        self._appalled = False
        self._mark = (self.books.copy(), self.pool, "")

    def hear(self, subscription: Subscription) -> None:
        """Every line that was published since the last call."""
        while not self._appalled:
            try:
                line = subscription.lines.receive_nowait()
            except anyio.WouldBlock:
                return
            except anyio.EndOfStream:
                raise Violation("the watcher was told nothing more") from None
            self._take(line)

    def compare(self, log: EventLog) -> None:
        """Hear what the log holds now, which an earlier daemon wrote.

        Raises:
            Violation: Something is gone that was shown, or that had to be durable.
        """
        books, pool, last = self._mark
        lines = {line.seq: line for line in log.read_after(max(books.seq - 1, 0))}
        if books.seq and lines[books.seq].text != last:
            raise Violation(f"what came before record {books.seq} has changed")
        for seq, text in self._shown.items():
            if self.power_lost and seq > self.books.durable_seq:
                continue
            if seq not in lines or lines[seq].text != text:
                raise Violation(f"record {seq} was acknowledged and is gone: {text}")
        if self.power_lost:
            self.books, self.pool, self.power_lost = books, pool, False
        for seq in sorted(lines):
            if seq > self.books.seq:
                self._take(lines[seq])
        self._shown.clear()
        last = lines[self.books.seq].text if self.books.seq in lines else last
        self._mark = (self.books.copy(), self.pool, last)

    def _take(self, line: Line) -> None:
        self._appalled = True  # unless all of this goes well, there is no more to hear
        self.books.read(line.text)
        record = DECODER.decode(line.text.encode())
        for event in record.events:
            self.pool = evolve(self.pool, event, record.at_ms)
        self._shown[line.seq] = line.text
        self._appalled = False
