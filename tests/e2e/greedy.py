"""Greedy text of the raw library, in a process of its own: ``python -m tests.e2e.greedy FOLDER``.

Prompts come as a JSON list on standard input; what comes out is a JSON list of answers. The
worker's fast BLAS has to be in the environment, so that both compute the same numbers.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm import load, stream_generate


def greedy(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> list[tuple[str, float]]:
    """Each token's text, and by how much its log probability leads the second best's."""
    talk = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(talk, add_generation_prompt=True)
    steps: list[tuple[str, float]] = []
    for step in stream_generate(model, tokenizer, tokens, max_tokens=max_tokens):
        second, best = (float(value) for value in mx.sort(step.logprobs)[-2:])
        steps.append((step.text, best - second))
    return steps


def main() -> None:
    asked = json.load(sys.stdin)
    model, tokenizer = load(str(Path(sys.argv[1])))[:2]
    json.dump(
        [greedy(model, tokenizer, p, asked["max_tokens"]) for p in asked["prompts"]], sys.stdout
    )


if __name__ == "__main__":
    main()
