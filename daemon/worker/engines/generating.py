"""What text and vision engines share: one model, its rows, and the memory they hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.wire.data import Begin, CountTokens, Generate, Usage, WorkRequest
from daemon.worker.engines.base import (
    Emission,
    Loaded,
    Progress,
    leave_memory_unwired,
    limit_cache,
    not_served,
    resident_bytes,
)
from daemon.worker.engines.folder import read_config
from daemon.worker.engines.rows import Allowance, Decoder, Row, Rows
from daemon.worker.engines.weights import free_memory, held_bytes, naming_failures


class Generator:
    """A loaded model that turns requests into rows and rows into tokens."""

    def prepare(self, request: Generate) -> Row:
        """A request as a row, completely checked."""
        raise NotImplementedError

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:  # noqa: ARG002
        """See :meth:`~daemon.worker.engines.base.Engine.ahead`."""
        return None

    def count(self, request: CountTokens) -> int:
        """Prompt tokens of a conversation, as :meth:`prepare` would have them."""
        raise NotImplementedError

    def make_decoder(self) -> Decoder:
        """An empty batch."""
        raise NotImplementedError

    def rest(self) -> None:
        """All rows have ended: a moment for what later requests may need."""


class GeneratingEngine:
    """An :class:`~daemon.worker.engines.base.Engine` whose requests are rows.

    Subclasses give :meth:`open_model`.
    """

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._generator: Generator | None = None
        self._host_bytes = 0

    def open_model(
        self, begin: Begin, config: dict[str, Any], context_tokens: int, progress: Progress
    ) -> Generator:
        """Read the model in ``begin.path``, whose config.json is ``config``."""
        raise NotImplementedError

    def load(self, begin: Begin, progress: Progress) -> Loaded:
        folder = Path(begin.path)
        leave_memory_unwired()
        limit_cache(begin.cache_bytes_max)
        self._host_bytes = resident_bytes()
        config = read_config(folder, allow_code=begin.allow_code)
        # A request whose row alone passed the allowance could never run.
        context_tokens = min(begin.context_tokens, begin.kv_tokens)
        with naming_failures(folder):
            generator = self.open_model(begin, config, context_tokens, progress)
            self._generator = generator
            allowance = Allowance(begin.kv_tokens, max(1, begin.rows_max), begin.kv_bytes)
            self._rows = Rows(generator.prepare, generator.make_decoder, allowance)
        return Loaded(context_tokens)

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        assert self._generator is not None, "the engine is used before it is loaded"
        return self._generator.ahead(request)

    def submit(self, request_id: int, request: WorkRequest) -> int:
        if not isinstance(request, Generate):
            raise not_served(request, "generates text")
        return self._open.submit(request_id, request)

    def count(self, request: CountTokens) -> int:
        assert self._generator is not None, "the engine is used before it is loaded"
        return self._generator.count(request)

    def step(self) -> list[Emission]:
        emissions = self._open.step()
        if not self._open.busy and self._generator is not None:
            self._generator.rest()
        return emissions

    def cancel(self, request_id: int) -> Usage | None:
        return self._open.cancel(request_id)

    @property
    def busy(self) -> bool:
        return self._rows is not None and self._rows.busy

    def memory_bytes(self) -> int:
        return self._host_bytes + held_bytes()

    def trim(self) -> None:
        self._open.trim()
        free_memory()

    def put_away(self) -> bool:
        return self._open.put_away()

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
        self._rows = self._generator = None
        free_memory()

    @property
    def _open(self) -> Rows:
        assert self._rows is not None, "the engine is used before it is loaded"
        return self._rows
