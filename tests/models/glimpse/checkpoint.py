"""Training checkpoints: the weights, and the tokens that their embedding rows stand for."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from tests.models.glimpse.tokenizer import IMAGE_SLOT
from tests.models.glimpse.twin import Glimpse

_EMBEDDINGS = "language_model.model.embed_tokens.weight"


def _tokens_in_order(tokenizer: Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda token: vocabulary[token])


def new_model(tokenizer: Tokenizer) -> Glimpse:
    """An untrained model for this tokenizer."""
    image_token = tokenizer.token_to_id(IMAGE_SLOT)
    assert image_token is not None
    return Glimpse(tokenizer.get_vocab_size(), image_token)


def save(model: Glimpse, tokenizer: Tokenizer, path: Path) -> None:
    """Write the weights, training-only heads included; never leaves half a file."""
    unfinished = path.with_suffix(".part")
    torch.save({"weights": model.state_dict(), "tokens": _tokens_in_order(tokenizer)}, unfinished)
    unfinished.replace(path)


def load_into(model: Glimpse, tokenizer: Tokenizer, path: Path) -> None:
    """Copy a checkpoint's weights into `model`, embedding rows by token.

    So a tokenizer that gained or lost words still starts from what was learned.
    """
    stored = torch.load(path, map_location="cpu")
    weights = stored["weights"]
    old_rows = {token: i for i, token in enumerate(stored["tokens"])}
    rows = model.language_model.model.embed_tokens.weight.detach().clone()
    for token, i in tokenizer.get_vocab().items():
        if token in old_rows:
            rows[i] = weights[_EMBEDDINGS][old_rows[token]]
    model.load_state_dict({**weights, _EMBEDDINGS: rows})


def compile_blocks(model: Glimpse) -> None:
    """Compile each block for any size: a step takes a fifth of the time."""
    # With and without a mask, with and without a batch of one: more variants than the default 8.
    torch._dynamo.config.recompile_limit = 64
    for block in [*model.vision_tower.blocks, *model.language_model.model.layers]:
        block.compile(dynamic=True)
