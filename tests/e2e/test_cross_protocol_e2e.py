"""One question, three protocols: the same words, in the shapes that each protocol documents.

Shapes are read from plain HTTP, because an SDK forgives a missing field; the SDKs themselves
drive the rest.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.e2e.service import Service
from tests.e2e.vision_models import BUNDLED

pytestmark = [pytest.mark.e2e, pytest.mark.e2e_anthropic]

Text = Callable[[str], str]

CHAT_ID = re.compile(r"chatcmpl-[0-9a-f]{24}")
MESSAGE_ID = re.compile(r"msg_[0-9a-f]{24}")


@pytest.fixture(scope="module")
def sdk(service: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def resident(service: Service, text_model: str) -> Iterator[None]:
    for name in (text_model, BUNDLED):
        service.mlxctl("load", name)
    yield
    for name in (text_model, BUNDLED):
        service.mlxctl("unload", name)


def events_of(http: httpx.Client, path: str, body: dict[str, Any]) -> list[tuple[str, Any]]:
    """A stream's events, each with its name; the data as JSON, or as text if it is none."""
    with http.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        blocks = "\n".join(reply.iter_lines()).strip().split("\n\n")
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] != ":")
        data = fields.get("data", "")
        found.append((fields.get("event", ""), json.loads(data) if data[:1] == "{" else data))
    return found


def three_answers(
    client: openai.OpenAI, sdk: anthropic.Anthropic, model: str, system: str | None, question: str
) -> list[tuple[str, int, int]]:
    """Text and counts of prompt and answer: by chat, responses and messages, in their ways."""
    user: Any = {"role": "user", "content": question}
    before: list[Any] = [{"role": "system", "content": system}] if system else []
    chat = client.chat.completions.create(
        model=model, messages=[*before, user], temperature=0, max_tokens=12
    )
    response = client.responses.create(
        model=model,
        instructions=system or openai.omit,
        input=[user],
        temperature=0,
        max_output_tokens=12,
    )
    message = sdk.messages.create(
        model=model,
        system=system or anthropic.omit,
        messages=[user],
        max_tokens=12,
        extra_body={"temperature": 0},
    )
    (block,) = message.content
    assert block.type == "text"
    assert chat.usage is not None
    assert response.usage is not None
    cached = message.usage.cache_read_input_tokens or 0
    return [
        (
            chat.choices[0].message.content or "",
            chat.usage.prompt_tokens,
            chat.usage.completion_tokens,
        ),
        (response.output_text, response.usage.input_tokens, response.usage.output_tokens),
        (block.text, message.usage.input_tokens + cached, message.usage.output_tokens),
    ]


def test_the_same_question_gets_the_same_words(
    client: openai.OpenAI, sdk: anthropic.Anthropic, text_model: str, golden: Text
) -> None:
    answers = three_answers(client, sdk, text_model, None, golden("text/factual.txt"))
    assert "Paris" in answers[0][0]
    assert answers[0] == answers[1] == answers[2]


def test_the_system_message_arrives_by_each_protocols_own_way(
    client: openai.OpenAI, sdk: anthropic.Anthropic, text_model: str, golden: Text
) -> None:
    system, user = golden("text/system_instruction.txt"), golden("text/system_user.txt")
    answers = three_answers(client, sdk, text_model, system, user)
    assert answers[0] == answers[1] == answers[2]
    (without,) = {*three_answers(client, sdk, text_model, None, user)}
    assert without[0] != answers[0][0], "it changes the answer"
    developer: Any = [{"role": "developer", "content": system}, {"role": "user", "content": user}]
    newer = client.chat.completions.create(
        model=text_model, messages=developer, temperature=0, max_tokens=12
    )
    assert newer.choices[0].message.content == answers[0][0]


HELLO = [{"role": "user", "content": "Hello!"}]


def test_every_field_of_a_chat_completion(http: httpx.Client) -> None:
    body = {"model": BUNDLED, "messages": HELLO, "max_tokens": 4}
    reply = http.post("/v1/chat/completions", json=body).json()
    assert CHAT_ID.fullmatch(reply.pop("id"))
    assert isinstance(reply.pop("created"), int)
    cached = reply["usage"]["prompt_tokens_details"].pop("cached_tokens")
    assert 0 <= cached < 14
    assert reply == {
        "object": "chat.completion",
        "model": BUNDLED,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hell", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 14,
            "completion_tokens": 4,
            "total_tokens": 18,
            "prompt_tokens_details": {},
        },
    }


