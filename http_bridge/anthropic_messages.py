"""``/v1/messages`` and ``/v1/messages/count_tokens``: pure translation of bodies."""

from collections.abc import Iterator
from typing import Any, Final, assert_never

import msgspec

from daemon.wire import data as d
from daemon.wire import forms
from http_bridge.anthropic_schema import (
    AnyChoice,
    AssistantTurn,
    AutoChoice,
    Conversation,
    ImageBlock,
    MessagesRequest,
    NoChoice,
    SystemTurn,
    TextBlock,
    ThinkingAdaptive,
    ThinkingBlock,
    ThinkingOff,
    ThinkingOn,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
    UserTurn,
    count_decoder,
    messages_decoder,
)
from http_bridge.decode import check_portable, decode_body
from http_bridge.errors import refuse
from http_bridge.exchange import Call
from http_bridge.naming import Names, Need, Places
from http_bridge.openai_chat import needs_of
from http_bridge.openai_common import priority_of, thinking_of, ttl_s_of
from http_bridge.pictures import check_mime, read_base64
from http_bridge.plan import Plan
from http_bridge.structured import (
    STRUCTURED,
    Choice,
    Tools,
    choose_tools,
    schema_constraint,
    shown_tool,
)

_NAMES: Final = {
    "stop": "stop_sequences",
    "template_kwargs": "thinking",
    "constraint": "output_config.format",
    "constraint.schema": "output_config.format.schema",
    "call_one_of": "tool_choice",
    "strict_tools": "tools",
    "tools[].function.parameters": "tools[].input_schema",
    "tool_calls_max": "tool_choice.disable_parallel_tool_use",
    "reasoning_tokens_max": "thinking.budget_tokens",
}


def read_messages(body: bytes, request_id: str) -> Plan:
    """The plan of a request body.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(messages_decoder, body)
    messages, tools = _messages(request), _tools(request)
    variables, thinking = _thinking(request)
    priority = priority_of(request.priority)
    constraint, formed = _constraint(request)
    return Plan(
        model=request.model,
        needs=(*needs_of(messages, tools.shown), *tools.needs, *formed, *thinking),
        generate=d.Generate(
            lease="",
            request=request_id,
            messages=messages,
            template_kwargs=variables,
            tools=tools.shown,
            sampling=d.Sampling(
                temperature=request.temperature, top_p=request.top_p, top_k=request.top_k
            ),
            max_tokens=request.max_tokens,
            stop=request.stop_sequences or (),
            constraint=constraint,
            call_one_of=tools.call_one_of,
            tool_calls_max=tools.calls_max,
            strict_tools=tools.strict,
            reasoning_tokens_max=_budget(request),
            priority=priority,
        ),
        names=_names(request),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority,
    )


def read_count(body: bytes, request_id: str) -> Call:
    """The call that counts a conversation's tokens.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(count_decoder, body)
    messages, tools = _messages(request), _tools(request)
    variables, _ = _thinking(request)
    return Call(
        model=request.model,
        needs=(*needs_of(messages, tools.shown), Need(capability="count_tokens")),
        names=_names(request),
        messages=messages,
        make=lambda granted: d.CountTokens(
            lease=granted.lease,
            request=request_id,
            messages=messages,
            template_kwargs=variables,
            tools=tools.shown,
        ),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority_of(request.priority),
    )


def _names(request: Conversation) -> Names:
    return Names(fields=_NAMES, places=lambda: _places(request))


def _places(request: Conversation) -> Places:
    pictures: list[str] = []
    calls: list[str] = []
    for index, turn in enumerate(request.messages):
        blocks = () if isinstance(turn.content, str) else turn.content
        for at, block in enumerate(blocks):
            path = f"messages[{index}].content[{at}]"
            if isinstance(block, ImageBlock):
                pictures.append(f"{path}.source.data")
            elif isinstance(block, ToolResultBlock):
                found = _pictures_of(block, path)
                pictures += [f"{inner}.source.data" for inner, _ in found]
            elif isinstance(block, ToolUseBlock):
                calls.append(f"{path}.input")
    return Places(pictures=pictures, calls=calls)


# --- what is asked of the model ---------------------------------------------------


def _tools(request: Conversation) -> Tools:
    tools = request.tools or ()
    strict: dict[str, str] = {}
    for index, tool in enumerate(tools):
        check_portable(tool.input_schema, f"tools[{index}].input_schema")
        if tool.strict:
            strict[tool.name] = f"tools[{index}].strict"
    shown = (shown_tool(tool.name, tool.description, tool.input_schema) for tool in tools)
    return choose_tools(tuple(shown), strict, _choice(request))


def _choice(request: Conversation) -> Choice:
    choice = request.tool_choice
    if choice is None or isinstance(choice, NoChoice):
        return Choice(mode="auto" if choice is None else "none")
    field = "tool_choice.disable_parallel_tool_use"
    single = field if choice.disable_parallel_tool_use else None
    match choice:
        case AutoChoice():
            return Choice(single=single)
        case AnyChoice():
            return Choice(mode="required", single=single)
        case ToolChoice():
            return Choice(mode="named", name=choice.name, single=single)
        case _:
            assert_never(choice)


def _constraint(request: Conversation) -> tuple[forms.Constraint | None, tuple[Need, ...]]:
    config = request.output_config
    if config is None or config.format is None:
        return None, ()
    field = "output_config.format"
    constraint = schema_constraint(config.format.schema, f"{field}.schema")
    return constraint, (Need(capability=STRUCTURED, field=field),)


