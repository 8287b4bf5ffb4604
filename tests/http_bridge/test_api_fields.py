"""The page of fields is current, whole, and knows every field that the official SDKs can send."""

import json
from typing import Any, get_args, get_type_hints

import anthropic.types as messages
import msgspec
import pytest
from anthropic.types import (
    message_count_tokens_params,
    message_create_params,
    tool_result_block_param,
)
from openai.types import chat, completion_create_params, embedding_create_params, responses
from openai.types.audio import speech_create_params, transcription_create_params
from openai.types.chat import chat_completion_assistant_message_param as assistant_param
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import (
    response_create_params,
    response_function_call_output_item_param,
    response_input_content_param,
    response_output_message_param,
)

from http_bridge import anthropic_schema, openai_responses_schema, openai_schema
from http_bridge.routes import ROUTES
from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.api_meanings import COMMON, KINDS_REFUSED, MEANINGS, NESTED_REFUSED, REFUSED
from tests.http_bridge.conftest import OpenSetup
from tests.http_bridge.generate_api_fields_doc import TARGET, fields_of, render

BODIES = {route.body.__name__: route.body for route in ROUTES if route.body is not None}
PATHS = {route.body.__name__: route.path for route in ROUTES if route.body is not None}

SDK: dict[str, tuple[Any, ...]] = {
    "ChatRequest": (
        chat_create_params.CompletionCreateParamsBase,
        chat_create_params.CompletionCreateParamsStreaming,
    ),
    "CompletionRequest": (
        completion_create_params.CompletionCreateParamsBase,
        completion_create_params.CompletionCreateParamsStreaming,
    ),
    "ResponsesRequest": (
        response_create_params.ResponseCreateParamsBase,
        response_create_params.ResponseCreateParamsStreaming,
    ),
    "MessagesRequest": (
        message_create_params.MessageCreateParamsBase,
        message_create_params.MessageCreateParamsStreaming,
    ),
    "CountRequest": (message_count_tokens_params.MessageCountTokensParams,),
    "EmbeddingsRequest": (embedding_create_params.EmbeddingCreateParams,),
    "SpeechRequest": (speech_create_params.SpeechCreateParams,),
    "TranscriptionForm": (
        transcription_create_params.TranscriptionCreateParamsBase,
        transcription_create_params.TranscriptionCreateParamsStreaming,
    ),
}

INSIDE: list[tuple[Any, type[msgspec.Struct]]] = [
    (chat.ChatCompletionSystemMessageParam, openai_schema.SystemMessage),
    (chat.ChatCompletionDeveloperMessageParam, openai_schema.DeveloperMessage),
    (chat.ChatCompletionUserMessageParam, openai_schema.UserMessage),
    (chat.ChatCompletionAssistantMessageParam, openai_schema.AssistantMessage),
    (chat.ChatCompletionToolMessageParam, openai_schema.ToolMessage),
    (chat.ChatCompletionContentPartTextParam, openai_schema.TextPart),
    (chat.ChatCompletionContentPartImageParam, openai_schema.ImagePart),
    (chat.ChatCompletionStreamOptionsParam, openai_schema.StreamOptions),
    (chat.ChatCompletionFunctionToolParam, openai_schema.Tool),
    (responses.EasyInputMessageParam, openai_responses_schema.MessageItem),
    (responses.ResponseOutputMessageParam, openai_responses_schema.MessageItem),
    (responses.ResponseInputTextParam, openai_responses_schema.InputText),
    (responses.ResponseInputImageParam, openai_responses_schema.InputImage),
    (responses.ResponseOutputTextParam, openai_responses_schema.OutputText),
    (responses.ResponseFunctionToolCallParam, openai_responses_schema.FunctionCallItem),
    (responses.ResponseReasoningItemParam, openai_responses_schema.ReasoningItem),
    (responses.FunctionToolParam, openai_responses_schema.FunctionTool),
    (responses.ResponseTextConfigParam, openai_responses_schema.TextConfig),
    (responses.ResponseFormatTextJSONSchemaConfigParam, openai_responses_schema.SchemaFormat),
    (messages.TextBlockParam, anthropic_schema.TextBlock),
    (messages.ImageBlockParam, anthropic_schema.ImageBlock),
    (messages.ToolUseBlockParam, anthropic_schema.ToolUseBlock),
    (messages.ToolResultBlockParam, anthropic_schema.ToolResultBlock),
    (messages.ThinkingBlockParam, anthropic_schema.ThinkingBlock),
    (messages.ToolParam, anthropic_schema.CustomTool),
    (messages.ToolChoiceToolParam, anthropic_schema.ToolChoice),
    (messages.OutputConfigParam, anthropic_schema.OutputConfig),
    (messages.ThinkingConfigEnabledParam, anthropic_schema.ThinkingOn),
    (messages.ThinkingConfigAdaptiveParam, anthropic_schema.ThinkingAdaptive),
    (messages.CacheControlEphemeralParam, anthropic_schema.CacheControl),
    (messages.MetadataParam, anthropic_schema.RequestMetadata),
]


@pytest.mark.parametrize(("params", "shape"), INSIDE)
def test_what_the_sdks_can_send_inside_of_fields_is_honoured_or_refused(
    params: Any, shape: type[msgspec.Struct]
) -> None:
    config = shape.__struct_config__
    known = fields_of(shape) | ({config.tag_field} if config.tag_field else set())
    refused = NESTED_REFUSED.get(shape.__name__, {}).keys()
    assert config.forbid_unknown_fields
    assert known & refused == set()
    unknown = set(params.__annotations__) - known
    assert unknown <= refused, "honour it, or say in api_meanings.py why it is refused"


