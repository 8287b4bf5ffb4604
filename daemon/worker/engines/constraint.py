"""Answers that have to follow a grammar: JSON, a schema, a regex, a caller's own, tool calls.

llguidance says which tokens may come next, and a logits processor of the row makes all
others impossible; so a constrained row decodes beside free ones, on every backend.
"""

import contextlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

import llguidance.hf
import llguidance.numpy
import mlx.core as mx
import msgspec
import numpy as np
from llguidance import LLMatcher

from daemon.wire.data import Generate
from daemon.wire.forms import AnyJson, Grammar, JsonSchema, Regex
from daemon.worker.engines.conversation import invalid

_JSON_STYLE: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write a document: models that may choose their blanks can write them for ever."""

_BITS: Final = 32

_Bits = np.ndarray[Any, np.dtype[np.uint32]]
"""A set of tokens, ``[1, words]``, a bit a token."""


class Guide(msgspec.Struct, frozen=True):
    """What a row's text has to be; grammars are in llguidance's form.

    Attributes:
        grammar: Of the whole visible answer; empty if only its calls have a form.
        grammar_after_thinking: The same, with the empty lines that models put there.
        grammar_in_call: Of what follows ``call``, also where that ends the thinking.
        call: The opening marker of a call; empty if there are no tools.
        think_start: The opening marker of thinking, as tokens; empty if none may be opened.
        think_end: The closing one; empty if the model does not think. Thinking is free.
        thinking: Whether the prompt has opened the thinking already.
    """

    grammar: str = ""
    grammar_after_thinking: str = ""
    grammar_in_call: str = ""
    call: bytes = b""
    think_start: tuple[int, ...] = ()
    think_end: bytes = b""
    thinking: bool = False


class Vocabulary:
    """A model's tokens as llguidance knows them.

    Making them takes about 10 µs a token of the vocabulary, half a second for 49,000, and
    would hold up every row of a batch. It holds the interpreter's lock too, so that a thread
    alone is no help: :meth:`warm` is for a moment when nothing is decoded.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._making = threading.Lock()
        self._made: Any = None
        self._warmed = False
        self._beyond: dict[bytes, _Bits] = {}
        self.size = vocab_size

    def warm(self) -> None:
        """Make the tokens, once, in a thread; who needs them meanwhile waits for it."""
        if not self._warmed:
            self._warmed = True
            threading.Thread(target=self._warm, name="vocabulary", daemon=True).start()

    def _warm(self) -> None:
        with contextlib.suppress(ValueError):  # said to the request that needs them
            _ = self.tokens

    @property
    def tokens(self) -> Any:
        """The LLTokenizer.

        Raises:
            ValueError: llguidance does not know tokenizers of this kind.
        """
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        inner = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
        try:
            return llguidance.hf.from_tokenizer(
                inner,
                n_vocab=max(self.size, len(self._tokenizer)),
                eos_token=sorted(self._tokenizer.eos_token_ids),
            )
        except Exception as error:
            raise ValueError(f"this model's tokenizer is not supported: {error}") from error

    def token_bytes(self, token: int) -> bytes:
        """A token's text as UTF-8, maybe a part of a character."""
        return bytes(self.tokens.decode_bytes([token]))

    def ends(self) -> _Bits:
        """The tokens that end an answer: mlx_lm's, and what mlx_vlm has beyond them."""
        criteria = getattr(self._tokenizer, "stopping_criteria", None)
        ends = {*self._tokenizer.eos_token_ids, *getattr(criteria, "eos_token_ids", ())}
        flags = np.zeros(-(-self.tokens.vocab_size // _BITS) * _BITS, np.uint8)
        flags[[token for token in ends if token < len(flags)]] = 1
        return np.packbits(flags, bitorder="little").view(np.uint32)[None]

    def beyond(self, text: bytes) -> _Bits:
        """The tokens that begin with an ASCII text and go on behind it."""
        if text not in self._beyond:
            literal = json.dumps(text.decode())
            longer = self._first(f"start: LONGER\nLONGER: {literal} /(?s:.+)/")
            self._beyond[text] = longer & ~self._first(f"start: {literal}")
        return self._beyond[text]

    def _first(self, lark: str) -> _Bits:
        """The tokens that a text of this grammar may begin with."""
        matcher = LLMatcher(self.tokens, LLMatcher.grammar_from_lark(lark))
        mask = llguidance.numpy.allocate_token_bitmask(1, self.tokens.vocab_size)
        llguidance.numpy.fill_next_token_bitmask(matcher, mask, 0)
        return mask.view(np.uint32)


def has_form(request: Generate) -> bool:
    """Whether the request asks anything of the answer's form."""
    return request.constraint is not None or bool(request.call_one_of or request.strict_tools)


def make_guide(
    request: Generate,
    tokenizer: Any,
    vocabulary: Vocabulary,
    *,
    thinking: bool,
    may_think: bool = True,
) -> Guide | None:
    """What the request asks of the answer's form; None if nothing.

    Args:
        thinking: Whether the prompt ends inside of thinking.
        may_think: Whether the answer may begin with thinking of its own.

    Raises:
        MlxdError: ``invalid_request`` naming the field that cannot be honoured.
    """
    if not has_form(request):
        return None
    _known_tokenizer(vocabulary)
    rules = ['blank: "\\n" | "\\n\\n"', *_document_rule(request, vocabulary)]
    if request.tools:
        rules += _call_rules(request, tokenizer, vocabulary)
    whole, in_call = _starts(request)
    _check(
        whole or in_call, rules, vocabulary, "tools" if request.constraint is None else "constraint"
    )
    thinks = tokenizer.has_thinking
    return Guide(
        grammar=_grammar(whole, rules),
        grammar_after_thinking=_grammar(whole and f"blank? whole\nwhole: {whole}", rules),
        grammar_in_call=_grammar(in_call, rules),
        call=tokenizer.tool_call_start.encode() if request.tools else b"",
        think_start=tuple(tokenizer.think_start_tokens) if thinks and may_think else (),
        think_end=tokenizer.think_end.encode() if thinks else b"",
        thinking=thinking,
    )


def _starts(request: Generate) -> tuple[str, str]:
    """What the whole visible answer is, and what follows a call's opening marker; each empty
    if there is none."""
    if request.call_one_of:
        return "call (blank call)*", "body (blank call)*"
    if request.constraint is None:
        return "", "body"
    if not request.tools:
        return "document", ""
    return "document | call (blank call)*", "body (blank call)*"


def _grammar(start: str, rules: list[str]) -> str:
    lark = "\n".join([f"start: {start}", *rules])
    return LLMatcher.grammar_from_lark(lark) if start else ""


def _known_tokenizer(vocabulary: Vocabulary) -> None:
    try:
        _ = vocabulary.tokens
    except ValueError as error:
        raise invalid(
            f"answers of a given form need a tokenizer that can be read token by token: {error}",
            "constraint",
        ) from error


def _check(start: str, rules: list[str], vocabulary: Vocabulary, field: str) -> None:
    error = LLMatcher.validate_grammar(_grammar(start, rules), vocabulary.tokens)
    if error:
        raise invalid(f"this cannot be constrained: {error}", field)


def _document_rule(request: Generate, vocabulary: Vocabulary) -> list[str]:
    match request.constraint:
        case None:
            return []
        case AnyJson():
            return ["document: %json " + _schema_text({"type": "object"})]
        case Regex(regex=regex):
            return [_written(f"document: /{_escaped(regex)}/", "regex", vocabulary)]
        case Grammar(grammar=grammar):
            return [_written(f"document: %lark {{\n{grammar}\n}}", "grammar", vocabulary)]
        case JsonSchema(schema=schema):
            return [_schema_rule(schema, vocabulary)]
        case _:
            assert_never(request.constraint)


def _written(rule: str, what: str, vocabulary: Vocabulary) -> str:
    """A rule that the caller wrote; what is wrong with it is said of the caller's own lines."""
    grammar = LLMatcher.grammar_from_lark(f"start: document\n{rule}")
    problem = LLMatcher.validate_grammar(grammar, vocabulary.tokens)
    if problem:
        raise invalid(f"the {what} cannot be followed: {problem}; change it", f"constraint.{what}")
    return rule


def _escaped(regex: str) -> str:
    """A regular expression between slashes: those of its own, and line ends, are escaped."""
    escaped = re.sub(r"\\.|/", lambda one: r"\/" if one[0] == "/" else one[0], regex)
    return escaped.replace("\n", r"\n")


def _schema_rule(text: bytes, vocabulary: Vocabulary) -> str:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise invalid(f"the schema is not JSON: {error}", "constraint.schema") from error
    rule = "document: %json " + _schema_text(schema)
    problem = _problem(schema, vocabulary)
    if problem:
        raise invalid(f"the schema cannot be followed: {problem}; change it", "constraint.schema")
    return rule


def _problem(schema: Any, vocabulary: Vocabulary) -> str:
    """Why a JSON Schema cannot be followed; empty if it can."""
    if not isinstance(schema, dict | bool):
        return "a schema is an object"
    grammar = LLMatcher.grammar_from_json_schema(_schema_text(schema))
    return str(LLMatcher.validate_grammar(grammar, vocabulary.tokens))


def _schema_text(schema: Any) -> str:
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": _JSON_STYLE}
    return json.dumps(schema)


# --- tool calls -------------------------------------------------------------------


def _call_rules(request: Generate, tokenizer: Any, vocabulary: Vocabulary) -> list[str]:
    """A call as the model writes it; so far for models that write name and arguments as JSON."""
    field = "call_one_of" if request.call_one_of else "strict_tools"
    parser = getattr(tokenizer.tool_parser, "__module__", "")
    if not parser.endswith(".json_tools"):
        raise invalid(
            f"this model writes tool calls in a form of its own ({parser.rpartition('.')[2]}) "
            "that cannot be forced; leave the choice open",
            field,
        )
    named = {_function(tool)["name"]: i for i, tool in enumerate(request.tools)}
    for name in (*request.call_one_of, *request.strict_tools):
        if name not in named:
            raise invalid(f'there is no tool "{name}" among the tools of this request', field)
    wanted = request.call_one_of or tuple(named)
    calls = [
        _call_schema(i, _function(request.tools[i]), request.strict_tools, vocabulary)
        for i in (named[name] for name in wanted)
    ]
    return [
        f"call: {_marker(tokenizer.tool_call_start, vocabulary)} body",
        f'body: "\\n" content "\\n" {_marker(tokenizer.tool_call_end, vocabulary)}',
        "content: %json " + _schema_text({"anyOf": calls}),
    ]


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    assert isinstance(function, Mapping), "checked with the request"
    return function


def _call_schema(
    i: int, function: Mapping[str, Any], strict: Sequence[str], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Name and arguments of one tool; a schema that cannot be followed only matters if strict."""
    parameters = function.get("parameters") or {"type": "object"}
    problem = _problem(parameters, vocabulary)
    if problem and function["name"] in strict:
        raise invalid(
            f'the parameters of tool "{function["name"]}" cannot be followed strictly: {problem}',
            f"tools[{i}].function.parameters",
        )
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": {"type": "object"} if problem else parameters,
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _marker(text: str, vocabulary: Vocabulary) -> str:
    """A marker in a grammar: its special token where it is one, else its text."""
    ids = vocabulary.tokens.tokenize_str(text, parse_special=True)
    if len(ids) == 1 and vocabulary.tokens.is_special_token(ids[0]):
        return f"<[{ids[0]}]>"
    return json.dumps(text)


# --- decoding ----------------------------------------------------------------------


class Guard:
    """The logits processor of one row that has a :class:`Guide`.

    It looks for markers in the text, as the splitter does: both have to find the answer's
    beginning in the same place. While it waits for one, no token may reach beyond its end,
    and an answer that has a form may not end before it.

    A processor that raised would take the whole batch with it: a failure is kept in
    ``error`` instead, and the row ends alone.

    Attributes:
        error: What went wrong; empty as long as nothing did.
    """

    def __init__(self, guide: Guide, vocabulary: Vocabulary, prompt_tokens: int) -> None:
        self._guide = guide
        self._vocabulary = vocabulary
        self._done = prompt_tokens
        self._mask = llguidance.numpy.allocate_token_bitmask(1, vocabulary.tokens.vocab_size)
        self._ends = vocabulary.ends()
        self._tail = b""
        self._waits_for: tuple[bytes, ...] = ()
        self._matcher: Any = None
        self._opening = 0
        self._untouched = False
        self.error = ""
        self._start()

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits with everything impossible that the grammar does not allow next."""
        new: list[int] = np.array(tokens[self._done :]).tolist()
        self._done += len(new)
        for token in new:
            self._take(token)
        if self.error:
            return logits
        size = logits.shape[-1]
        if self._matcher is None:
            barred = self._barred()
            return mx.where(_spread(barred, size), -mx.inf, logits) if barred.any() else logits
        if self._opening:
            return mx.where(self._thinks(size), logits, -mx.inf)
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        self._note_error()
        return mx.where(self._allowed(size), logits, -mx.inf)

    @property
    def binding(self) -> bool:
        """Whether a form is being written, so that this is no thinking."""
        return self._matcher is not None and not self._opening

    def _start(self) -> None:
        if not self._guide.grammar:
            self._wait(self._guide.call)
        elif self._guide.thinking:
            self._wait(self._guide.think_end, self._guide.call)
        else:
            self._matcher, self._untouched = self._new_matcher(self._guide.grammar), True

    def _wait(self, *markers: bytes) -> None:
        """Leave the text alone up to one of the markers."""
        self._matcher, self._tail, self._untouched = None, b"", False
        self._waits_for = tuple(marker for marker in markers if marker)

    def _take(self, token: int) -> None:
        """Follow the row by one token."""
        if self.error:
            return
        if self._matcher is None:
            self._look(token)
        elif self._untouched and self._opens_thinking(token):
            self._opening += 1
            if self._opening == len(self._guide.think_start):
                self._opening = 0
                self._wait(self._guide.think_end, self._guide.call)
        elif not self._matcher.is_stopped():
            self._untouched = False
            self._matcher.consume_token(token)
            self._note_error()
            if not self._guide.grammar and self._matcher.is_stopped():
                self._wait(self._guide.call)

    def _look(self, token: int) -> None:
        """Begin where what is waited for has come: thinking is over, or a call begins."""
        longest = max(map(len, self._waits_for))
        self._tail = (self._tail + self._vocabulary.token_bytes(token))[-longest:]
        for marker in self._waits_for:
            if self._tail.endswith(marker):
                in_call = marker == self._guide.call
                guide = self._guide
                self._matcher = self._new_matcher(
                    guide.grammar_in_call if in_call else guide.grammar_after_thinking
                )
                return

    def _opens_thinking(self, token: int) -> bool:
        return self._guide.think_start[self._opening : self._opening + 1] == (token,)

    def _barred(self) -> _Bits:
        """What may not come while a marker is waited for."""
        barred = self._ends if self._guide.grammar else np.zeros_like(self._ends)
        for marker in self._waits_for:
            for size in range(len(marker)):
                if self._tail.endswith(marker[:size]):
                    barred = barred | self._vocabulary.beyond(marker[size:])
        return barred

    def _allowed(self, size: int) -> mx.array:
        """``[1, size]``, true where a token may come."""
        allowed = _spread(self._mask.view(np.uint32), size)
        if self._untouched and self._guide.think_start:
            allowed = allowed | self._thinks(size)
        return allowed

    def _thinks(self, size: int) -> mx.array:
        """``[1, size]``, true where thinking is opened, or its opening goes on."""
        return (mx.arange(size) == self._guide.think_start[self._opening])[None]

    def _new_matcher(self, grammar: str) -> Any:
        return LLMatcher(self._vocabulary.tokens, grammar)

    def _note_error(self) -> None:
        if self._matcher.is_error():
            self.error = str(self._matcher.get_error())


def _spread(bits: _Bits, size: int) -> mx.array:
    """``[1, size]``, true where a token's bit is set."""
    shifted = (mx.array(bits)[..., None] >> mx.arange(_BITS, dtype=mx.uint32)) & 1
    spread = shifted.reshape(1, -1)[:, :size].astype(mx.bool_)
    if spread.shape[1] < size:
        spread = mx.pad(spread, [(0, 0), (0, size - spread.shape[1])])
    return spread
