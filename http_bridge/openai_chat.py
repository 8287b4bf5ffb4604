"""``/v1/chat/completions``: pure translation of bodies.

A body becomes a plan for the pool and a request for a worker; ``openai_chat_reply`` has the
way back. Nothing here does I/O, reads a clock or draws an id.
"""

from functools import partial
from typing import Any, assert_never

from daemon.wire import data as d
from daemon.wire import forms
from http_bridge.decode import check_portable, decode_body
from http_bridge.errors import refuse
from http_bridge.naming import Names, Need, Places
from http_bridge.openai_common import (
    check_common,
    priority_of,
    sampling_of,
    stops_of,
    thinking_of,
    ttl_s_of,
)
from http_bridge.openai_schema import (
    AssistantMessage,
    ChatRequest,
    ChosenTool,
    DeveloperMessage,
    GrammarFormat,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    RegexFormat,
    SystemMessage,
    TextFormat,
    TextPart,
    ToolMessage,
    UserMessage,
    chat_decoder,
)
from http_bridge.pictures import read_data_url
from http_bridge.plan import Plan
from http_bridge.structured import (
    STRUCTURED,
    Choice,
    Tools,
    choose_tools,
    schema_constraint,
    shown_tool,
)


def read_chat(body: bytes, request_id: str) -> tuple[Plan, bool]:
    """The plan of a request body, and whether its stream ends with a usage chunk.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(chat_decoder, body)
    _check(request)
    messages = tuple(
        _message(message, f"messages[{index}]") for index, message in enumerate(request.messages)
    )
    tools = _tools(request)
    variables, thinking = thinking_of(
        request.reasoning_effort, "reasoning_effort", request.chat_template_kwargs
    )
    priority = priority_of(request.priority, request.service_tier)
    constraint, formed = _constraint(request)
    plan = Plan(
        model=request.model,
        needs=(*needs_of(messages, tools.shown), *tools.needs, *formed, *thinking, *_logs(request)),
        generate=d.Generate(
            lease="",
            request=request_id,
            messages=messages,
            template_kwargs=variables,
            tools=tools.shown,
            sampling=sampling_of(request),
            max_tokens=_max_tokens(request),
            stop=stops_of(request),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            constraint=constraint,
            call_one_of=tools.call_one_of,
            tool_calls_max=tools.calls_max,
            strict_tools=tools.strict,
            priority=priority,
        ),
        names=Names(fields=_names(request), places=partial(_places, request)),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority,
        choices=request.n or 1,
    )
    options = request.stream_options
    return plan, options is not None and bool(options.include_usage)


def _check(request: ChatRequest) -> None:
    check_common(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise refuse("top_logprobs", "only together with logprobs: true")
    if request.store:
        raise refuse("store", "nothing is stored here; send false or leave it out")
    if request.chat_template_kwargs is not None:
        check_portable(request.chat_template_kwargs, "chat_template_kwargs")


def _constraint(request: ChatRequest) -> tuple[forms.Constraint | None, tuple[Need, ...]]:
    needed = Need(capability=STRUCTURED, field="response_format")
    match request.response_format:
        case JsonObjectFormat():
            return forms.AnyJson(), (needed,)
        case JsonSchemaFormat(json_schema=named):
            field = "response_format.json_schema.schema"
            return schema_constraint(named.schema, field), (needed,)
        case RegexFormat(regex=regex):
            return forms.Regex(regex), (needed,)
        case GrammarFormat(grammar=grammar):
            return forms.Grammar(grammar), (needed,)
        case TextFormat() | None:
            return None, ()
        case _:
            assert_never(request.response_format)


def _max_tokens(request: ChatRequest) -> int | None:
    older, newer = request.max_tokens, request.max_completion_tokens
    if None not in {older, newer} and older != newer:
        raise refuse("max_tokens", "differs from max_completion_tokens; send one of them")
    return older if newer is None else newer


def needs_of(
    messages: tuple[d.ChatMessage, ...], tools: tuple[dict[str, Any], ...]
) -> tuple[Need, ...]:
    """What a conversation needs of the model."""
    pictures = any(isinstance(part, d.ImagePart) for m in messages for part in m.parts)
    return (
        *([Need(capability="vision")] if pictures else []),
        Need(capability="chat"),
        *([Need(capability="tools", field="tools")] if tools else []),
    )


def _logs(request: ChatRequest) -> tuple[Need, ...]:
    return (Need(capability="logprobs", field="logprobs"),) if request.logprobs else ()


def _names(request: ChatRequest) -> dict[str, str]:
    newer = request.max_completion_tokens is not None
    return {
        "max_tokens": "max_completion_tokens" if newer else "max_tokens",
        "template_kwargs": "chat_template_kwargs",
        "constraint": "response_format",
        "constraint.schema": "response_format.json_schema.schema",
        "constraint.regex": "response_format.regex",
        "constraint.grammar": "response_format.grammar",
        "call_one_of": "tool_choice",
        "strict_tools": "tools",
        "tool_calls_max": "parallel_tool_calls",
    }


def _places(request: ChatRequest) -> Places:
    pictures: list[str] = []
    calls: list[str] = []
    for index, message in enumerate(request.messages):
        path = f"messages[{index}]"
        if isinstance(message, UserMessage) and not isinstance(message.content, str):
            pictures += [
                f"{path}.content[{at}].image_url.url"
                for at, part in enumerate(message.content)
                if isinstance(part, ImagePart)
            ]
        if isinstance(message, AssistantMessage):
            count = len(message.tool_calls or ())
            calls += [f"{path}.tool_calls[{at}].function.arguments" for at in range(count)]
    return Places(pictures=pictures, calls=calls)


def _tools(request: ChatRequest) -> Tools:
    """The tools for the chat template; none at all if the model may not call them."""
    tools = request.tools or ()
    strict: dict[str, str] = {}
    for index, tool in enumerate(tools):
        if tool.function.strict:
            strict[tool.function.name] = f"tools[{index}].function.strict"
        check_portable(tool.function.parameters, f"tools[{index}].function.parameters")
    single = "parallel_tool_calls" if request.parallel_tool_calls is False else None
    chosen = request.tool_choice
    choice = (
        Choice(mode="named", name=chosen.function.name, single=single)
        if isinstance(chosen, ChosenTool)
        else Choice(mode=chosen or "auto", single=single)
    )
    shown = (shown_tool(f.name, f.description, f.parameters) for f in (t.function for t in tools))
    return choose_tools(tuple(shown), strict, choice)


# --- messages -------------------------------------------------------------------


def _message(message: Message, path: str) -> d.ChatMessage:
    match message:
        case SystemMessage() | DeveloperMessage():
            return d.ChatMessage(
                role="system", parts=_parts(message.content, path), name=message.name
            )
        case UserMessage():
            return d.ChatMessage(
                role="user", parts=_parts(message.content, path), name=message.name
            )
        case AssistantMessage():
            return _assistant(message, path)
        case ToolMessage():
            return d.ChatMessage(
                role="tool",
                parts=_parts(message.content, path),
                tool_call_id=message.tool_call_id,
                name=message.name,
            )
        case _:
            assert_never(message)


def _assistant(message: AssistantMessage, path: str) -> d.ChatMessage:
    if message.content is None and not message.tool_calls:
        raise refuse(f"{path}.content", "required, unless there are tool_calls")
    return d.ChatMessage(
        role="assistant",
        parts=() if message.content is None else _parts(message.content, path),
        reasoning=message.reasoning_content,
        tool_calls=tuple(
            d.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in message.tool_calls or ()
        ),
        name=message.name,
    )


def _parts(content: str | tuple[TextPart | ImagePart, ...], path: str) -> tuple[d.ContentPart, ...]:
    if isinstance(content, str):
        return (d.TextPart(text=content),)
    if not content:
        raise refuse(f"{path}.content", "an empty list; send text or at least one part")
    return tuple(_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))


def _part(part: TextPart | ImagePart, path: str) -> d.ContentPart:
    if isinstance(part, TextPart):
        return d.TextPart(text=part.text)
    if part.image_url.detail not in {None, "auto"}:
        raise refuse(
            f"{path}.image_url.detail",
            "pictures are seen at the model's own resolution; send auto or leave it out",
        )
    return d.ImagePart(data=read_data_url(part.image_url.url, f"{path}.image_url.url"))