def test_every_field_of_a_message(http: httpx.Client) -> None:
    body = {"model": BUNDLED, "messages": HELLO, "max_tokens": 4}
    reply = http.post("/v1/messages", json=body).json()
    assert MESSAGE_ID.fullmatch(reply.pop("id"))
    usage = reply.pop("usage")
    assert usage.pop("input_tokens") + usage.pop("cache_read_input_tokens") == 14
    assert usage == {"cache_creation_input_tokens": 0, "output_tokens": 4}
    assert reply == {
        "type": "message",
        "role": "assistant",
        "model": BUNDLED,
        "content": [{"type": "text", "text": "Hell"}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
    }


def test_every_chunk_of_a_chat_stream(http: httpx.Client) -> None:
    body = {
        "model": BUNDLED,
        "messages": HELLO,
        "max_tokens": 4,
        "stream_options": {"include_usage": True},
    }
    *events, done = events_of(http, "/v1/chat/completions", body)
    assert done == ("", "[DONE]")
    assert {name for name, _ in events} == {""}, "this protocol names no events"
    chunks = [data for _, data in events]
    assert len({(c["id"], c["object"], c["created"], c["model"]) for c in chunks}) == 1
    assert all(set(c) == {"id", "object", "created", "model", "choices", "usage"} for c in chunks)
    first, *middle, last, usage = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        assert set(choice) == {"index", "delta", "logprobs", "finish_reason"}
        assert chunk["usage"] is None
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in middle)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == "Hell"
    assert [c["choices"][0]["finish_reason"] for c in middle] == [None] * len(middle)
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 18)


def test_every_event_of_a_message_stream(http: httpx.Client) -> None:
    body = {"model": BUNDLED, "messages": HELLO, "max_tokens": 4}
    events = [e for e in events_of(http, "/v1/messages", body) if e[0] != "ping"]
    assert all(name == data["type"] for name, data in events)
    start, block, *deltas, stop, ending, last = [data for _, data in events]
    assert MESSAGE_ID.fullmatch(start["message"].pop("id"))
    assert start["message"].pop("usage")["output_tokens"] == 0
    assert start == {
        "type": "message_start",
        "message": {
            "type": "message",
            "role": "assistant",
            "model": BUNDLED,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        },
    }
    opened = {"type": "text", "text": ""}
    assert block == {"type": "content_block_start", "index": 0, "content_block": opened}
    for event in deltas:
        assert set(event) == {"type", "index", "delta"}
        assert (event["type"], event["index"]) == ("content_block_delta", 0)
        assert event["delta"]["type"] == "text_delta"
    assert "".join(event["delta"]["text"] for event in deltas) == "Hell"
    assert stop == {"type": "content_block_stop", "index": 0}
    assert ending["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert ending["usage"]["output_tokens"] == 4
    assert last == {"type": "message_stop"}


def test_every_event_of_a_response_stream(http: httpx.Client) -> None:
    body = {"model": BUNDLED, "input": "Hello!", "max_output_tokens": 4}
    events = events_of(http, "/v1/responses", body)
    assert all(name == data["type"] for name, data in events)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    names = [name.removeprefix("response.") for name, _ in events]
    deltas = names.count("output_text.delta")
    assert names == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * deltas,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    text = "".join(d["delta"] for n, d in events if n == "response.output_text.delta")
    response = events[-1][1]["response"]
    assert (text, response["incomplete_details"]) == ("Hell", {"reason": "max_output_tokens"})
    (item,) = response["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "incomplete")
    assert [part["text"] for part in item["content"]] == ["Hell"]


def test_why_an_answer_ended(http: httpx.Client) -> None:
    """By itself, for want of tokens, at a stop text; `n` answers each have their reason."""

    def chat(**fields: Any) -> tuple[str, str]:
        body = {"model": BUNDLED, "messages": HELLO, **fields}
        (choice,) = http.post("/v1/chat/completions", json=body).json()["choices"]
        return choice["message"]["content"], choice["finish_reason"]

    def message(**fields: Any) -> tuple[str, str, str | None]:
        body = {"model": BUNDLED, "messages": HELLO, "max_tokens": 60, **fields}
        reply = http.post("/v1/messages", json=body).json()
        text = "".join(block["text"] for block in reply["content"])
        return text, reply["stop_reason"], reply["stop_sequence"]

    whole = "Hello! How can I help you today?"
    assert chat() == (whole, "stop")
    assert chat(max_tokens=4) == ("Hell", "length")
    assert chat(stop=["How", "!"]) == ("Hello", "stop")
    assert message() == (whole, "end_turn", None)
    assert message(max_tokens=4) == ("Hell", "max_tokens", None)
    assert message(stop_sequences=[" How", "today"]) == ("Hello!", "stop_sequence", " How")
