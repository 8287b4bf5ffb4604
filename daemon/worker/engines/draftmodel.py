"""A draft model: a smaller one that guesses what the model will say.

Whatever it guesses, the model has the last word; a draft that does not fit costs time and
changes no answer. What must hold of it is checked when both are loaded.
"""

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.utils import load_model, load_tokenizer

from daemon.worker.engines.base import LoadRefused
from daemon.worker.engines.conversation import vocabulary
from daemon.worker.engines.folder import read_config
from daemon.worker.engines.prefix import common_tokens
from daemon.worker.engines.weights import naming_failures, weights_bytes

_REMEDY = "choose another draft, or remove draft from the model's settings"


class DraftModel(msgspec.Struct, frozen=True):
    """A loaded draft.

    Attributes:
        width: How many logits it gives.
        context_tokens: As many tokens as it can read; None for no bound.
    """

    model: Any
    width: int
    context_tokens: int | None = None


def open_draft(folder: Path, model_folder: Path, tokenizer: Any) -> DraftModel:
    """Load a draft, its weights lazily; Python files in its folder are never run.

    Args:
        model_folder, tokenizer: Of the model that it guesses for.

    Raises:
        LoadRefused: It cannot be loaded, or cannot guess for that model.
    """
    with naming_failures(folder):
        read_config(folder)
        model, config = load_model(folder, lazy=True)
        check_cache(model, folder)
        _check_tokens(folder, model_folder, tokenizer)
        return DraftModel(model, vocabulary(config, len(tokenizer)), _context_tokens(config))


def _context_tokens(config: Mapping[str, Any]) -> int | None:
    stated = [config.get(name) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return min((one for one in stated if isinstance(one, int) and one > 0), default=None)


def check_cache(model: Any, folder: Path) -> None:
    """Whether tokens can be taken back out of this model's cache.

    Raises:
        LoadRefused: They cannot, as where layers see a window or keep a state.
    """
    cache = make_prompt_cache(model)
    other = {type(entry).__name__ for entry in cache if type(entry) is not KVCache}
    if other or len(cache) != len(model.layers):
        names = ", ".join(sorted(other)) or "not one a layer"
        raise LoadRefused(
            "incompatible",
            f"{folder / 'config.json'}: a draft is of no use with this architecture: what was "
            f"guessed wrong cannot be taken back out of its cache ({names}); {_REMEDY}",
        )


def _check_tokens(folder: Path, model_folder: Path, tokenizer: Any) -> None:
    """Whether both models mean the same by every id that both have."""
    one, other = (place / "tokenizer.json" for place in (folder, model_folder))
    if one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False):
        return
    own, theirs = _texts(load_tokenizer(folder)), _texts(tokenizer)
    for token, text in own.items():
        if theirs.get(token, text) != text:
            raise LoadRefused(
                "incompatible",
                f"{folder}: this draft has other tokens than {model_folder} (number {token} is "
                f"{text!r}, not {theirs[token]!r}); {_REMEDY}",
            )


def _texts(tokenizer: Any) -> dict[int, str]:
    known: Mapping[str, int] = tokenizer.get_vocab()
    return {token: text for text, token in known.items()}


class Draft:
    """A draft model as mlx_lm calls one, with the cache of what it was told last.

    Args:
        width: How many logits the model gives that it guesses for. Of one family, larger
            models often have some more, to which no token belongs.
    """

    def __init__(self, draft: DraftModel, width: int) -> None:
        self._model = draft.model
        self._own_width = draft.width
        self._width = width
        self._context_tokens = draft.context_tokens
        self._told: list[int] = []
        self.cache: list[KVCache] = make_prompt_cache(draft.model)

    def __call__(self, tokens: mx.array, cache: list[KVCache]) -> mx.array:
        """Logits ``[1, tokens, width]`` for tokens ``[1, tokens]``."""
        if self._own_width < self._width:
            tokens = mx.minimum(tokens, self._own_width - 1)
        logits: mx.array = self._model(tokens, cache=cache)[..., : self._width]
        missing = self._width - logits.shape[-1]
        if missing > 0:
            logits = mx.pad(logits, [(0, 0), (0, 0), (0, missing)], constant_values=-mx.inf)
        return logits

    def reaches(self, tokens: int) -> bool:
        """Whether it can read so many tokens."""
        return self._context_tokens is None or tokens <= self._context_tokens

    @property
    def weights_bytes(self) -> int:
        """What its weights take."""
        return weights_bytes(self._model)

    @property
    def nbytes(self) -> int:
        """What its cache takes."""
        return sum(entry.nbytes for entry in self.cache)

    def follow(self, tokens: Sequence[int], tokens_max: int) -> tuple[int, int]:
        """Compute the cache of ``tokens``, as far as it is not there, by at most ``tokens_max``.

        Returns:
            How many tokens were computed, and how many are still to be.
        """
        known = common_tokens(self._told, tokens)
        if known < len(self._told):
            self._cut(known)
        chunk = list(tokens[known : known + tokens_max])
        if chunk:
            self(mx.array([chunk], mx.uint32), self.cache)
            mx.eval([entry.state for entry in self.cache])
            self._told += chunk
        return len(chunk), len(tokens) - known - len(chunk)

    def told(self, tokens: Sequence[int]) -> None:
        """Others have used the cache: what it holds is a beginning of ``tokens``."""
        self._told = list(tokens[: self.cache[0].offset])

    def forget(self) -> None:
        """Free the cache."""
        self._told = []
        self.cache = make_prompt_cache(self._model)

    def _cut(self, known: int) -> None:
        """Keep the first ``known`` tokens, and no memory for more."""
        old, told = self.cache, self._told[:known]
        self.forget()
        self._told = told
        if known:
            for entry, whole in zip(self.cache, old, strict=True):
                entry.keys = mx.contiguous(whole.keys[..., :known, :])
                entry.values = mx.contiguous(whole.values[..., :known, :])
                entry.offset = known
