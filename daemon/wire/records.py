"""Records of the event log, as clients read them: loosely, so that a newer daemon's pass."""

from typing import Any

import msgspec

Event = dict[str, Any]


class Record(msgspec.Struct, frozen=True):
    """One line of the log; fields that only checking needs are left out."""

    seq: int
    at_ms: int
    cause: dict[str, Any] = {}
    events: tuple[Event, ...] = ()


_decoder = msgspec.json.Decoder(Record)


def read_record(line: str) -> Record:
    """The record on one line of the log.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    return _decoder.decode(line)


class ModelNames:
    """Which model each worker has: some events name only their worker."""

    def __init__(self, known: dict[str, str]) -> None:
        self._of_worker = dict(known)

    def learn(self, record: Record) -> None:
        """Take in what a record says of workers and their models."""
        for event in record.events:
            worker, name = event.get("worker"), _own_name(event)
            if isinstance(worker, str) and name:
                self._of_worker[worker] = name

    def learn_workers(self, known: dict[str, str]) -> None:
        """Take in which model each of some workers has."""
        self._of_worker.update(known)

    def name(self, event: Event) -> str:
        """The model that an event is about; empty for events of the daemon itself."""
        return _own_name(event) or self._of_worker.get(str(event.get("worker")), "")


def _own_name(event: Event) -> str:
    model = event.get("model")
    if isinstance(model, dict):
        model = model.get("name")
    return model if isinstance(model, str) else ""
