"""``/v1/responses``: pure translation of bodies, stateless.

The whole conversation comes with every request. Consecutive items of the assistant (thinking,
text, calls) are one turn, as chat templates know it.
"""

from functools import partial
from typing import Final, assert_never

from daemon.wire import data as d
from daemon.wire import forms
from http_bridge.decode import check_portable, convert_part, decode_body
from http_bridge.errors import refuse
from http_bridge.naming import Names, Need, Places
from http_bridge.openai_chat import needs_of
from http_bridge.openai_common import priority_of, thinking_of, ttl_s_of
from http_bridge.openai_responses_schema import (
    FunctionCallItem,
    FunctionOutputItem,
    InputImage,
    InputText,
    Item,
    MessageItem,
    NamedTool,
    OutputText,
    ReasoningItem,
    ResponsesRequest,
    SchemaFormat,
    responses_decoder,
)
from http_bridge.openai_schema import GrammarFormat, JsonObjectFormat, RegexFormat
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

_NAMES: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "template_kwargs": "chat_template_kwargs",
    "constraint": "text.format",
    "constraint.schema": "text.format.schema",
    "constraint.regex": "text.format.regex",
    "constraint.grammar": "text.format.grammar",
    "call_one_of": "tool_choice",
    "strict_tools": "tools",
    "tools[].function.parameters": "tools[].parameters",
    "tool_calls_max": "parallel_tool_calls",
}
_STATELESS: Final = "nothing is kept here between requests; send the whole conversation as input"


