"""Defects that comparable servers were seen to have: one test each, named after the defect.

Where something sharper than a whole service holds one, it is there:

* tool markup that leaks when its tags are split across chunks, the last characters of a text, the
  word "assistant", doubled and unclosed thinking, thinking that used up max_tokens, identical
  calls merged: ``tests/daemon/worker/engines/test_answer_corpus.py``, at every cut;
* a streaming test that any one line passes: ``test_cross_protocol_e2e.py`` looks at every chunk;
* a speed test that passes without speed: ``test_audio_e2e.py`` measures the sound;
* a fallback that only looks for a folder: ``test_failures_e2e.py`` has one that fails to load.
"""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.e2e.service import Service, eventually
from tests.e2e.test_cross_protocol_e2e import events_of
from tests.e2e.tool_models import GLIMPSE_TOOLS
from tests.e2e.vision_models import BUNDLED
from tests.models import REPO_ROOT

pytestmark = pytest.mark.e2e

Text = Callable[[str], str]
HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
SAID = "Hello! How can I help you today?"
STORY: list[Any] = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def loaded(service: Service, text_model: str) -> Iterator[str]:
    for name in (BUNDLED, text_model, GLIMPSE_TOOLS):
        service.mlxctl("load", name)
    yield text_model
    for name in (BUNDLED, text_model, GLIMPSE_TOOLS):
        service.mlxctl("unload", name)


@pytest.fixture
def say(client: openai.OpenAI, loaded: str) -> Callable[..., str]:
    """The bundled model's greedy answer to a greeting."""

    def said(**fields: Any) -> str:
        asked: dict[str, Any] = {"model": BUNDLED, "messages": HELLO, "temperature": 0, **fields}
        (choice,) = client.chat.completions.create(**asked).choices
        return choice.message.content or ""

    return said


def fixed(text: str) -> dict[str, Any]:
    """A schema that one document follows: ``{"t": text}``."""
    return {
        "type": "object",
        "properties": {"t": {"const": text}},
        "required": ["t"],
        "additionalProperties": False,
    }


def about_a_picture(picture: Text, golden: Text) -> Any:
    image = {"type": "image_url", "image_url": {"url": picture("red_square.png")}}
    prompt = {"type": "text", "text": golden("vision/describe_image.txt")}
    return [{"role": "user", "content": [image, prompt]}]


def as_chat(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"name": "fixed", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def test_stop_is_not_ignored(say: Callable[..., str]) -> None:
    assert say() == SAID
    assert say(stop=" help") == "Hello! How can I"
    assert say(stop=["never", "today?"]) == "Hello! How can I help you "


def test_penalties_are_not_ignored(http: httpx.Client, loaded: str) -> None:
    """Tokens that came before are less likely, so the story goes on in another way."""
    asked = {"model": loaded, "messages": STORY, "temperature": 0, "max_tokens": 24}

    def told(**penalty: float) -> str:
        reply = http.post("/v1/chat/completions", json={**asked, **penalty}).json()
        return str(reply["choices"][0]["message"]["content"])

    free = told()
    assert told(frequency_penalty=2) != free
    assert told(presence_penalty=2) != free
    assert told(repetition_penalty=5) != free


def test_tool_choice_is_not_ignored(client: openai.OpenAI, loaded: str) -> None:
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name in ("ping", "pong")
    ]
    asked: dict[str, Any] = {"model": GLIMPSE_TOOLS, "messages": HELLO, "max_tokens": 200}
    for name in ("ping", "pong"):
        choice: Any = {"type": "function", "function": {"name": name}}
        reply = client.chat.completions.create(
            **asked, tools=tools, tool_choice=choice, parallel_tool_calls=False
        )
        calls = reply.choices[0].message.tool_calls or []
        assert [call.function.name for call in calls if call.type == "function"] == [name]
    without = client.chat.completions.create(**asked, tools=tools, tool_choice="none")
    assert without.choices[0].message.tool_calls is None


