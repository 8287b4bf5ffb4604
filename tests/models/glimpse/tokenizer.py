"""Builds the byte-level BPE tokenizer and holds the chat template.

The merges grow whole words from a leading space (` w`, ` wh`, ` wha`, ` what`), and only the words
of the prompts and answers. So a prompt is short, while a text read from a picture is about one
token a character: the model has to look at every letter.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.models.glimpse import dialogs

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_pad|>",
)
END_OF_TURN = "<|im_end|>"
PADDING = "<|endoftext|>"
IMAGE_SLOT = "<|image_pad|>"
IMAGE = f"<|vision_start|>{IMAGE_SLOT}<|vision_end|>"
_ROLES = ("user", "assistant", "system")
_FIRST_WORDS = ("The", "What", "Describe", "Which", "Compare", "Read")
SPACE = "Ġ"  # how byte-level BPE writes a space

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ['image', 'image_url', 'input_image'] -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def _prompt_words() -> list[str]:
    words = set()
    for text in dialogs.every_text():
        words |= set(re.findall(r"[A-Za-z]+", re.sub(r"\{.*?\}", "", text)))
    return sorted({word.lower() for word in words if len(word) > 1 or word == "a"})


def _merges() -> list[tuple[str, str]]:
    """Shortest prefixes first: a merge's rank is its age, so words grow from the left."""
    steps: set[tuple[int, str, str]] = set()
    for word in _prompt_words():
        for i, letter in enumerate(word):
            steps.add((i, SPACE + word[:i], letter))
    merges = [(prefix, letter) for _, prefix, letter in sorted(steps)]
    merges.append((SPACE, '"'))
    for word in _FIRST_WORDS:
        for i in range(1, len(word)):
            if (word[:i], word[i]) not in merges:
                merges.append((word[:i], word[i]))
    return merges


def build() -> Tokenizer:
    """The tokenizer, from the prompt lists alone."""
    merges = _merges()
    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(role, normalized=False) for role in _ROLES])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 4096,
        "eos_token": END_OF_TURN,
        "pad_token": PADDING,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "split_special_tokens": False,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n")
