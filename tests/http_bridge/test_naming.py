"""Whatever field an engine names, each protocol has its own word for it."""

import ast
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from http_bridge.anthropic_messages import read_count, read_messages
from http_bridge.embeddings import read_embeddings
from http_bridge.exchange import Call
from http_bridge.naming import Names, Need, Places, capabilities_of, in_clients_words
from http_bridge.openai_chat import read_chat
from http_bridge.openai_completions import read_completion
from http_bridge.openai_responses import read_responses
from http_bridge.plan import Plan
from http_bridge.speech import read_speech
from http_bridge.transcription import read_transcription

ENGINES = Path(__file__).parents[2] / "daemon" / "worker" / "engines"
PNG = base64.b64encode(b"\x89PNG").decode()
URL = f"data:image/png;base64,{PNG}"

# --- what engines can name ------------------------------------------------------------


def named_by_engines() -> set[str]:
    """Every field in the engines' source: what ``invalid`` and its kin are given."""
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted(ENGINES.glob("*.py"))]
    positions = {"_invalid": 0, "_within": 0}
    for tree in trees:
        for made in ast.walk(tree):
            if isinstance(made, ast.FunctionDef):
                arguments = [one.arg for one in made.args.args if one.arg != "self"]
                if "field" in arguments:
                    positions[made.name] = arguments.index("field")
    return {
        field.replace("{}", "")
        for tree in trees
        for node in ast.walk(tree)
        for field in _fields(node, positions)
    }


def _fields(node: ast.AST, positions: dict[str, int]) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in positions:
            if len(arguments) > positions[name]:
                yield from _texts(arguments[positions[name]])
        case ast.Assign(targets=[ast.Name(id="field")], value=value):
            yield from _texts(value)
        case ast.FunctionDef(name=name) if name.endswith("_field"):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value)


def _texts(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=[ast.Constant(value="constraint."), ast.FormattedValue()]):
            yield from ("constraint.regex", "constraint.grammar")
        case ast.JoinedStr(values=values):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in values)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)


# --- one body a protocol, with everything in it -----------------------------------------

CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALLED, CALLED]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": URL}},
            ],
        },
    ],
}
FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}
RESPONSES: dict[str, Any] = {
    "instructions": "s",
    "input": [
        FUNCTION_CALL,
        {"role": "user", "content": [{"type": "input_image", "image_url": URL}]},
        {"role": "assistant", "content": "said"},
        FUNCTION_CALL,
        FUNCTION_CALL,
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "x"},
                {"type": "input_image", "image_url": URL},
            ],
        },
    ],
}
TOOL_USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
MESSAGES: dict[str, Any] = {
    "system": "s",
    "messages": [
        {"role": "assistant", "content": [TOOL_USE]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c", "content": "1"}, PICTURE],
        },
        {"role": "assistant", "content": [TOOL_USE, {"type": "text", "text": "x"}, TOOL_USE]},
        {"role": "user", "content": [{"type": "text", "text": "x"}, PICTURE]},
    ],
}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


ASKED: dict[str, Plan | Call] = {
    "chat": read_chat(body(**CHAT), "r")[0],
    "responses": read_responses(body(**RESPONSES), "r")[0],
    "messages": read_messages(body(**MESSAGES, max_tokens=9), "r"),
    "count": read_count(body(**MESSAGES), "r"),
    "completions": read_completion(body(prompt=[1, 2]), "r")[0],
    "embeddings": read_embeddings(body(input=["a", "b"]), "r")[0],
    "speech": read_speech(body(input="x", voice="v"), "r").call,
    "transcription": read_transcription({"model": [b"m"], "file": [b"x"]}, "r").call,
}

_SAMPLED = {
    name: {"chat": name, "responses": name, "messages": name, "completions": name}
    for name in ("temperature", "top_p")
}
_DRAWN = {
    name: {"chat": name, "responses": name, "completions": name}
    for name in ("seed", "min_p", "repetition_penalty")
}
_PENALTIES = {
    name: {"chat": name, "completions": name}
    for name in ("presence_penalty", "frequency_penalty", "logit_bias")
}
_TOOLS = {"chat": "tools", "responses": "tools", "messages": "tools", "count": "tools"}
CALLED_BY_CLIENTS: dict[str, dict[str, str]] = {
    **_SAMPLED,
    **_DRAWN,
    **_PENALTIES,
    "messages": {
        "chat": "messages",
        "responses": "input",
        "messages": "messages",
        "count": "messages",
    },
    "messages[].content[]": {
        "chat": "messages[4].content[1].image_url.url",
        "responses": "input[5].content[1].image_url",
        "messages": "messages[3].content[1].source.data",
        "count": "messages[3].content[1].source.data",
    },
    "messages[].tool_calls[].arguments": {
        "chat": "messages[3].tool_calls[1].function.arguments",
        "responses": "input[4].arguments",
        "messages": "messages[2].content[2].input",
        "count": "messages[2].content[2].input",
    },
    "prompt": {"completions": "prompt"},
    "prompt[]": {"completions": "prompt[7]"},
    "max_tokens": {
        "chat": "max_tokens",
        "responses": "max_output_tokens",
        "messages": "max_tokens",
        "completions": "max_tokens",
    },
    "logprobs": {"chat": "logprobs", "responses": "top_logprobs", "completions": "logprobs"},
    "template_kwargs": {
        "chat": "chat_template_kwargs",
        "responses": "chat_template_kwargs",
        "messages": "thinking",
        "count": "thinking",
    },
    "constraint": {
        "chat": "response_format",
        "responses": "text.format",
        "messages": "output_config.format",
    },
    "constraint.schema": {
        "chat": "response_format.json_schema.schema",
        "responses": "text.format.schema",
        "messages": "output_config.format.schema",
    },
    "constraint.regex": {"chat": "response_format.regex", "responses": "text.format.regex"},
    "constraint.grammar": {"chat": "response_format.grammar", "responses": "text.format.grammar"},
    "tools": _TOOLS,
    "tools[].function.parameters": {
        "chat": "tools[7].function.parameters",
        "responses": "tools[7].parameters",
        "messages": "tools[7].input_schema",
    },
    "call_one_of": dict.fromkeys(("chat", "responses", "messages"), "tool_choice"),
    "strict_tools": dict.fromkeys(("chat", "responses", "messages"), "tools"),
    "tool_calls_max": {
        "chat": "parallel_tool_calls",
        "responses": "parallel_tool_calls",
        "messages": "tool_choice.disable_parallel_tool_use",
    },
    "reasoning_tokens_max": {"messages": "thinking.budget_tokens"},
    "inputs": {"embeddings": "input"},
    "inputs[]": {"embeddings": "input[7]"},
    "dimensions": {"embeddings": "dimensions"},
    "text": {"speech": "input"},
    "voice": {"speech": "voice"},
    "speed": {"speech": "speed"},
    "instructions": {"speech": "instructions"},
    "format": {"speech": "response_format"},
    "audio": {"transcription": "file"},
    "language": {"transcription": "language"},
}
CALLED_BY_CLIENTS["temperature"] = {**_SAMPLED["temperature"], "transcription": "temperature"}
NEVER_REACHED = {"model"}
"""Said of the model itself; every protocol calls it so."""


