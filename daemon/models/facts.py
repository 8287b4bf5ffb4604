"""From a resolved name to the facts that the pool decides with."""

import os
import threading
from pathlib import Path
from typing import Final

from daemon.models.folder import fingerprint
from daemon.models.inspect import Inspection, inspect_folder
from daemon.models.resolve import Target
from daemon.models.safetensors import read_header
from daemon.pool.messages import Model
from daemon.wire.errors import Code, MlxdError
from daemon.wire.settings import Settings

INSPECTIONS_MAX: Final = 1024


class Inspections:
    """Inspections by folder, repeated only when the folder's files have changed.

    A folder found incompatible is remembered as such, with its error. Bounded: the oldest
    entry makes room for a new one. May be called from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, bool], tuple[str, Inspection | MlxdError]] = {}

    def inspect(self, path: str | Path, *, allow_code: bool = False) -> Inspection:
        """As :func:`daemon.models.inspect.inspect_folder`.

        Raises:
            MlxdError: The same, whether found now or remembered.
        """
        key = (os.path.realpath(path), allow_code)
        now = fingerprint(Path(key[0]))
        with self._lock:
            seen = self._entries.get(key)
        if seen is None or seen[0] != now or not now:
            seen = (now, _inspected(key[0], allow_code))
            with self._lock:
                self._entries.pop(key, None)
                while len(self._entries) >= INSPECTIONS_MAX:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = seen
        if isinstance(seen[1], MlxdError):
            raise MlxdError.of(seen[1].fault)
        return seen[1]


def describe(target: Target, settings: Settings, inspections: Inspections) -> Model:
    """What the pool needs to know of a model before it decides about it.

    ``kv_token_bytes`` is such that times the tokens that the pool reserves (``pool.kv_tokens``,
    or as many as all rows can hold if that is less) it is the most the cache can hold, windowed
    layers included. ``weights_bytes`` includes the adapter and the draft, whose cache is in
    ``kv_token_bytes``: it guesses for one row, which may be as long as all may be together.

    Raises:
        MlxdError: ``not_found`` or ``incompatible``, with the file in ``field``.
    """
    inspection = inspections.inspect(target.path, allow_code=target.allow_code)
    configured = settings.model(target.name)
    context_tokens = configured.context_tokens or inspection.context_tokens
    kv_tokens = min(settings.pool.kv_tokens, context_tokens * configured.concurrency)
    reserved_bytes = inspection.kv.reserved_bytes(kv_tokens, configured.concurrency)
    adapter_bytes, identity = 0, inspection.fingerprint
    if target.adapter is not None:
        adapter_bytes = _adapter_bytes(Path(target.adapter), inspection)
        identity += fingerprint(Path(target.adapter))
    draft = None if target.draft is None else _draft(target.draft, inspection, inspections)
    if draft is not None:
        reserved_bytes += draft.kv.reserved_bytes(kv_tokens, 1)
        identity += draft.fingerprint
    return Model(
        key=target.key,
        name=target.name,
        path=inspection.path,
        kind=inspection.kind,
        capabilities=inspection.capabilities,
        weights_bytes=inspection.weights_bytes
        + adapter_bytes
        + (draft.weights_bytes if draft else 0),
        kv_token_bytes=-(-reserved_bytes // kv_tokens),
        context_tokens=context_tokens,
        adapter=os.path.realpath(target.adapter) if target.adapter is not None else None,
        identity=identity,
        allow_code=target.allow_code,
        draft=None if draft is None else draft.path,
        draft_tokens=configured.draft_tokens,
    )


def _draft(folder: str, inspection: Inspection, inspections: Inspections) -> Inspection:
    """What is in the folder of the model that guesses for the one in ``inspection``."""
    draft = inspections.inspect(folder)
    for role, one in (("the model", inspection), ("its draft", draft)):
        if one.kind != "text":
            raise MlxdError(
                Code.INCOMPATIBLE,
                f"a draft guesses for text models and is one, and {role}, {one.path}, is for "
                f"{one.kind}; remove draft from its settings",
                field="draft",
            )
    return draft


def _inspected(path: str, allow_code: bool) -> Inspection | MlxdError:
    try:
        return inspect_folder(path, allow_code=allow_code)
    except MlxdError as error:
        return error


def _adapter_bytes(adapter: Path, inspection: Inspection) -> int:
    """Bytes of LoRA weights, as ``mlx_lm.lora`` writes them."""
    for name in ("adapter_config.json", "adapters.safetensors"):
        if not (adapter / name).is_file():
            raise MlxdError(
                Code.INCOMPATIBLE,
                f"{name} is missing in the adapter folder {adapter}; "
                "name a folder that mlx_lm.lora wrote",
                field=name,
            )
    if inspection.kind not in {"text", "vision"}:
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"adapters apply to text and vision models, and {inspection.path} is for "
            f"{inspection.kind}; remove adapter from its settings",
            field="adapter",
        )
    tensors = read_header(adapter / "adapters.safetensors")
    return sum(tensor.size_bytes for tensor in tensors.values())
