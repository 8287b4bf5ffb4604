"""What a model cannot do is refused before anything is loaded, whatever the endpoint."""

import base64
from typing import Any

import pytest

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from tests.fakes.daemon import FakeModel, answers, says
from tests.http_bridge.conftest import OpenSetup, Setup

pytestmark = pytest.mark.anyio

PNG = base64.b64encode(b"\x89PNG").decode()
URL = f"data:image/png;base64,{PNG}"
TURN = {"role": "user", "content": "x"}
FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SCHEMA = {"type": "object"}

CHAT: dict[str, Any] = {"messages": [TURN]}
RESPONSES: dict[str, Any] = {"input": "x"}
MESSAGES: dict[str, Any] = {"messages": [TURN], "max_tokens": 9}
COUNT: dict[str, Any] = {"messages": [TURN]}

KINDS: dict[str, tuple[str, ...]] = {
    "base": ("text",),
    "text": ("text", "chat", "count_tokens"),
    "vision": ("text", "vision", "chat", "count_tokens"),
    "embeddings": ("embeddings",),
    "speech": ("speech",),
    "transcription": ("transcription",),
}
"""What models can do that can do no more than their kind."""

ENDPOINTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "/v1/chat/completions": (CHAT, {"text", "vision"}),
    "/v1/responses": (RESPONSES, {"text", "vision"}),
    "/v1/messages": (MESSAGES, {"text", "vision"}),
    "/v1/messages/count_tokens": (COUNT, {"text", "vision"}),
    "/v1/completions": ({"prompt": "x"}, {"base", "text", "vision"}),
    "/v1/embeddings": ({"input": "x"}, {"embeddings"}),
    "/v1/audio/speech": ({"input": "x", "voice": "v"}, {"speech"}),
    "/v1/audio/transcriptions": ({}, {"transcription"}),
}

PICTURE_CHAT = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]
PICTURE_ITEM = [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]
SOURCE = {"type": "base64", "media_type": "image/png", "data": PNG}
PICTURE_TURN = [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]
CUSTOM = {"name": "f", "input_schema": SCHEMA}
FORMAT = {"type": "json_schema", "schema": SCHEMA}

LACKING: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"messages": PICTURE_CHAT}, "messages[0].content[0].image_url.url"),
    ("/v1/chat/completions", {**CHAT, "tools": TOOLS}, "tools"),
    ("/v1/chat/completions", {**CHAT, "logprobs": True}, "logprobs"),
    ("/v1/chat/completions", {**CHAT, "reasoning_effort": "high"}, "reasoning_effort"),
    (
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "json_object"}},
        "response_format",
    ),
    ("/v1/responses", {"input": PICTURE_ITEM}, "input[0].content[0].image_url"),
    ("/v1/responses", {**RESPONSES, "tools": [{"type": "function", **FUNCTION}]}, "tools"),
    ("/v1/responses", {**RESPONSES, "include": ["message.output_text.logprobs"]}, "include"),
    ("/v1/responses", {**RESPONSES, "reasoning": {"effort": "low"}}, "reasoning.effort"),
    ("/v1/responses", {**RESPONSES, "text": {"format": {**FORMAT, "name": "n"}}}, "text.format"),
    ("/v1/messages", {**MESSAGES, "messages": PICTURE_TURN}, "messages[0].content[0].source.data"),
    ("/v1/messages", {**MESSAGES, "tools": [CUSTOM]}, "tools"),
    ("/v1/messages", {**MESSAGES, "thinking": {"type": "adaptive"}}, "thinking"),
    ("/v1/messages", {**MESSAGES, "output_config": {"effort": "high"}}, "output_config.effort"),
    ("/v1/messages", {**MESSAGES, "output_config": {"format": FORMAT}}, "output_config.format"),
    ("/v1/messages/count_tokens", {"messages": PICTURE_TURN}, "messages[0].content[0].source.data"),
    ("/v1/messages/count_tokens", {**COUNT, "tools": [CUSTOM]}, "tools"),
    ("/v1/completions", {"prompt": "x", "logprobs": 1}, "logprobs"),
]


async def ask(setup: Setup, path: str, fields: dict[str, Any]) -> tuple[int, str]:
    """The status, and the error's parameter or message."""
    if path.endswith("transcriptions"):
        form = {"model": "m", **{name: str(value) for name, value in fields.items()}}
        response = await setup.http.post(path, data=form, files={"file": b"x"})
    else:
        response = await setup.http.post(path, json={"model": "m", **fields})
    if response.status_code == 200:
        return 200, ""
    error = response.json()["error"]
    return response.status_code, error.get("param") or error.get("message", "")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (path, kind)
        for path, (_, fitting) in ENDPOINTS.items()
        for kind in KINDS
        if kind not in fitting
    ],
)
async def test_the_wrong_kind_is_refused_before_a_lease(
    open_setup: OpenSetup, path: str, kind: str
) -> None:
    fields, _ = ENDPOINTS[path]
    async with open_setup(FakeModel("m", says("y"), capabilities=KINDS[kind])) as setup:
        status, said = await ask(setup, path, fields)
        assert (status, "model" in said or "cannot do" in said) == (400, True)
        assert setup.fake.ledger.entries == ["connect", "acquire m"]


@pytest.mark.parametrize(("path", "fields", "param"), LACKING)
async def test_a_field_that_the_model_cannot_honour_is_refused_before_a_lease(
    open_setup: OpenSetup, path: str, fields: dict[str, Any], param: str
) -> None:
    model = FakeModel("m", says("y"), capabilities=KINDS["text"])
    async with open_setup(model) as setup:
        status, said = await ask(setup, path, fields)
        assert status == 400
        assert said == param or said.startswith(f"{param}: m cannot do")
        assert setup.fake.ledger.entries == ["connect", "acquire m"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [(path, kind) for path, (_, fitting) in ENDPOINTS.items() for kind in sorted(fitting)],
)
async def test_the_right_kind_gets_its_lease(open_setup: OpenSetup, path: str, kind: str) -> None:
    done = d.Done(finish_reason="stop", usage=d.Usage(prompt_tokens=1, completion_tokens=1))
    frames = (d.Accepted(prompt_tokens=1), done)
    calls = answers(d.TokenCount(prompt_tokens=1)) if "count" in path else answers(*frames)
    model = FakeModel("m", says("y"), capabilities=KINDS[kind], calls=calls)
    async with open_setup(model) as setup:
        status, _ = await ask(setup, path, ENDPOINTS[path][0])
        assert status == 200
        await setup.fake.ledger.wait_for("release lease-1")


@pytest.mark.parametrize(
    ("path", "kind"), [(path, min(fit)) for path, (_, fit) in ENDPOINTS.items()]
)
@pytest.mark.parametrize(
    ("extensions", "ttl_s", "priority"),
    [
        ({"keep_alive": "2m", "priority": "high"}, 120, 5),
        ({"ttl": 7, "priority": -3}, 7, -3),
        ({}, None, 0),
    ],
)
async def test_extensions_reach_the_pool(
    open_setup: OpenSetup,
    path: str,
    kind: str,
    extensions: dict[str, Any],
    ttl_s: float | None,
    priority: int,
) -> None:
    refusing = Fault(code=Code.BUSY, message="not now")
    model = FakeModel("m", says("y"), capabilities=KINDS[kind], fault=refusing)
    async with open_setup(model) as setup:
        status, said = await ask(setup, path, {**ENDPOINTS[path][0], **extensions})
    assert (status, said) == (503, "not now")
    assert [(one.ttl_s, one.priority) for one in setup.fake.acquired] == [(ttl_s, priority)]