def test_temperature_zero_is_not_turned_into_one(client: openai.OpenAI, loaded: str) -> None:
    asked: dict[str, Any] = {"model": loaded, "messages": STORY, "max_tokens": 8, "n": 4}
    cold = client.chat.completions.create(**asked, temperature=0)
    assert len({choice.message.content for choice in cold.choices}) == 1
    warm = client.chat.completions.create(**asked, temperature=1)
    assert len({choice.message.content for choice in warm.choices}) > 1


def test_temperature_is_not_swallowed_by_any_protocol_or_library(
    client: openai.OpenAI, service: Service, loaded: str, picture: Text, golden: Text
) -> None:
    """mlx_lm and mlx_vlm call it differently; so text, and a picture, over three protocols."""
    talk = about_a_picture(picture, golden)
    seen = client.chat.completions.create(
        model=BUNDLED,
        messages=talk,
        temperature=2,
        n=4,
        max_tokens=40,
    )
    assert len({choice.message.content for choice in seen.choices}) > 1
    fields: dict[str, Any] = {"model": loaded, "max_output_tokens": 8}
    responses = {
        client.responses.create(**fields, input=STORY, temperature=2).output_text for _ in range(2)
    }
    assert len(responses) > 1
    with anthropic.Anthropic(base_url=service.url, api_key="unused", max_retries=0) as sdk:
        drawn = [
            sdk.messages.create(
                model=loaded, messages=STORY, max_tokens=8, extra_body={"temperature": 1}
            )
            for _ in range(3)
        ]
    assert len({str(message.content) for message in drawn}) > 1


def test_streamed_vision_is_not_one_chunk(
    client: openai.OpenAI, loaded: str, picture: Text, golden: Text
) -> None:
    talk = about_a_picture(picture, golden)
    stream = client.chat.completions.create(
        model=BUNDLED,
        messages=talk,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert chunks[-1].usage is not None
    assert len(list(filter(None, pieces))) > 0.8 * chunks[-1].usage.completion_tokens > 4


def test_the_word_assistant_is_not_deleted(say: Callable[..., str]) -> None:
    text = "assistant: the assistant is an assistant"
    assert json.loads(say(**as_chat(fixed(text)))) == {"t": text}


def test_the_last_characters_are_not_dropped(client: openai.OpenAI, loaded: str) -> None:
    """Wherever max_tokens ends it, a text is there up to its last character: also a "<", which
    was held back because a tool call or the stop text could have begun with it."""
    whole = '{"t": "a <tool_call <STOX x <"}'
    asked: dict[str, Any] = {
        "model": GLIMPSE_TOOLS,
        "messages": HELLO,
        "stop": "<STOP",
        "extra_body": as_chat(fixed(json.loads(whole)["t"])),
    }
    texts = []
    for tokens in range(8, 22):
        stream = client.chat.completions.create(**asked, max_tokens=tokens, stream=True)
        chunks = [chunk.choices[0] for chunk in stream]
        texts.append("".join(chunk.delta.content or "" for chunk in chunks))
        assert whole.startswith(texts[-1])
    lengths = [len(text) for text in texts]
    assert lengths == sorted(set(lengths)), "each token adds its text"
    assert any(text.endswith("<") for text in texts)


def test_usage_is_not_invented_from_words(
    client: openai.OpenAI, http: httpx.Client, loaded: str
) -> None:
    reply = client.chat.completions.create(
        model=loaded, messages=STORY, temperature=0, max_tokens=9, logprobs=True
    )
    assert reply.usage is not None
    assert reply.choices[0].logprobs is not None
    assert len(reply.choices[0].logprobs.content or ()) == reply.usage.completion_tokens == 9
    body = {"model": loaded, "messages": STORY}
    counted = http.post("/v1/messages/count_tokens", json=body).json()
    assert counted["input_tokens"] == reply.usage.prompt_tokens


def test_the_generation_of_a_gone_client_does_not_run_on(
    service: Service, client: openai.OpenAI, loaded: str
) -> None:
    """Not streamed: nothing is written that could fail, and still it is noticed."""
    body = {"model": loaded, "messages": STORY, "max_tokens": 3000, "logit_bias": {"2": -100}}
    impatient = httpx.Timeout(300, read=1)
    with (
        httpx.Client(base_url=service.url, timeout=impatient) as leaving,
        pytest.raises(httpx.ReadTimeout),
    ):
        leaving.post("/v1/chat/completions", json=body)

    def idle() -> bool:
        (model,) = [m for m in service.status().models if m.name == loaded]
        return (model.state, model.running, model.leases) == ("idle", 0, 0)

    assert eventually(idle, bool)
    again = client.chat.completions.create(model=loaded, messages=HELLO, max_tokens=2)
    assert again.choices[0].message.content


LONG = fixed("mid-stream " * 250)
STREAMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {"messages": HELLO, **as_chat(LONG)}, ""),
    "responses": (
        "/v1/responses",
        {
            "input": "Hello!",
            "text": {"format": {"type": "json_schema", "name": "fixed", "schema": LONG}},
        },
        "response.failed",
    ),
    "messages": (
        "/v1/messages",
        {
            "messages": HELLO,
            "max_tokens": 3500,
            "output_config": {"format": {"type": "json_schema", "schema": LONG}},
        },
        "error",
    ),
}


