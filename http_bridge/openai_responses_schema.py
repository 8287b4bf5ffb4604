"""``/v1/responses`` bodies as Structs: every field that is honoured, and no other.

Field names and meanings are OpenAI's (https://platform.openai.com/docs/api-reference/responses).
Items of ``input`` are decoded one by one, for a message may leave its ``type`` out. What each
field means is in a page of docs that is made from these.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire.bounds import (
    MinP,
    RepetitionPenalty,
    Seed,
    Temperature,
    TokenCount,
    TopK,
    TopP,
)
from http_bridge.openai_schema import (
    Effort,
    FunctionName,
    GrammarFormat,
    JsonObjectFormat,
    Metadata,
    Name,
    NonEmpty,
    RegexFormat,
    Strict,
    TextFormat,
)
from http_bridge.plan import Priority

Status = Literal["in_progress", "completed", "incomplete"]

# --- items of the input ---------------------------------------------------------


class InputText(Strict, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    text: str


class InputImage(Strict, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    """A picture as a ``data:`` URL; the model's own resolution is what "auto" means."""

    image_url: NonEmpty
    detail: str | None = None


class OutputText(Strict, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """What the model said before; annotations and log probabilities are only echoed by SDKs."""

    text: str
    annotations: tuple[Any, ...] | None = None
    logprobs: tuple[Any, ...] | None = None


class MessageItem(Strict, frozen=True, kw_only=True, tag_field="type", tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | tuple[InputText | InputImage | OutputText, ...]
    id: str | None = None
    status: Status | None = None


class FunctionCallItem(Strict, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    call_id: Name
    name: Name
    arguments: str
    id: str | None = None
    status: Status | None = None


class FunctionOutputItem(
    Strict, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"
):
    call_id: Name
    output: str | tuple[InputText, ...]
    id: str | None = None
    status: Status | None = None


class ReasoningText(Strict, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str


class ReasoningItem(Strict, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought before, as its answer gave it."""

    id: str | None = None
    summary: Annotated[tuple[Any, ...], Meta(max_length=0)] = ()
    content: tuple[ReasoningText, ...] | None = None
    encrypted_content: None = None
    status: Status | None = None


Item = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem

# --- requests -----------------------------------------------------------------


class FunctionTool(Strict, frozen=True, kw_only=True):
    """A function; without ``strict: true`` its arguments are the model's own affair."""

    type: Literal["function"]
    name: FunctionName
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class NamedTool(Strict, frozen=True, kw_only=True):
    type: Literal["function"]
    name: FunctionName


class SchemaFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    """A JSON Schema; it is always enforced, ``name`` and ``description`` are labels."""

    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextConfig(Strict, frozen=True, kw_only=True):
    format: TextFormat | JsonObjectFormat | SchemaFormat | RegexFormat | GrammarFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Strict, frozen=True, kw_only=True):
    effort: Effort | None = None
    summary: None = None


class ResponsesRequest(Strict, frozen=True, kw_only=True):
    """``POST /v1/responses``."""

    model: NonEmpty
    input: str | Annotated[tuple[dict[str, Any], ...], Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    tools: tuple[FunctionTool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    include: tuple[Literal["message.output_text.logprobs"], ...] | None = None
    metadata: Annotated[Metadata, Meta(max_length=16)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    truncation: Literal["disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    seed: Seed | None = None
    repetition_penalty: RepetitionPenalty | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    priority: Priority | None = None
    keep_alive: str | float | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


responses_decoder: Final = msgspec.json.Decoder(ResponsesRequest)
