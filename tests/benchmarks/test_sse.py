"""Answers of servers, however the network cuts them."""

import pytest

from benchmarks.sse import Answer, Arrival, BadAnswer, events, transcript

EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    b": keep-alive\n\n"
    b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"lo"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
    b"data: [DONE]\n\n"
)
PLAIN_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(body: bytes, size: int) -> bytes:
    """A body as RFC 9112 chunks it, by hand."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def cut(data: bytes, size: int) -> list[Arrival]:
    """Pieces of ``data``, one a second."""
    starts = range(0, len(data), size)
    return [(float(n), data[at : at + size]) for n, at in enumerate(starts)]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("raw", [PLAIN_HEAD + EVENTS, CHUNKED_HEAD + chunked(EVENTS, 37)])
def test_a_stream_is_the_same_however_it_is_cut(raw: bytes, size: int) -> None:
    said = transcript(cut(raw, size))
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("Hello", 9, 2)
    assert said.cached_tokens == 4
    assert len(said.texts_s) == 2


def test_text_is_dated_when_its_event_is_complete() -> None:
    before, after = EVENTS.split(b'lo"}}]}\n\n')
    arrivals = [(1.0, PLAIN_HEAD), (2.0, before), (3.0, b'lo"}}]}\n'), (4.0, b"\n" + after)]
    assert transcript(arrivals).texts_s == (2.0, 4.0)
    assert transcript(arrivals).end_s == 4.0


def test_comments_are_no_events() -> None:
    assert len(list(events(cut(PLAIN_HEAD + EVENTS, 50)))) == 6


def test_a_body_of_stated_length_ends_by_itself() -> None:
    answer = Answer()
    assert answer.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnot") == b"not"
    assert (answer.status, answer.ended) == (404, False)
    assert answer.feed(b"h.") == b"h."
    assert answer.ended


@pytest.mark.parametrize(
    ("raw", "quoted"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n{}", "503 Busy"),
        (PLAIN_HEAD + b'data: {"error":{"message":"no room"}}\n\n', "no room"),
        (PLAIN_HEAD + EVENTS + b'data: {"error":{"message":"torn"}}\n\n', '^{"error".*torn'),
        (PLAIN_HEAD + EVENTS.partition(b'data: {"choices":[],"usage"')[0], "no usage"),
    ],
)
def test_what_is_no_whole_answer_is_quoted(raw: bytes, quoted: str) -> None:
    with pytest.raises(BadAnswer, match=quoted):
        transcript(cut(raw, 20))


def test_other_servers_count_under_other_names() -> None:
    raw = PLAIN_HEAD + EVENTS.replace(b'prompt_tokens":9', b'input_tokens":9').replace(
        b"completion_tokens", b"output_tokens"
    )
    said = transcript(cut(raw, 64))
    assert (said.prompt_tokens, said.completion_tokens) == (9, 2)
