"""A guard, token by token: what it allows, what it leaves alone, and how it fails."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from mlx_lm.utils import load_tokenizer

from daemon.wire.data import Generate
from daemon.wire.errors import MlxdError
from daemon.wire.forms import AnyJson, Grammar, JsonSchema, Regex
from daemon.worker.engines.constraint import Guard, Guide, Vocabulary, make_guide
from tests.contract.tiny import SPECIAL, build_text_model

SIZE = len(SPECIAL) + 256
END = SPECIAL.index("<|im_end|>")
THINK, UNTHINK = SPECIAL.index("<think>"), SPECIAL.index("</think>")
CALL, UNCALL = SPECIAL.index("<tool_call>"), SPECIAL.index("</tool_call>")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
YES = JsonSchema(schema=json.dumps({"enum": ["yes", "no"]}).encode())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(build_text_model(tmp_path_factory.mktemp("m")), eos_token_ids=[END])


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Any) -> Vocabulary:
    return Vocabulary(tokenizer, SIZE)


def ids(text: str) -> list[int]:
    return [len(SPECIAL) + ord(letter) - ord("!") for letter in text]


def guide(
    tokenizer: Any,
    vocabulary: Vocabulary,
    *,
    thinking: bool = False,
    may_think: bool = True,
    **fields: Any,
) -> Guide:
    request = Generate(lease="l", prompt="x", **fields)
    made = make_guide(request, tokenizer, vocabulary, thinking=thinking, may_think=may_think)
    assert made is not None
    return made


def allowed(guard: Guard, tokens: list[int], size: int = SIZE) -> set[int]:
    logits = guard(mx.array(tokens, mx.int32), mx.zeros((1, size)))
    values: Any = logits[0].tolist()
    return {i for i, value in enumerate(values) if value == 0.0}


EVERYTHING = set(range(SIZE))


def test_only_what_the_grammar_allows_may_come(tokenizer: Any, vocabulary: Vocabulary) -> None:
    guard = Guard(guide(tokenizer, vocabulary, constraint=YES), vocabulary, 2)
    written: list[int] = [30, 31]
    for letter in '"no"':
        options = allowed(guard, written)
        assert ids(letter)[0] in options
        assert options <= {*ids('"yesno'), THINK}
        written += ids(letter)
    assert allowed(guard, written) == {END}
    assert guard.error == ""


def test_a_row_that_is_put_in_again_goes_on_where_it_was(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    made = guide(tokenizer, vocabulary, constraint=YES)
    guard = Guard(made, vocabulary, 1)
    assert allowed(guard, [30, *ids('"ye')]) == set(ids("s"))


def test_thinking_is_free_and_may_end_in_empty_lines(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    newline = tokenizer.encode("\n")[0]
    for opened in (False, True):
        made = guide(tokenizer, vocabulary, constraint=YES, thinking=opened)
        guard = Guard(made, vocabulary, 0)
        tokens: list[int] = []
        if not opened:
            assert THINK in allowed(guard, tokens)
            tokens.append(THINK)
        assert allowed(guard, tokens) == EVERYTHING - {END}
        tokens += [*ids("{hm"), UNTHINK]
        assert allowed(guard, tokens) == {newline, *ids('"')}
        tokens += [newline, newline]
        assert allowed(guard, tokens) == set(ids('"'))


def test_a_strict_tool_binds_each_call_and_no_other_text(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    made = guide(tokenizer, vocabulary, tools=(TOOL,), strict_tools=("f",))
    guard = Guard(made, vocabulary, 0)
    newline = tokenizer.encode("\n")[0]
    space = tokenizer.encode(" ")[0]
    tokens = ids("free")
    assert allowed(guard, tokens) == EVERYTHING
    for _ in range(2):
        tokens.append(CALL)
        assert allowed(guard, tokens) == {newline}
        tokens += [newline, *ids('{"name":'), space, *ids('"f","arguments":')]
        tokens.insert(-len(ids('"arguments":')), space)
        tokens += [space, *ids("{}}"), newline]
        assert allowed(guard, tokens) == {UNCALL}
        tokens.append(UNCALL)
        assert allowed(guard, tokens) == EVERYTHING
    assert guard.error == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"call_one_of": ("f",)},
        {"call_one_of": ("f",), "constraint": YES},
        {"constraint": YES},
        {"strict_tools": ("f",)},
    ],
)
@pytest.mark.parametrize("marker", [[CALL], ids("<tool_call>")])
def test_a_call_ends_the_thinking_that_it_begins_in(
    tokenizer: Any, vocabulary: Vocabulary, fields: dict[str, Any], marker: list[int]
) -> None:
    newline = tokenizer.encode("\n")[0]
    made = guide(tokenizer, vocabulary, thinking=True, tools=(TOOL,), **fields)
    guard = Guard(made, vocabulary, 0)
    tokens = [*ids("hm"), *marker]
    assert allowed(guard, tokens) == {newline}
    tokens.append(newline)
    assert allowed(guard, tokens) == set(ids("{"))
    assert guard.binding
    assert guard.error == ""


def test_a_call_that_nobody_offered_ends_no_thinking(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    guard = Guard(guide(tokenizer, vocabulary, thinking=True, constraint=YES), vocabulary, 0)
    assert allowed(guard, [CALL]) == EVERYTHING - {END}
    assert not guard.binding


def test_thinking_that_was_turned_off_cannot_be_opened(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    made = guide(tokenizer, vocabulary, may_think=False, constraint=YES)
    assert allowed(Guard(made, vocabulary, 0), []) == set(ids('"'))


def test_an_opening_of_several_tokens_is_written_to_its_end(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    made = guide(tokenizer, vocabulary, constraint=YES)
    made = msgspec.structs.replace(made, think_start=(THINK, *ids("ab")))
    guard = Guard(made, vocabulary, 0)
    tokens = [THINK]
    for letter in "ab":
        assert allowed(guard, tokens) == set(ids(letter))
        tokens += ids(letter)
    assert allowed(guard, tokens) == EVERYTHING - {END}
    assert allowed(guard, [*tokens, UNTHINK]) >= set(ids('"'))


def test_no_token_reaches_beyond_a_marker(tmp_path: Path) -> None:
    """A marker may be spelled; where the answer begins in the middle of a token, the grammar
    would not see its first letters."""
    folder = build_text_model(tmp_path)
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["vocab"][">x"] = SIZE
    told["model"]["merges"] = [[">", "x"]]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    tokenizer = load_tokenizer(folder, eos_token_ids=[END])
    vocabulary = Vocabulary(tokenizer, SIZE + 1)
    guard = Guard(guide(tokenizer, vocabulary, thinking=True, constraint=YES), vocabulary, 0)
    everything = {*EVERYTHING, SIZE} - {END}
    tokens = ids("a<b")
    assert allowed(guard, tokens, SIZE + 1) == everything
    tokens += ids("</think")
    assert allowed(guard, tokens, SIZE + 1) == everything - {SIZE}
    assert allowed(guard, [*tokens, *ids(">")], SIZE + 1) >= set(ids('"'))


def test_none_of_the_end_tokens_ends_an_answer_in_thinking(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(build_text_model(tmp_path), eos_token_ids=[0, END])
    # What mlx_vlm ends answers at, which is more than mlx_lm knows of.
    tokenizer._tokenizer.stopping_criteria = SimpleNamespace(eos_token_ids=[END, 40])
    vocabulary = Vocabulary(tokenizer, SIZE)
    made = guide(tokenizer, vocabulary, thinking=True, constraint=YES)
    assert allowed(Guard(made, vocabulary, 0), []) == EVERYTHING - {0, END, 40}


def test_a_token_out_of_the_grammar_is_the_rows_error(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    guard = Guard(guide(tokenizer, vocabulary, constraint=AnyJson()), vocabulary, 0)
    assert allowed(guard, ids("x")) == EVERYTHING
    assert guard.error != ""
    assert allowed(guard, ids("xy")) == EVERYTHING


def test_logits_beyond_the_vocabulary_are_impossible(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    guard = Guard(guide(tokenizer, vocabulary, constraint=YES), vocabulary, 0)
    assert allowed(guard, [], SIZE + 100) == {*ids('"'), THINK}


def test_tokens_are_bytes(vocabulary: Vocabulary) -> None:
    assert vocabulary.token_bytes(ids("a")[0]) == b"a"
    assert vocabulary.token_bytes(END) == b"<|im_end|>"


def test_models_with_call_forms_of_their_own_are_refused(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    def parse_tool_call(text: str) -> str:
        return text

    parse_tool_call.__module__ = "mlx_lm.tool_parsers.pythonic"
    other = SimpleNamespace(
        has_thinking=False, tool_parser=parse_tool_call, tool_call_start="[", tool_call_end="]"
    )
    with pytest.raises(MlxdError, match="pythonic") as caught:
        guide(other, vocabulary, tools=(TOOL,), call_one_of=("f",))
    assert caught.value.fault.field == "call_one_of"


def test_parameters_that_cannot_be_followed_matter_only_if_strict(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    odd = {"name": "g", "parameters": {"type": "array", "uniqueItems": True}}
    tools = ({"type": "function", "function": odd},)
    assert guide(tokenizer, vocabulary, tools=tools, call_one_of=("g",))
    with pytest.raises(MlxdError, match="uniqueItems") as caught:
        guide(tokenizer, vocabulary, tools=tools, strict_tools=("g",))
    assert caught.value.fault.field == "tools[0].function.parameters"


def test_a_tokenizer_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    slow = SimpleNamespace(eos_token_ids=[1], __len__=lambda: 3)
    vocabulary = Vocabulary(slow, 10)
    with pytest.raises(ValueError, match="not supported"):
        _ = vocabulary.tokens
    with pytest.raises(MlxdError, match="token by token") as caught:
        make_guide(
            Generate(lease="l", prompt="x", constraint=AnyJson()), slow, vocabulary, thinking=False
        )
    assert caught.value.fault.field == "constraint"


def written(made: Guide, vocabulary: Vocabulary, text: str) -> set[int]:
    """What may come behind ``text``, every letter of which has to be allowed."""
    guard = Guard(made, vocabulary, 0)
    tokens: list[int] = []
    for token in ids(text):
        assert token in allowed(guard, tokens)
        tokens.append(token)
    return allowed(guard, tokens)


@pytest.mark.parametrize(
    ("regex", "text", "then"),
    [
        ("[a-c]+/x", "ab", ids("abc/")),
        (r"a\/b", "a", ids("/")),
        (r"\\/", "", ids("\\")),
        (r"a\\/b", "a\\", ids("/")),
    ],
)
def test_a_regex_is_followed(
    tokenizer: Any, vocabulary: Vocabulary, regex: str, text: str, then: list[int]
) -> None:
    made = guide(tokenizer, vocabulary, constraint=Regex(regex))
    assert written(made, vocabulary, text) - {THINK} == set(then)


def test_a_regex_may_hold_a_line_end(tokenizer: Any, vocabulary: Vocabulary) -> None:
    made = guide(tokenizer, vocabulary, constraint=Regex("a\nb"))
    assert written(made, vocabulary, "a") == set(tokenizer.encode("\n"))


def test_a_grammar_is_followed_beside_the_tools(tokenizer: Any, vocabulary: Vocabulary) -> None:
    own = Grammar('start: greeting name\ngreeting: "hi" | "yo"\nname: /[A-B]/')
    made = guide(tokenizer, vocabulary, constraint=own)
    assert written(made, vocabulary, "yo") == set(ids("AB"))
    assert written(made, vocabulary, "hiB") == {END}
    made = guide(tokenizer, vocabulary, constraint=own, tools=(TOOL,))
    assert written(made, vocabulary, "") - {THINK} == {CALL, *ids("hy")}


@pytest.mark.parametrize(
    ("constraint", "field", "reason"),
    [
        (Regex("("), "constraint.regex", "unclosed group"),
        (Regex("(?=a)b"), "constraint.regex", "look-around"),
        (Regex("a\\"), "constraint.regex", "cannot be followed"),
        (Grammar("start: nothing"), "constraint.grammar", "nothing"),
        (Grammar("nonsense"), "constraint.grammar", "cannot be followed"),
        (JsonSchema(b'{"type": 5}'), "constraint.schema", "cannot be followed"),
        (JsonSchema(b"{"), "constraint.schema", "not JSON"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    tokenizer: Any, vocabulary: Vocabulary, constraint: Any, field: str, reason: str
) -> None:
    with pytest.raises(MlxdError, match=reason) as caught:
        guide(tokenizer, vocabulary, constraint=constraint)
    assert caught.value.fault.field == field


def test_a_warmed_vocabulary_is_made_once_and_in_another_thread(tokenizer: Any) -> None:
    makers: list[str] = []

    class Watched(Vocabulary):
        def _make(self) -> Any:
            makers.append(threading.current_thread().name)
            return super()._make()

    vocabulary = Watched(tokenizer, SIZE)
    vocabulary.warm()
    vocabulary.warm()
    for thread in threading.enumerate():
        if thread.name == "vocabulary":
            thread.join()
    assert vocabulary.tokens is vocabulary.tokens
    assert makers == ["vocabulary"]


def test_what_cannot_be_warmed_is_said_to_who_asks() -> None:
    slow = SimpleNamespace(eos_token_ids=[1], __len__=lambda: 3)
    vocabulary = Vocabulary(slow, 10)
    vocabulary.warm()
    with pytest.raises(ValueError, match="not supported"):
        _ = vocabulary.tokens