@pytest.mark.parametrize("protocol", STREAMS)
def test_a_failure_in_mid_stream_is_not_silent_and_runs_nothing_again(
    service: Service, http: httpx.Client, loaded: str, protocol: str
) -> None:
    """One terminal error in the protocol's own form; nobody starts the generation once more."""
    path, body, event = STREAMS[protocol]
    service.mlxctl("load", GLIMPSE_TOOLS)
    seq = service.status().seq
    (pid,) = [m.pid for m in service.status().models if m.name == GLIMPSE_TOOLS]
    assert pid is not None
    asked = {"model": GLIMPSE_TOOLS, "stream": True, **body}
    with http.stream("POST", path, json=asked) as reply:
        assert reply.status_code == 200
        lines = []
        for line in reply.iter_lines():
            lines.append(line)
            if len(lines) == 40:
                os.kill(pid, signal.SIGKILL)
    assert len(lines) >= 40, "it was under way"
    ended = [line for line in lines if line]
    last = json.loads(ended[-1].removeprefix("data: "))
    assert "worker" in json.dumps(last)
    assert sum('"error":{' in line.replace(" ", "") for line in ended) == 1
    if event:
        assert ended[-2] == f"event: {event}"
    assert "data: [DONE]" not in lines
    eventually(
        lambda: service.events(seq), lambda found: any(e["type"] == "worker.exited" for e in found)
    )
    # What was loaded on purpose may come back by itself; the generation may not.
    service.mlxctl("load", GLIMPSE_TOOLS)
    (model,) = [m for m in service.status().models if m.name == GLIMPSE_TOOLS]
    assert (model.running, model.leases) == (0, 0)


def test_a_request_that_is_refused_runs_nothing(
    service: Service, http: httpx.Client, loaded: str
) -> None:
    """An error on the way is an error, and no reason to generate after all, or again."""
    counted = "mlxd_completion_tokens_total"

    def generated() -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{counted}{{"))

    before = generated()
    for fields in ({"logit_bias": {"99999999": 1}}, {"max_tokens": 10_000_000}, {"nonsense": 1}):
        body = {"model": loaded, "messages": HELLO, **fields}
        assert http.post("/v1/chat/completions", json=body).status_code == 400
    assert http.post("/v1/no/such/path", json={"model": loaded}).status_code == 404
    assert generated() == before
    events_of(http, "/v1/chat/completions", {"model": BUNDLED, "messages": HELLO})
    assert generated() > before, "the counter moves at all"


def test_the_suite_is_not_one_that_nothing_runs() -> None:
    """CI runs `make test`, the end-to-end tests are in it, and each file has the marker."""
    workflows = "".join(p.read_text() for p in (REPO_ROOT / ".github" / "workflows").glob("*.yml"))
    assert "run: make test\n" in workflows
    rules = (REPO_ROOT / "Makefile").read_text()
    quick = rules.partition("\ntest: ")[2].partition("\n\n")[0]
    assert re.search(r'-m "e2e and [^"]*" tests/e2e$', quick, re.MULTILINE)
    for path in Path(__file__).parent.glob("test_*.py"):
        assert "pytest.mark.e2e" in path.read_text("utf-8"), path.name