def _thinking(request: Conversation) -> tuple[dict[str, Any] | None, tuple[Need, ...]]:
    effort = None if request.output_config is None else request.output_config.effort
    variables, needed = thinking_of(effort, "output_config.effort", None)
    thinks = Need(capability="thinking", field="thinking")
    match request.thinking:
        case None:
            return variables, needed
        case ThinkingOff():
            return {**(variables or {}), "enable_thinking": False}, needed
        case ThinkingAdaptive():
            return {**(variables or {}), "enable_thinking": True}, (*needed, thinks)
        case ThinkingOn():
            budget = Need(capability="thinking_budget", field="thinking.budget_tokens")
            return {**(variables or {}), "enable_thinking": True}, (*needed, thinks, budget)
        case _:
            assert_never(request.thinking)


def _budget(request: MessagesRequest) -> int | None:
    if not isinstance(request.thinking, ThinkingOn):
        return None
    if request.thinking.budget_tokens >= request.max_tokens:
        raise refuse("thinking.budget_tokens", "has to be less than max_tokens; raise max_tokens")
    return request.thinking.budget_tokens


# --- messages -------------------------------------------------------------------


def _messages(request: Conversation) -> tuple[d.ChatMessage, ...]:
    last = len(request.messages) - 1
    if isinstance(request.messages[last], AssistantTurn):
        raise refuse(
            f"messages[{last}]",
            "the answer cannot be begun for the model; end with a user message",
        )
    return (*_system(request), *_turns(request))


def _system(request: Conversation) -> Iterator[d.ChatMessage]:
    if request.system:
        yield d.ChatMessage(role="system", parts=_texts(request.system))


def _turns(request: Conversation) -> Iterator[d.ChatMessage]:
    for index, turn in enumerate(request.messages):
        path = f"messages[{index}]"
        if not turn.content:
            raise refuse(f"{path}.content", "empty; send text or at least one block")
        match turn:
            case UserTurn():
                yield from _user(turn, path)
            case AssistantTurn():
                yield _assistant(turn, path)
            case SystemTurn():
                yield d.ChatMessage(role="system", parts=_texts(turn.content))
            case _:
                assert_never(turn)


def _user(turn: UserTurn, path: str) -> Iterator[d.ChatMessage]:
    """A user's turn, and before what follows them, the results of tools as turns of their own.

    Results that follow each other stay together: their pictures come after the last of them.
    """
    if isinstance(turn.content, str):
        yield d.ChatMessage(role="user", parts=_texts(turn.content))
        return
    parts: list[d.ContentPart] = []
    shown: list[d.ContentPart] = []
    for index, block in enumerate(turn.content):
        where = f"{path}.content[{index}]"
        match block:
            case TextBlock():
                parts += [*shown, d.TextPart(text=block.text)]
                shown = []
            case ImageBlock():
                parts += [*shown, _picture(block, f"{where}.source")]
                shown = []
            case ToolResultBlock():
                if parts:
                    yield d.ChatMessage(role="user", parts=tuple(parts))
                    parts = []
                yield _result(block)
                found = _pictures_of(block, where)
                shown += [_picture(image, f"{inner}.source") for inner, image in found]
            case _:
                assert_never(block)
    if parts or shown:
        yield d.ChatMessage(role="user", parts=(*parts, *shown))


def _result(block: ToolResultBlock) -> d.ChatMessage:
    parts = _texts(block.content)
    if block.is_error:
        parts = (d.TextPart(text="Error: "), *parts)
    return d.ChatMessage(role="tool", tool_call_id=block.tool_use_id, parts=parts)


def _pictures_of(block: ToolResultBlock, path: str) -> list[tuple[str, ImageBlock]]:
    """The pictures of a tool's result, and where each stands in the body."""
    if isinstance(block.content, str):
        return []
    return [
        (f"{path}.content[{at}]", inner)
        for at, inner in enumerate(block.content)
        if isinstance(inner, ImageBlock)
    ]


def _picture(block: ImageBlock, path: str) -> d.ImagePart:
    source = block.source
    if isinstance(source, UrlSource):
        raise refuse(
            path,
            'pictures are never fetched; read it and send {"type": "base64", "media_type": …, '
            '"data": …}',
        )
    check_mime(source.media_type, f"{path}.media_type")
    return d.ImagePart(data=read_base64(source.data, f"{path}.data"))


def _assistant(turn: AssistantTurn, path: str) -> d.ChatMessage:
    if isinstance(turn.content, str):
        return d.ChatMessage(role="assistant", parts=_texts(turn.content))
    blocks = turn.content
    for index, block in enumerate(blocks):
        if isinstance(block, ToolUseBlock):
            check_portable(block.input, f"{path}.content[{index}].input")
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    return d.ChatMessage(
        role="assistant",
        parts=tuple(d.TextPart(text=b.text) for b in blocks if isinstance(b, TextBlock)),
        reasoning="".join(thoughts) if thoughts else None,
        tool_calls=tuple(
            d.ToolCall(id=b.id, name=b.name, arguments=msgspec.json.encode(b.input).decode())
            for b in blocks
            if isinstance(b, ToolUseBlock)
        ),
    )


def _texts(content: str | tuple[TextBlock | ImageBlock, ...]) -> tuple[d.TextPart, ...]:
    if isinstance(content, str):
        return (d.TextPart(text=content),)
    return tuple(d.TextPart(text=block.text) for block in content if isinstance(block, TextBlock))
