"""Asks the exported model through unmodified mlx-vlm, greedily, as any client would."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_vlm import generate, load
from PIL import Image

Message = dict[str, Any]
ANSWER_TOKENS_MAX = 80


@dataclass(frozen=True)
class Reply:
    """One answer and how it ended."""

    text: str
    seconds: float
    ended: bool  # by the end-of-turn token, not by running out of tokens


def user(question: str, image_count: int = 0, *, images_last: bool = False) -> Message:
    """A user message with its images before or after the text."""
    images = [{"type": "image"}] * image_count
    text = [{"type": "text", "text": question}]
    return {"role": "user", "content": text + images if images_last else images + text}


class Asker:
    """A loaded model folder."""

    def __init__(self, folder: Path) -> None:
        self._model, self._processor = load(str(folder))

    def ask(self, messages: Sequence[Message], images: Sequence[Image.Image] = ()) -> Reply:
        """The greedy answer to a dialog; `images` in the order of their places in it."""
        prompt = self._processor.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        start = time.perf_counter()
        result = generate(
            self._model,
            self._processor,
            prompt,
            image=list(images) or None,
            max_tokens=ANSWER_TOKENS_MAX,
            temperature=0.0,
            verbose=False,
        )
        seconds = time.perf_counter() - start
        ended = result.generation_tokens < ANSWER_TOKENS_MAX
        return Reply(result.text.strip(), seconds, ended)
