"""Embedding models, on mlx_vlm's encoders.

What follows the encoder is read from the files of sentence-transformers: how tokens are
pooled (``1_Pooling``), whether vectors are normalised (``modules.json``), how long a text
may be (``sentence_bert_config.json``) and what is put before it (prompts).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
import numpy as np
from mlx_vlm.embedding_loader import load_embedding_model
from mlx_vlm.models.pooling import pool_by_config
from tokenizers import Tokenizer

from daemon.wire.data import Begin, Embed, Embeddings, WorkRequest
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.conversation import invalid, vocabulary
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.jobs import Job, JobEngine, JobModel
from daemon.worker.engines.weights import read_weights

BATCH_TOKENS: Final = 4096
"""One piece of work: rows times the longest of them, unless one text alone is longer."""

FRAME_BYTES: Final = 1 << 20
INPUTS_MAX: Final = 2048
"""As OpenAI's API bounds it."""


class Recipe(msgspec.Struct, frozen=True):
    """What the model's files say beside the weights.

    Attributes:
        tokens_max: Longer texts are cut.
        pooling: As ``1_Pooling/config.json``; None leaves it to the library's model.
        normalize: Whether vectors have length 1.
        lower: Whether texts are put into lower case first.
        prefix: Stands before every text.
    """

    tokens_max: int
    pooling: dict[str, Any] | None
    normalize: bool
    lower: bool
    prefix: str


def read_recipe(folder: Path, context_tokens: int) -> Recipe:
    """The recipe of the model in ``folder``.

    Raises:
        LoadRefused: ``incompatible``, for a step that is not known here.
    """
    transformer = read_json(folder / "sentence_bert_config.json") or {}
    overall = read_json(folder / "config_sentence_transformers.json") or {}
    tokenizer = read_json(folder / "tokenizer_config.json") or {}
    limits = (transformer.get("max_seq_length"), tokenizer.get("model_max_length"))
    known = [int(n) for n in limits if isinstance(n, int | float) and n > 0]
    modules = _modules(folder)
    name = overall.get("default_prompt_name")
    return Recipe(
        tokens_max=min([context_tokens, *known]),
        pooling=read_json(folder / "1_Pooling" / "config.json"),
        # A folder without the list of modules is used as the library uses it: normalised.
        normalize=not modules or "Normalize" in modules,
        lower=transformer.get("do_lower_case") is True,
        prefix=str((overall.get("prompts") or {}).get(name, "")) if name else "",
    )


def _modules(folder: Path) -> list[str]:
    """The names of the steps in ``modules.json``; empty without that file."""
    path = folder / "modules.json"
    try:
        listed = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise LoadRefused("incompatible", f"{path} cannot be read: {error}") from error
    names = [str(module.get("type", "")).rpartition(".")[2] for module in listed]
    for name in names:
        if name not in {"Transformer", "Pooling", "Normalize", "Dense"}:
            raise LoadRefused("incompatible", f'{path} has the step "{name}", which is not known')
    return names


class EmbeddingsEngine(JobEngine):
    """One encoder."""

    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        folder = Path(begin.path)
        recipe = read_recipe(folder, begin.context_tokens)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(recipe.tokens_max)
        model = load_embedding_model(folder, lazy=True)
        if recipe.pooling is not None:
            model.pooling_config = recipe.pooling
        read_weights(model, progress)
        return _Encoder(model, tokenizer, recipe, begin.name, config)


class _Encoder(JobModel):
    does = "computes embeddings"

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        recipe: Recipe,
        name: str,
        config: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._name = name
        self._vocab_size = vocabulary(config, tokenizer.get_vocab_size())
        self._padding = int(config.get("pad_token_id") or 0)
        self._width = self._vectors([[0]]).shape[1]

    def accept(self, request: WorkRequest) -> Job | None:
        if not isinstance(request, Embed):
            return None
        self._check(request)
        rows = [self._tokens(i, one) for i, one in enumerate(request.inputs)]
        return Job(sum(map(len, rows)), lambda _job: self._run(rows, request.dimensions))

    def _check(self, request: Embed) -> None:
        if not 1 <= len(request.inputs) <= INPUTS_MAX:
            raise invalid(f"give 1 to {INPUTS_MAX} inputs, not {len(request.inputs)}", "inputs")
        if request.dimensions is not None and not 1 <= request.dimensions <= self._width:
            raise invalid(
                f'"{self._name}" has vectors of {self._width} numbers; ask for 1 to '
                f"{self._width}, not {request.dimensions}",
                "dimensions",
            )

    def _tokens(self, i: int, one: str | tuple[int, ...]) -> list[int]:
        if not one:
            raise invalid("an input is empty; leave it out", f"inputs[{i}]")
        if isinstance(one, str):
            text = self._recipe.prefix + (one.lower() if self._recipe.lower else one)
            return list(self._tokenizer.encode(text).ids)
        for token in one:
            if not 0 <= token < self._vocab_size:
                raise invalid(
                    f"token {token} is not in the vocabulary of {self._vocab_size} tokens",
                    f"inputs[{i}]",
                )
        if len(one) > self._recipe.tokens_max:
            raise invalid(
                f"{len(one)} tokens are more than the {self._recipe.tokens_max} that the model "
                "takes; send fewer, or send text, which is cut",
                f"inputs[{i}]",
            )
        return list(one)

    def _run(self, rows: list[list[int]], dimensions: int | None) -> Iterator[Embeddings | None]:
        """Vectors of all rows, in order; computed by length, so that little is padding."""
        done: dict[int, bytes] = {}
        sent = 0
        for batch in _batches(rows):
            vectors = self._vectors([rows[i] for i in batch])
            if dimensions is not None and dimensions < self._width:
                vectors = _unit(vectors[:, :dimensions])
            done.update(zip(batch, (vector.tobytes() for vector in vectors), strict=True))
            ready: list[bytes] = []
            while sent + len(ready) in done and sum(map(len, ready)) < FRAME_BYTES // 2:
                ready.append(done.pop(sent + len(ready)))
            sent += len(ready)
            yield Embeddings(vectors=tuple(ready)) if ready else None
        while sent < len(rows):
            count = min(len(rows) - sent, max(1, FRAME_BYTES // (8 * self._width)))
            yield Embeddings(vectors=tuple(done.pop(i) for i in range(sent, sent + count)))
            sent += count

    def _vectors(self, rows: Sequence[Sequence[int]]) -> Any:
        """``[rows, width]`` of little-endian float32."""
        longest = max(map(len, rows))
        ids = mx.array([[*row, *[self._padding] * (longest - len(row))] for row in rows])
        mask = mx.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        output = self._model(ids, mask)
        vectors = output.text_embeds
        if not self._recipe.normalize:
            pooling = self._recipe.pooling or {"pooling_mode": "mean"}
            vectors = pool_by_config(output.last_hidden_state, mask, pooling)
        return np.array(vectors.astype(mx.float32)).astype("<f4")


def _unit(vectors: Any) -> Any:
    """Each vector at length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype("<f4")


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which rows are computed together: neighbours in length, within BATCH_TOKENS."""
    batches: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if not batches or (len(batches[-1]) + 1) * len(rows[i]) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches
