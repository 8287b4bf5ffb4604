"""``mlxctl models`` for people: what is on disk, what it can do, whether it fits. Pure."""

from typing import Final

from ctl.blocks import Cell, Column, Line, Page, Style, Table
from daemon.wire import control as c
from daemon.wire.units import counted, format_bytes

NONE: Final = "-"
_IN_MEMORY: Final[dict[c.ModelState, tuple[str, Style]]] = {
    "loading": ("loading", "busy"),
    "idle": ("in memory", "good"),
    "busy": ("in use", "busy"),
    "draining": ("leaving", "warn"),
    "stopping": ("leaving", "warn"),
}
_FITS: Final[dict[c.Fit, tuple[str, Style]]] = {
    "now": ("now", "good"),
    "after_evicting": ("after evicting", "plain"),
    "after_waiting": ("after waiting", "warn"),
    "never": ("never", "bad"),
}
_ABLE: Final = {"tools": "tools", "thinking": "thinking", "structured": "json"}
"""What people choose a model by, beside its kind; the rest is in --json."""


def models_page(view: c.ModelsView) -> Page:
    """What could be loaded by name, and what stands in the way."""
    if not view.models:
        return (
            Line("No model was found. To get one: mlxctl pull REPO"),
            Line("To load one from a folder: mlxctl load ./folder", "dim"),
        )
    columns = (
        Column("NAME"),
        Column("KIND"),
        Column("SIZE", right=True),
        Column("QUANT", spare=2),
        Column("CONTEXT", right=True, spare=1),
        Column("CAN", spare=3),
        Column("FITS"),
    )
    notes = tuple(note for model in view.models if (note := _note(model)) is not None)
    rows = tuple(_row(model) for model in view.models)
    return Table(columns, rows), Line(), *notes, _total(view)


def _row(model: c.KnownModel) -> tuple[Cell, ...]:
    return (
        Cell(model.name, "title"),
        Cell(model.kind or NONE),
        Cell(format_bytes(model.weights_bytes) if model.weights_bytes else NONE),
        Cell(model.quantization or NONE),
        Cell(f"{model.context_tokens:,}" if model.context_tokens else NONE),
        Cell(" ".join(word for one, word in _ABLE.items() if one in model.capabilities) or NONE),
        _fit(model),
    )


def _fit(model: c.KnownModel) -> Cell:
    if model.state is not None:
        return Cell(*_IN_MEMORY[model.state])
    if model.problem:
        return Cell("cannot load", "bad")
    return Cell(*_FITS[model.fits]) if model.fits else Cell(NONE, "dim")


def _note(model: c.KnownModel) -> Line | None:
    """Under the table, where a sentence has room on any terminal."""
    if model.problem:
        return Line(f"{model.name}: {model.problem}", "bad")
    stands = f"stands for {', then '.join(model.targets)}" if model.targets else None
    facts = [fact for fact in (stands, model.fit_note) if fact]
    return Line(f"{model.name}: {'; '.join(facts)}", "dim") if facts else None


def _total(view: c.ModelsView) -> Line:
    """Each folder counts once, however many names it has."""
    sizes = {model.path: model.weights_bytes for model in view.models if model.path}
    whole = format_bytes(sum(sizes.values()))
    return Line(f"{counted(len(sizes), 'model')} on disk, {whole} of weights", "dim")