KINDS: list[tuple[str, Any, set[str]]] = [
    (
        "chat: a part",
        chat.ChatCompletionContentPartParam | assistant_param.ContentArrayOfContentPart,
        {"text", "image_url"},
    ),
    (
        "responses: a part",
        response_input_content_param.ResponseInputContentParam
        | response_output_message_param.Content,
        {"input_text", "input_image", "output_text"},
    ),
    (
        "responses: a part of `function_call_output`",
        response_function_call_output_item_param.ResponseFunctionCallOutputItemParam,
        {"input_text"},
    ),
    (
        "messages: a block",
        messages.ContentBlockParam,
        {"text", "image", "thinking", "tool_use", "tool_result"},
    ),
    (
        "messages: a block of `tool_result`",
        tool_result_block_param.Content,
        {"text", "image"},
    ),
]


@pytest.mark.parametrize(("place", "union", "honoured"), KINDS)
def test_every_kind_of_part_is_honoured_or_refused(
    place: str, union: Any, honoured: set[str]
) -> None:
    sent = {kind for part in get_args(union) for kind in get_args(get_type_hints(part)["type"])}
    assert sent - honoured == KINDS_REFUSED[place].keys()


@pytest.mark.anyio
async def test_kinds_of_parts_are_refused_by_name(open_setup: OpenSetup) -> None:
    def body(place: str, kind: str) -> tuple[str, dict[str, Any]]:
        part: list[Any] = [{"type": kind}]
        said = [{"role": "user", "content": part}]
        protocol, _, inside = place.partition(": ")
        match inside.rpartition(" of ")[2], protocol:
            case "`tool_result`", _:
                result = {"type": "tool_result", "tool_use_id": "t", "content": part}
                return "MessagesRequest", {"messages": [{"role": "user", "content": [result]}]}
            case "`function_call_output`", _:
                item = {"type": "function_call_output", "call_id": "c", "output": part}
                return "ResponsesRequest", {"input": [item]}
            case _, "responses":
                return "ResponsesRequest", {"input": said}
            case _, "messages":
                return "MessagesRequest", {"messages": said}
            case _:
                return "ChatRequest", {"messages": said}

    async with open_setup(FakeModel("m", says())) as setup:
        for place, kinds in KINDS_REFUSED.items():
            for kind in kinds:
                name, fields = body(place, kind)
                more = {"max_tokens": 1} if name == "MessagesRequest" else {}
                response = await setup.http.post(PATHS[name], json={"model": "m", **fields, **more})
                assert response.status_code == 400, (place, kind)
                assert f".type: invalid value '{kind}'" in response.text.lower(), response.text


def test_no_refusal_inside_of_fields_is_left_over() -> None:
    sent: dict[str, set[str]] = {}
    for params, shape in INSIDE:
        sent.setdefault(shape.__name__, set()).update(params.__annotations__)
    for name, refused in NESTED_REFUSED.items():
        assert refused.keys() <= sent[name]


def test_the_page_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), (
        "run: python -m tests.http_bridge.generate_api_fields_doc"
    )


@pytest.mark.parametrize("name", BODIES)
def test_every_field_of_the_sdks_is_honoured_or_refused(name: str) -> None:
    """Fields that a newer SDK has beside these are refused, too: as unknown."""
    known = fields_of(BODIES[name]) | REFUSED[name].keys()
    sdk = {field for params in SDK[name] for field in params.__annotations__}
    assert sdk - known == set()
    assert sdk >= {"model"}


@pytest.mark.parametrize("name", BODIES)
def test_no_field_is_both_and_no_meaning_is_left_over(name: str) -> None:
    fields = fields_of(BODIES[name])
    assert fields & REFUSED[name].keys() == set()
    shared = MEANINGS["MessagesRequest"] if name == "CountRequest" else {}
    assert MEANINGS[name].keys() - shared.keys() <= fields
    assert fields <= MEANINGS[name].keys() | COMMON.keys()


def test_every_common_meaning_has_a_field() -> None:
    assert COMMON.keys() <= {field for body in BODIES.values() for field in fields_of(body)}


@pytest.mark.anyio
async def test_what_is_refused_is_refused_by_name(open_setup: OpenSetup) -> None:
    required: dict[str, dict[str, Any]] = {
        "ChatRequest": {"messages": [{"role": "user", "content": "x"}]},
        "ResponsesRequest": {"input": "x"},
        "MessagesRequest": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
        "CountRequest": {"messages": [{"role": "user", "content": "x"}]},
    }
    async with open_setup(FakeModel("m", says())) as setup:
        for name, fields in required.items():
            for field in REFUSED[name]:
                body = {"model": "m", **fields, field: "x"}
                response = await setup.http.post(PATHS[name], json=body)
                assert response.status_code == 400, (name, field)
                assert f"{field}: unknown" in json.dumps(response.json())
        for field in REFUSED["TranscriptionForm"]:
            response = await setup.http.post(
                PATHS["TranscriptionForm"],
                data={"model": "m", field: "x"},
                files={"file": b"x"},
            )
            assert response.json()["error"]["param"] == field
