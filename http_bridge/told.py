"""A record of the event log as the page shows it: in words, with the models named. Pure."""

from typing import Any

from daemon.wire.records import ModelNames, Record
from daemon.wire.sentences import cause_words, sentence


def told(record: Record, names: ModelNames) -> dict[str, Any]:
    """Who caused it, and what happened to which model, in plain sentences.

    Args:
        names: Has learned of this record and of those before it.
    """
    return {
        "seq": record.seq,
        "at_ms": record.at_ms,
        "cause": cause_words(record.cause),
        "events": [
            {
                "type": str(event.get("type", "")),
                "model": names.name(event),
                "text": sentence(event),
            }
            for event in record.events
        ],
    }
