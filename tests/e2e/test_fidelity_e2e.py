"""Text fidelity: what goes through daemon, worker and bridge is what the library would write.

Streamed text, whole text, text from a batch of eight among rows that are drawn quite
differently, and greedy text of mlx_lm itself are the same, byte for byte. Sums are taken in
another order in a batch, so the first difference is allowed where the two best tokens were
within 1e-3 of each other; after it, everything may differ.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import openai
import pytest

from tests.e2e.service import Service
from tests.models import REPO_ROOT, model_path
from tests.models.fastblas import fast_blas_env

pytestmark = pytest.mark.e2e

TIE = 1e-3
MAX_TOKENS = 16
PROMPTS = (
    (Path(__file__).parents[1] / "fixtures" / "golden" / "text" / "fidelity.txt")
    .read_text("utf-8")
    .splitlines()
)
AMONG: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.7, "top_p": 0.8, "seed": 2},
    {"temperature": 1.3, "top_k": 5, "presence_penalty": 1.5, "seed": 3},
    {
        "temperature": 0,
        "frequency_penalty": 1.0,
        "logit_bias": {"28": 5},
        "repetition_penalty": 1.3,
    },
)
"""Rows beside the greedy ones: each has a sampler of its own."""


class Reference(msgspec.Struct, frozen=True):
    """A greedy answer, token by token: its text, and its lead over the second best."""

    steps: list[tuple[str, float]]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.steps)

    def lead_at(self, place: int) -> float:
        """The lead of the token that wrote the character at ``place``, or would have."""
        end = 0
        for text, lead in self.steps:
            end += len(text)
            if place < end:
                return lead
        return self.steps[-1][1]


def check(reference: Reference, text: str, how: str) -> None:
    """The same text, or a first difference where there were as good as two best tokens."""
    expected = reference.text
    if text == expected:
        return
    pairs = zip(expected, text, strict=False)
    shorter = min(len(expected), len(text))
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)
    lead = reference.lead_at(place)
    assert lead < TIE, f"{how}: {text!r} instead of {expected!r}, at a lead of {lead}"


@contextmanager
def greedy(folder: Path, prompts: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The library at work beside the service, on the other core."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.greedy", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPO_ROOT,
        env={"HF_HUB_OFFLINE": "1", **fast_blas_env(REPO_ROOT / ".cache" / "fastblas")},
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"prompts": prompts, "max_tokens": MAX_TOKENS}).encode())
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def request(model: str, prompt: str, **fields: Any) -> dict[str, Any]:
    talk = [{"role": "user", "content": prompt}]
    fields = {"temperature": 0, **fields}
    extra = {key: fields.pop(key) for key in ("top_k", "repetition_penalty") if key in fields}
    base = {"model": model, "messages": talk, "max_tokens": MAX_TOKENS, "extra_body": extra}
    return {**base, **fields}


async def streamed(sdk: openai.AsyncOpenAI, asked: dict[str, Any]) -> str:
    stream = await sdk.chat.completions.create(**asked, stream=True)
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def whole(sdk: openai.AsyncOpenAI, asked: dict[str, Any]) -> str:
    reply = await sdk.chat.completions.create(**asked)
    return reply.choices[0].message.content or ""


async def batch(sdk: openai.AsyncOpenAI, model: str, prompts: list[str]) -> list[str]:
    """Four greedy answers of a batch of eight, two of them streamed; the other rows are drawn
    in four ways."""
    texts = [""] * len(prompts)

    async def row(place: int, asked: dict[str, Any]) -> None:
        text = await (streamed if place % 2 else whole)(sdk, asked)
        if place < len(texts):
            texts[place] = text

    async with anyio.create_task_group() as tasks:
        for place, prompt in enumerate(prompts):
            tasks.start_soon(row, place, request(model, prompt))
            fields = AMONG[place % len(AMONG)]
            tasks.start_soon(row, len(texts), request(model, prompt[::-1], **fields))
    return texts


@pytest.fixture
def loaded(service: Service, text_model: str) -> str:
    service.mlxctl("load", text_model)
    return text_model


def rows_of(count: int, tier: tuple[pytest.MarkDecorator, ...] = ()) -> Any:
    return pytest.param(PROMPTS[:count], id=f"{count} prompts", marks=tier)


@pytest.mark.anyio
@pytest.mark.timeout(900)
@pytest.mark.parametrize("prompts", [rows_of(8), rows_of(50, (pytest.mark.slow,))])
async def test_every_way_to_a_greedy_answer_gives_the_same_text(
    service: Service, loaded: str, prompts: list[str]
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=600
    ) as sdk:
        with greedy(model_path("smollm2-135m-f32"), prompts) as library:
            assert library.stdout is not None
            beside: list[str] = []
            alone = [await streamed(sdk, request(loaded, prompt)) for prompt in prompts]
            again = [await whole(sdk, request(loaded, prompt)) for prompt in prompts[::4]]
            for first in range(0, len(prompts), 4):
                beside += await batch(sdk, loaded, prompts[first : first + 4])
            said = await anyio.to_thread.run_sync(library.stdout.read)
    references = [Reference([tuple(step) for step in steps]) for steps in json.loads(said)]
    assert again == alone[::4], "streamed or not"
    for reference, text, other in zip(references, alone, beside, strict=True):
        check(reference, text, "alone")
        check(reference, other, "in a batch")
    assert sum(len(reference.steps) for reference in references) > len(prompts) * 4
