"""``/v1/models`` and ``/healthz``: what the daemon says, in the words of HTTP clients. Pure."""

from typing import Any

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault, MlxdError


def model_list(known: c.ModelsView) -> dict[str, Any]:
    """OpenAI's list of models: those that could serve a request."""
    return {
        "object": "list",
        "data": [model_object(model) for model in known.models if model.problem is None],
    }


def find_model(known: c.ModelsView, name: str) -> c.KnownModel:
    """The model of that very name.

    Raises:
        MlxdError: ``not_found`` with the field ``model``.
    """
    for model in known.models:
        if model.name == name:
            return model
    hint = "see which there are: mlxctl models, or GET /v1/models"
    raise MlxdError(
        Code.NOT_FOUND, f"the model {name!r} is not known; {hint}", hint=hint, field="model"
    )


def model_object(model: c.KnownModel) -> dict[str, Any]:
    """OpenAI's model object, and what else is known from the model's files."""
    shown: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": model.created_at_ms // 1000,
        "owned_by": "mlxd",
        "kind": model.kind,
        "capabilities": list(model.capabilities),
        "context_length": model.context_tokens,
        "weights_bytes": model.weights_bytes,
        "source": model.source,
        "state": model.state or "cold",
    }
    if model.problem is not None:
        shown["problem"] = model.problem
    if model.targets:
        shown["targets"] = list(model.targets)
    return shown


def health(status: c.StatusView) -> tuple[bool, dict[str, Any]]:
    """Whether a lease could be granted, and the pool in a few words."""
    models = [
        {"id": model.name, "state": model.state, "running": model.running}
        for model in status.models
    ]
    shown: dict[str, Any] = {
        "status": _word(status),
        "version": status.version,
        "models": models,
        "queued": len(status.queue),
        "warnings": list(status.warnings),
    }
    return not (status.read_only or status.stopping), shown


def _word(status: c.StatusView) -> str:
    if status.stopping:
        return "stopping"
    return "read_only" if status.read_only else "ok"


def unhealthy(fault: Fault) -> dict[str, Any]:
    """Why the daemon could not be asked."""
    return {"status": fault.code.value, "message": fault.message}
