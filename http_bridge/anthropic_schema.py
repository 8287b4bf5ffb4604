"""Anthropic request bodies as Structs: every field that is honoured, and no other.

Field names and meanings are Anthropic's (https://docs.anthropic.com/en/api/messages).
Extensions of ours: ``priority``, ``keep_alive`` and ``ttl``. What each field means is in a page
of docs that is made from these.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire.bounds import TokenCount, TopK, TopP
from http_bridge.openai_schema import Name, NonEmpty, Strict
from http_bridge.plan import Priority

ToolName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class CacheControl(Strict, frozen=True, kw_only=True):
    """A hint that changes no answer: prefixes are reused here without being asked."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


# --- messages ---------------------------------------------------------------


class TextBlock(Strict, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str
    cache_control: CacheControl | None = None
    citations: Annotated[tuple[Any, ...], Meta(max_length=0)] | None = None


class Base64Source(Strict, frozen=True, kw_only=True, tag_field="type", tag="base64"):
    media_type: str
    data: str


class UrlSource(Strict, frozen=True, kw_only=True, tag_field="type", tag="url"):
    """Known, so that the refusal can say what to do; nothing is ever fetched."""

    url: str


class ImageBlock(Strict, frozen=True, kw_only=True, tag_field="type", tag="image"):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class ToolResultBlock(Strict, frozen=True, kw_only=True, tag_field="type", tag="tool_result"):
    """What a tool said; an error reaches the model with "Error: " before its text.

    Pictures follow the results in a message of the user: few chat templates have any elsewhere.
    """

    tool_use_id: Name
    content: str | tuple[TextBlock | ImageBlock, ...] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None


class ToolUseBlock(Strict, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    id: Name
    name: Name
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ThinkingBlock(Strict, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    """What the model thought before; signatures are neither made nor checked here."""

    thinking: str
    signature: str = ""


class UserTurn(Strict, frozen=True, kw_only=True, tag_field="role", tag="user"):
    content: str | tuple[TextBlock | ImageBlock | ToolResultBlock, ...]


class AssistantTurn(Strict, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    content: str | tuple[TextBlock | ThinkingBlock | ToolUseBlock, ...]


class SystemTurn(Strict, frozen=True, kw_only=True, tag_field="role", tag="system"):
    content: str | tuple[TextBlock, ...]


Turn = UserTurn | AssistantTurn | SystemTurn

# --- requests -----------------------------------------------------------------


class CustomTool(Strict, frozen=True, kw_only=True):
    """A tool of the caller's; tools that run on Anthropic's servers are refused."""

    name: ToolName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    # A wish of clients: arguments as they are written. Here they come once they are whole.
    eager_input_streaming: bool | None = None


class AutoChoice(Strict, frozen=True, kw_only=True, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool = False


class AnyChoice(Strict, frozen=True, kw_only=True, tag_field="type", tag="any"):
    disable_parallel_tool_use: bool = False


class ToolChoice(Strict, frozen=True, kw_only=True, tag_field="type", tag="tool"):
    name: ToolName
    disable_parallel_tool_use: bool = False


class NoChoice(Strict, frozen=True, kw_only=True, tag_field="type", tag="none"):
    """The model does not see the tools."""


class ThinkingOn(Strict, frozen=True, kw_only=True, tag_field="type", tag="enabled"):
    budget_tokens: TokenCount


class ThinkingAdaptive(Strict, frozen=True, kw_only=True, tag_field="type", tag="adaptive"):
    """The model thinks for as long as it likes."""


class ThinkingOff(Strict, frozen=True, kw_only=True, tag_field="type", tag="disabled"):
    """Sets ``enable_thinking`` to false for the chat template."""


class JsonFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    schema: dict[str, Any]


class OutputConfig(Strict, frozen=True, kw_only=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class RequestMetadata(Strict, frozen=True, kw_only=True):
    user_id: str | None = None


class Conversation(Strict, frozen=True, kw_only=True):
    """What messages and the counting of their tokens have in common."""

    model: NonEmpty
    messages: Annotated[tuple[Turn, ...], Meta(min_length=1)]
    system: str | tuple[TextBlock, ...] | None = None
    tools: tuple[CustomTool, ...] | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None = None
    thinking: ThinkingOn | ThinkingAdaptive | ThinkingOff | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    priority: Priority | None = None
    keep_alive: str | float | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class CountRequest(Conversation, frozen=True, kw_only=True):
    """``POST /v1/messages/count_tokens``."""


class MessagesRequest(Conversation, frozen=True, kw_only=True):
    """``POST /v1/messages``."""

    max_tokens: TokenCount
    stream: bool | None = None
    stop_sequences: Annotated[tuple[NonEmpty, ...], Meta(max_length=16)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    metadata: RequestMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


messages_decoder: Final = msgspec.json.Decoder(MessagesRequest)
count_decoder: Final = msgspec.json.Decoder(CountRequest)
