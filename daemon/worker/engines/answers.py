"""What a model's tokenizer says of its answers: markers, tool calls, end tokens.

Built on mlx_lm's TokenizerWrapper, which knows the thinking and tool formats of the
models that it runs; vision models use it as well.
"""

from typing import Any, Final

from daemon.wire.data import Generate
from daemon.worker.engines.logprobs import LogprobTrail, TokenBytes
from daemon.worker.engines.output import Detokenizer, TextOutput, ToolReader
from daemon.worker.engines.splitting import Markers, Splitter, State

_THINKING_VARIABLES: Final = ("enable_thinking", "thinking")
"""What chat templates call it."""

_BLANK_TOKENS_MAX: Final = 16
"""More than templates put behind thinking that they close at once; so much is decoded."""


def make_output(
    tokenizer: Any,
    detokenizer: Detokenizer,
    request: Generate,
    prompt: list[int],
    call_id: str,
    token_bytes: TokenBytes | None = None,
) -> TextOutput:
    """The way of one request's tokens to text.

    Tool markup is read only where the request offered tools: else it is text like any
    other, and nobody would expect a call.

    Args:
        token_bytes: For log probabilities, where the request wants them.
    """
    tool = _tool_markers(tokenizer) if request.tools else None
    reader = None
    if tool is not None:
        reader = ToolReader(tokenizer.tool_parser, tool, request.tools, call_id)
    think = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    markers = Markers(think=think, tool=tool, dropped=tuple(tokenizer.structural_markers or ()))
    trail = None
    if token_bytes is not None and request.logprobs is not None:
        trail = LogprobTrail(token_bytes)
    state = first_state(tokenizer, prompt)
    splitter = Splitter(markers, request.stop, state, whole=request.constraint is not None)
    return TextOutput(detokenizer, splitter, reader, trail, request.tool_calls_max)


def calls_tools(tokenizer: Any) -> bool:
    """Whether mlx_lm knows how this model writes tool calls."""
    return bool(tokenizer.has_tool_calling)


def _tool_markers(tokenizer: Any) -> tuple[str, str]:
    return str(tokenizer.tool_call_start), str(tokenizer.tool_call_end or "")


def first_state(tokenizer: Any, prompt: list[int]) -> State:
    """How an answer begins: in reasoning, where the prompt ends with that opened already."""
    if not tokenizer.has_thinking:
        return "answer"
    opened = tokenizer.rfind_think_start(prompt)
    return "reasoning" if opened > tokenizer.rfind_think_end(prompt) else "answer"


def may_think(tokenizer: Any, request: Generate, prompt: list[int]) -> bool:
    """Whether an answer may begin with thinking of its own: not where the request turned that
    off, nor where the prompt ends with thinking that is over already."""
    if not tokenizer.has_thinking:
        return False
    variables = request.template_kwargs or {}
    if any(variables.get(name) is False for name in _THINKING_VARIABLES):
        return False
    closed = tokenizer.rfind_think_end(prompt)
    if closed < 0:
        return True
    behind = prompt[closed + len(tokenizer.think_end_tokens) :]
    return len(behind) > _BLANK_TOKENS_MAX or bool(tokenizer.decode(behind).strip())
