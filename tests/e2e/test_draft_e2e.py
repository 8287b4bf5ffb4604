"""A model with a draft, over HTTP: the same answers, in fewer pieces."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.contract.tiny import SPECIAL, build_text_model
from tests.e2e.service import Service, config_toml, running_service

pytestmark = pytest.mark.e2e

NO_END = {str(SPECIAL.index("<|im_end|>")): -100}
TOKENS = 90


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same weights thrice: without a draft, with one, and with one that does not fit."""
    base = tmp_path_factory.mktemp("models")
    names = ("plain", "drafted", "odd", "small")
    models = {name: build_text_model(base / name) for name in names}
    other = build_text_model(base / "other", special=SPECIAL[1:])
    drafts = {"drafted": "small", "odd": str(other)}
    config = config_toml(models)
    for name, draft in drafts.items():
        path = f"path = {json.dumps(str(models[name]))}"
        config = config.replace(path, f"{path}\ndraft = {json.dumps(draft)}")
    with running_service(config) as running:
        yield running


def streamed(service: Service, model: str, question: str) -> tuple[str, int]:
    """An answer, and the number of pieces in which it came."""
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=300
    ) as sdk:
        stream = sdk.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=TOKENS,
            temperature=0,
            logit_bias=NO_END,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    texts = [delta.content or getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    return "".join(texts), sum(bool(text) for text in texts)


def test_answers_are_the_same_and_come_in_fewer_pieces(drafting: Service) -> None:
    plain, many = streamed(drafting, "plain", "Tell me a story.")
    drafted, few = streamed(drafting, "drafted", "Tell me a story.")
    assert drafted == plain
    assert few < many


def test_answers_beside_one_another_are_the_same(drafting: Service) -> None:
    questions = ["Ping", "What is 2 + 2?", "Tell me more."]
    expected = [streamed(drafting, "plain", question)[0] for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        got = pool.map(lambda question: streamed(drafting, "drafted", question)[0], questions)
        assert list(got) == expected


def test_a_draft_with_other_tokens_is_refused(drafting: Service) -> None:
    with pytest.raises(openai.APIStatusError, match="this draft has other tokens") as caught:
        streamed(drafting, "odd", "Ping")
    assert "remove draft" in str(caught.value)


def test_an_estimate_counts_the_draft(drafting: Service) -> None:
    told = {
        name: json.loads(drafting.mlxctl("load", name, "--estimate", "--json").stdout)
        for name in ("plain", "drafted")
    }
    assert told["plain"]["draft"] is None
    assert Path(told["drafted"]["draft"]).name == "small"
    for key in ("weights_bytes", "kv_bytes"):
        assert told["drafted"][key] == 2 * told["plain"][key]
