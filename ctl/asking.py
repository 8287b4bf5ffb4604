"""Reading what the daemon and its log know of a model, for ``mlxctl why``."""

import difflib
from collections.abc import Sequence
from typing import Any

import msgspec

from ctl.blocks import Block, Line, Page
from ctl.follow import check_end
from ctl.naming import looks_like_folder, of_folder
from ctl.story import Story
from ctl.why import Explainer, Explanation
from daemon.wire import control as c
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.records import read_record


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One model's explanation and what it rests on."""

    story: Story
    resident: c.ResidentModel | None
    explanation: Explanation

    def shape(self) -> dict[str, Any]:
        """Its part of the ``--json`` shape."""
        return {
            "model": self.story.name,
            "state": self.resident.state if self.resident else None,
            "headline": self.explanation.headline,
            "sentences": self.explanation.sentences(),
            "resident": msgspec.to_builtins(self.resident),
            "records": [
                {"seq": t.seq, "at_ms": t.at_ms, "cause": t.cause, "event": t.event}
                for t in self.story.records()
            ],
        }


class WhyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for whatever was named; an alias has several models."""

    asked: str
    models: tuple[ModelAnswer, ...]

    def shape(self) -> dict[str, Any]:
        """The documented ``--json`` shape."""
        return {"v": 1, "asked": self.asked, "models": [model.shape() for model in self.models]}

    def page(self) -> Page:
        """For people."""
        blocks: list[Block] = []
        names = [model.story.name for model in self.models]
        if len(names) > 1:
            blocks += [Line(f"{self.asked} stands for {', then '.join(names)}."), Line()]
        for at, model in enumerate(self.models):
            blocks += [Line()] if at else []
            blocks += model.explanation.page()
        return tuple(blocks)


async def explain(control: Control, asked: str) -> WhyAnswer:
    """Read the log once and explain every model that ``asked`` stands for.

    Raises:
        MlxdError: ``not_found`` if neither the log nor the disk knows it; ``lagged`` if
            the log came faster than it could be read.
    """
    known = (await control.models()).models
    by_name = {model.name: model for model in known}
    names = _names(asked, known)
    stories = [Story(name, by_name[name].path if name in by_name else None) for name in names]
    status = await _read_log(control, stories)
    answers = tuple(_answer(story, by_name.get(story.name), status) for story in stories)
    if not any(a.story.seen or a.resident or a.story.name in by_name for a in answers):
        raise _unknown(asked, known)
    return WhyAnswer(asked=asked, models=answers)


def _names(asked: str, known: tuple[c.KnownModel, ...]) -> tuple[str, ...]:
    """The models that ``asked`` stands for: a name, a folder, or an alias of several."""
    name = asked
    if looks_like_folder(asked):
        found = of_folder(asked, known)
        if found is None:
            raise _unknown(asked, known)
        name = found.name
    targets = next((model.targets for model in known if model.name == name), ())
    return targets or (name,)


async def _read_log(control: Control, stories: Sequence[Story]) -> c.StatusView:
    """Tell all of the log to the stories; the pool as it was at its end."""
    status: c.StatusView | None = None
    async with control.watch(0, follow=False) as answers:
        async for answer in answers:
            if isinstance(answer, c.LogRecord):
                record = read_record(answer.line)
                for story in stories:
                    story.take(record)
            elif isinstance(answer, c.WatchStarted):
                status = answer.status
            else:
                check_end(answer)
    if status is None:
        raise MlxdError(Code.INTERNAL, "the watch began without the status")
    return status


def _answer(story: Story, known: c.KnownModel | None, status: c.StatusView) -> ModelAnswer:
    resident = next((m for m in status.models if m.name == story.name), None)
    if resident is None and known is not None and known.path:
        resident = next((m for m in status.models if m.path == known.path), None)
    explanation = Explainer(story, resident, known, status).explain()
    return ModelAnswer(story=story, resident=resident, explanation=explanation)


def _unknown(asked: str, known: tuple[c.KnownModel, ...]) -> MlxdError:
    near = difflib.get_close_matches(asked, [model.name for model in known], 1)
    guess = f"did you mean {near[0]}? " if near else ""
    return MlxdError(
        Code.NOT_FOUND,
        f"neither the event log nor the disk knows a model '{asked}'",
        hint=f"{guess}mlxctl models lists what there is",
        field="model",
    )