def test_every_field_that_an_engine_can_name_has_a_row() -> None:
    assert named_by_engines() - NEVER_REACHED == CALLED_BY_CLIENTS.keys()


def wire_field(shape: str, asked: Plan | Call) -> str:
    """The field with indices: the last picture or call of a conversation, else 7."""
    messages = asked.generate.messages if isinstance(asked, Plan) else asked.messages
    for at, message in reversed(list(enumerate(messages or ()))):
        for part, one in reversed(list(enumerate(message.parts))):
            if shape == "messages[].content[]" and isinstance(one, d.ImagePart):
                return f"messages[{at}].content[{part}]"
        if shape == "messages[].tool_calls[].arguments" and message.tool_calls:
            return f"messages[{at}].tool_calls[{len(message.tool_calls) - 1}].arguments"
    return shape.replace("[]", "[7]")


@pytest.mark.parametrize(
    ("shape", "protocol", "name"),
    [
        (shape, protocol, name)
        for shape, names in CALLED_BY_CLIENTS.items()
        for protocol, name in names.items()
    ],
)
def test_a_field_is_named_as_the_client_knows_it(shape: str, protocol: str, name: str) -> None:
    asked = ASKED[protocol]
    fault = Fault(code=Code.INVALID_REQUEST, message="no", field=wire_field(shape, asked))
    said = asked.said_to_client(fault)
    assert said == Fault(code=Code.INVALID_REQUEST, message=f"{name}: no", field=name)


def test_names_that_depend_on_the_body() -> None:
    newer = read_chat(body(**CHAT, max_completion_tokens=5), "r")[0]
    too_long = Fault(code=Code.INVALID_REQUEST, message="no", field="max_tokens")
    assert newer.said_to_client(too_long).field == "max_completion_tokens"
    second = Fault(code=Code.INVALID_REQUEST, message="no", field="inputs[0]")
    for given, name in (("a", "input"), ([1, 2], "input"), ([[1], [2]], "input[0]")):
        assert read_embeddings(body(input=given), "r")[0].said_to_client(second).field == name


def test_what_a_model_cannot_do_is_said_of_the_field_that_asks() -> None:
    needs = (
        Need(capability="chat"),
        Need(capability="structured", field="response_format"),
        Need(capability="structured", field="tool_choice"),
        Need(capability="logprobs", field="logprobs"),
    )
    assert capabilities_of(needs) == ("chat", "structured", "logprobs")
    for index, field in enumerate(("model", "response_format", "logprobs")):
        fault = Fault(code=Code.INVALID_REQUEST, message="m cannot", field=f"needs[{index}]")
        said = in_clients_words(fault, Names(), needs)
        prefix = "" if field == "model" else f"{field}: "
        assert (said.field, said.message) == (field, f"{prefix}m cannot")
    blind = Fault(code=Code.INVALID_REQUEST, message="no", field="needs[0]")
    assert ASKED["responses"].said_to_client(blind).field == "input[1].content[0].image_url"


def test_everything_else_stays_as_it_is() -> None:
    for fault in (
        Fault(code=Code.INVALID_REQUEST, message="x"),
        Fault(code=Code.INVALID_REQUEST, message="x", field="model"),
        Fault(code=Code.INCOMPATIBLE, message="x", field="config.json"),
        Fault(code=Code.BUSY, message="x", retry_after_ms=4),
    ):
        assert ASKED["messages"].said_to_client(fault) == fault


def test_a_message_names_its_field_once() -> None:
    names = Names(fields={"logit_bias": "bias"}, places=Places)
    fault = Fault(code=Code.INVALID_REQUEST, message="logit_bias is wrong", field="logit_bias")
    said = in_clients_words(fault, names)
    assert said.message == "bias: is wrong"
    assert in_clients_words(msgspec.structs.replace(said, field="bias"), names) == said
