"""OpenAI request bodies as Structs: every field that is honoured, and no other.

Field names and meanings are OpenAI's (https://platform.openai.com/docs/api-reference/chat),
``null`` means absent. Extensions of ours: ``top_k``, ``min_p``, ``repetition_penalty``,
``chat_template_kwargs``, ``priority``, ``keep_alive``, ``ttl`` and an assistant's
``reasoning_content``. What each field means is in a page of docs that is made from these.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire.bounds import (
    INT_MAX,
    MinP,
    Penalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TokenCount,
    TopK,
    TopP,
)
from http_bridge.plan import Priority

NonEmpty = Annotated[str, Meta(min_length=1)]
TokenId = Annotated[int, Meta(ge=0, le=INT_MAX)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
ChoiceCount = Annotated[int, Meta(ge=1, le=16)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Stop = NonEmpty | Annotated[tuple[NonEmpty, ...], Meta(max_length=16)]
Metadata = dict[
    Annotated[str, Meta(max_length=64)],
    Annotated[str, Meta(max_length=512)],
]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every shape: a field that would have no effect is a mistake."""


# --- messages ---------------------------------------------------------------


class TextPart(Strict, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ImageUrl(Strict, frozen=True, kw_only=True):
    """A picture as a ``data:`` URL; the model's own resolution is what "auto" means."""

    url: NonEmpty
    detail: str | None = None


class ImagePart(Strict, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


TextContent = str | tuple[TextPart, ...]
UserContent = str | tuple[TextPart | ImagePart, ...]


class SystemMessage(Strict, frozen=True, kw_only=True, tag_field="role", tag="system"):
    content: TextContent
    name: Name | None = None


class DeveloperMessage(Strict, frozen=True, kw_only=True, tag_field="role", tag="developer"):
    """The newer word for a system message; the model sees it as one."""

    content: TextContent
    name: Name | None = None


class UserMessage(Strict, frozen=True, kw_only=True, tag_field="role", tag="user"):
    content: UserContent
    name: Name | None = None


class CalledFunction(Strict, frozen=True, kw_only=True):
    name: Name
    arguments: str


class CalledTool(Strict, frozen=True, kw_only=True):
    id: Name
    function: CalledFunction
    type: Literal["function"] = "function"


class AssistantMessage(Strict, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """What the model said before; fields that SDKs echo as null or empty may be so."""

    content: TextContent | None = None
    name: Name | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[CalledTool, ...] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[tuple[Any, ...], Meta(max_length=0)] | None = None


class ToolMessage(Strict, frozen=True, kw_only=True, tag_field="role", tag="tool"):
    content: TextContent
    tool_call_id: Name
    name: Name | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage

# --- requests -----------------------------------------------------------------


class Function(Strict, frozen=True, kw_only=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict, frozen=True, kw_only=True):
    type: Literal["function"]
    function: Function


class StreamOptions(Strict, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChosenFunction(Strict, frozen=True, kw_only=True):
    name: FunctionName


class ChosenTool(Strict, frozen=True, kw_only=True):
    type: Literal["function"]
    function: ChosenFunction


class TextFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Any text: what models write anyway."""


class JsonObjectFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="json_object"):
    """One JSON object of any kind."""


class NamedSchema(Strict, frozen=True, kw_only=True):
    """A JSON Schema; it is always enforced, ``name`` and ``description`` are labels."""

    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    json_schema: NamedSchema


class RegexFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="regex"):
    """Extension: the whole text matches ``regex``."""

    regex: Annotated[str, Meta(min_length=1, max_length=16384)]


class GrammarFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="grammar"):
    """Extension: the text follows ``grammar``, in llguidance's form of Lark."""

    grammar: Annotated[str, Meta(min_length=1, max_length=65536)]


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | GrammarFormat


class TextRequest(Strict, frozen=True, kw_only=True):
    """What chat and plain completions have in common."""

    model: NonEmpty
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: dict[TokenId, Bias] | None = None
    n: ChoiceCount | None = None
    user: str | None = None
    priority: Priority | None = None
    keep_alive: str | float | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class ChatRequest(TextRequest, frozen=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    metadata: Annotated[Metadata, Meta(max_length=16)] | None = None
    store: bool | None = None
    modalities: tuple[Literal["text"]] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(TextRequest, frozen=True, kw_only=True):
    """``POST /v1/completions``: a prompt as it is, with no chat template."""

    prompt: str | Annotated[tuple[str | TokenId, ...], Meta(min_length=1)]
    echo: bool | None = None
    best_of: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    suffix: str | None = None


chat_decoder: Final = msgspec.json.Decoder(ChatRequest)
completion_decoder: Final = msgspec.json.Decoder(CompletionRequest)
