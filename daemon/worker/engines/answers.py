"""What a model's tokenizer says of its answers: markers, tool calls, end tokens.

Built on mlx_lm's TokenizerWrapper, which knows the thinking and tool formats of the
models that it runs; vision models use it as well.
"""

from typing import Any

from daemon.wire.data import Generate
from daemon.worker.engines.output import Detokenizer, TextOutput, ToolReader
from daemon.worker.engines.splitting import Markers, Splitter, State


def make_output(
    tokenizer: Any, detokenizer: Detokenizer, request: Generate, prompt: list[int], call_id: str
) -> TextOutput:
    """The way of one request's tokens to text.

    Tool markup is read only where the request offered tools: else it is text like any
    other, and nobody would expect a call.
    """
    tool = _tool_markers(tokenizer) if request.tools else None
    reader = None
    if tool is not None:
        reader = ToolReader(tokenizer.tool_parser, tool, request.tools, call_id)
    think = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    markers = Markers(think=think, tool=tool, dropped=tuple(tokenizer.structural_markers or ()))
    return TextOutput(
        detokenizer, Splitter(markers, request.stop, _first_state(tokenizer, prompt)), reader
    )


def calls_tools(tokenizer: Any) -> bool:
    """Whether mlx_lm knows how this model writes tool calls."""
    return bool(tokenizer.has_tool_calling)


def _tool_markers(tokenizer: Any) -> tuple[str, str]:
    return str(tokenizer.tool_call_start), str(tokenizer.tool_call_end or "")


def _first_state(tokenizer: Any, prompt: list[int]) -> State:
    """Reasoning, where the chat template already opened it at the end of the prompt."""
    if not tokenizer.has_thinking:
        return "answer"
    opened = tokenizer.rfind_think_start(prompt)
    return "reasoning" if opened > tokenizer.rfind_think_end(prompt) else "answer"