def read_responses(body: bytes, request_id: str) -> tuple[Plan, ResponsesRequest]:
    """The plan of a request body, and the request for its reply to echo.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(responses_decoder, body)
    _check(request)
    messages, tools = _messages(request), _tools(request)
    effort = None if request.reasoning is None else request.reasoning.effort
    variables, thinking = thinking_of(effort, "reasoning.effort", request.chat_template_kwargs)
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
            sampling=d.Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                min_p=request.min_p,
                seed=request.seed,
                repetition_penalty=request.repetition_penalty,
            ),
            max_tokens=request.max_output_tokens,
            logprobs=(request.top_logprobs or 0) if request.include else None,
            constraint=constraint,
            call_one_of=tools.call_one_of,
            tool_calls_max=tools.calls_max,
            strict_tools=tools.strict,
            priority=priority,
        ),
        names=Names(fields=_NAMES, places=partial(_places, request)),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority,
    )
    return plan, request


def _check(request: ResponsesRequest) -> None:
    if request.previous_response_id is not None:
        raise refuse("previous_response_id", _STATELESS)
    if request.conversation is not None:
        raise refuse("conversation", _STATELESS)
    if request.store:
        raise refuse("store", "nothing is stored here; send false or leave it out")
    if request.background:
        raise refuse("background", "nothing runs on without its caller; stream the answer instead")
    if request.top_logprobs and not request.include:
        raise refuse("top_logprobs", 'only with include: ["message.output_text.logprobs"]')
    if request.chat_template_kwargs is not None:
        check_portable(request.chat_template_kwargs, "chat_template_kwargs")


def _tools(request: ResponsesRequest) -> Tools:
    tools = request.tools or ()
    strict: dict[str, str] = {}
    for index, tool in enumerate(tools):
        check_portable(tool.parameters, f"tools[{index}].parameters")
        if tool.strict:
            strict[tool.name] = f"tools[{index}].strict"
    single = "parallel_tool_calls" if request.parallel_tool_calls is False else None
    chosen = request.tool_choice
    choice = (
        Choice(mode="named", name=chosen.name, single=single)
        if isinstance(chosen, NamedTool)
        else Choice(mode=chosen or "auto", single=single)
    )
    shown = (shown_tool(tool.name, tool.description, tool.parameters) for tool in tools)
    return choose_tools(tuple(shown), strict, choice)


def _logs(request: ResponsesRequest) -> tuple[Need, ...]:
    return (Need(capability="logprobs", field="include"),) if request.include else ()


def _places(request: ResponsesRequest) -> Places:
    pictures: list[str] = []
    calls: list[str] = []
    items = () if isinstance(request.input, str) else request.input
    for index, item in enumerate(items):
        path, content = f"input[{index}]", item.get("content")
        if item.get("type") == "function_call":
            calls.append(f"{path}.arguments")
        elif isinstance(content, list):
            pictures += [
                f"{path}.content[{at}].image_url"
                for at, part in enumerate(content)
                if part["type"] == "input_image"
            ]
    return Places(pictures=pictures, calls=calls)


def _constraint(request: ResponsesRequest) -> tuple[forms.Constraint | None, tuple[Need, ...]]:
    needed = Need(capability=STRUCTURED, field="text.format")
    match None if request.text is None else request.text.format:
        case JsonObjectFormat():
            return forms.AnyJson(), (needed,)
        case SchemaFormat(schema=schema):
            return schema_constraint(schema, "text.format.schema"), (needed,)
        case RegexFormat(regex=regex):
            return forms.Regex(regex), (needed,)
        case GrammarFormat(grammar=grammar):
            return forms.Grammar(grammar), (needed,)
        case _:
            return None, ()


# --- items ----------------------------------------------------------------------


def _messages(request: ResponsesRequest) -> tuple[d.ChatMessage, ...]:
    messages: list[d.ChatMessage] = []
    if request.instructions is not None:
        messages.append(_said("system", request.instructions))
    if isinstance(request.input, str):
        return (*messages, _said("user", request.input))
    for index, value in enumerate(request.input):
        path = f"input[{index}]"
        kind = "message" if value.get("type") is None else value["type"]
        item: Item = convert_part({**value, "type": kind}, Item, path)
        message = _message(item, path)
        if message.role == "assistant" and messages and messages[-1].role == "assistant":
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
    return tuple(messages)


def _said(role: str, text: str) -> d.ChatMessage:
    return d.ChatMessage(role="system" if role == "system" else "user", parts=(d.TextPart(text),))


def _joined(first: d.ChatMessage, second: d.ChatMessage) -> d.ChatMessage:
    """Two items of one turn of the assistant."""
    thoughts = [text for text in (first.reasoning, second.reasoning) if text is not None]
    return d.ChatMessage(
        role="assistant",
        parts=(*first.parts, *second.parts),
        reasoning="".join(thoughts) if thoughts else None,
        tool_calls=(*first.tool_calls, *second.tool_calls),
    )


def _message(item: Item, path: str) -> d.ChatMessage:
    match item:
        case MessageItem():
            role = "system" if item.role == "developer" else item.role
            return d.ChatMessage(role=role, parts=_parts(item, path))
        case FunctionCallItem():
            call = d.ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
            return d.ChatMessage(role="assistant", tool_calls=(call,))
        case FunctionOutputItem():
            output = item.output
            texts = (output,) if isinstance(output, str) else tuple(part.text for part in output)
            parts = tuple(d.TextPart(text=text) for text in texts)
            return d.ChatMessage(role="tool", tool_call_id=item.call_id, parts=parts)
        case ReasoningItem():
            text = "".join(part.text for part in item.content or ())
            return d.ChatMessage(role="assistant", reasoning=text)
        case _:
            assert_never(item)


def _parts(item: MessageItem, path: str) -> tuple[d.ContentPart, ...]:
    if isinstance(item.content, str):
        return (d.TextPart(text=item.content),)
    if not item.content:
        raise refuse(f"{path}.content", "an empty list; send text or at least one part")
    parts: list[d.ContentPart] = []
    for index, part in enumerate(item.content):
        where = f"{path}.content[{index}]"
        if isinstance(part, InputImage):
            parts.append(_picture(part, item.role, where))
        elif isinstance(part, OutputText) != (item.role == "assistant"):
            wanted = "output_text" if item.role == "assistant" else "input_text"
            raise refuse(f"{where}.type", f"in a message of this role it has to be {wanted}")
        else:
            assert isinstance(part, InputText | OutputText)
            parts.append(d.TextPart(text=part.text))
    return tuple(parts)


def _picture(part: InputImage, role: str, path: str) -> d.ImagePart:
    if role != "user":
        raise refuse(f"{path}.type", "pictures belong into messages of the user")
    if part.detail not in {None, "auto"}:
        raise refuse(
            f"{path}.detail",
            "pictures are seen at the model's own resolution; send auto or leave it out",
        )
    return d.ImagePart(data=read_data_url(part.image_url, f"{path}.image_url"))
