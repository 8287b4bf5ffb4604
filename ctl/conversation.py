"""A conversation at the terminal: what was said, how to answer, and the `/` commands. Pure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.bounds import out_of_bounds
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import checked_utf8

COMMANDS: Final[dict[str, str]] = {
    "/image FILE": "show the model a picture with the next message; may be repeated",
    "/system [TEXT]": "say what the model should be or do; without TEXT: nothing",
    "/set [NAME VALUE]": "change how it answers; without a name: show what is set",
    "/clear": "forget the conversation, keep the settings",
    "/save FILE": "write the conversation: .md as text, anything else as JSON",
    "/stats": "tokens, speed and times of the last answer",
    "/help": "this list",
    "/bye": "leave; Ctrl-D does, too",
}
SETTINGS: Final[dict[str, Callable[[str], Any]]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "max_tokens": int,
}
_SAMPLING: Final = frozenset(d.Sampling.__struct_fields__)


class Conversation:
    """What the model is told, turn by turn.

    Attributes:
        images: Pictures that go with the next message.
        stop: Texts to stop at.

    Whatever takes a text raises ``invalid_request`` if it is not UTF-8.
    """

    def __init__(
        self,
        *,
        system: str | None = None,
        images: tuple[d.ImagePart, ...] = (),
        settings: dict[str, Any] | None = None,
        stop: tuple[str, ...] = (),
    ) -> None:
        self.images = images
        self.stop = tuple(map(checked_utf8, stop))
        self._system = None if system is None else checked_utf8(system)
        self._settings = {name: v for name, v in (settings or {}).items() if v is not None}
        self._turns: list[d.ChatMessage] = []

    def ask(self, text: str) -> None:
        """Add what the user says, with the pictures that wait."""
        parts: tuple[d.ContentPart, ...] = (*self.images, d.TextPart(text=checked_utf8(text)))
        self._turns.append(d.ChatMessage(role="user", parts=parts))
        self.images = ()

    def answer(self, text: str) -> None:
        """Add what the model said."""
        self._turns.append(d.ChatMessage(role="assistant", parts=(d.TextPart(text=text),)))

    def take_back(self) -> None:
        """The last message was never answered: as if it had not been said; its pictures wait."""
        last = self._turns.pop()
        self.images = tuple(part for part in last.parts if isinstance(part, d.ImagePart))

    def clear(self) -> None:
        """Forget what was said."""
        self._turns.clear()
        self.images = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What the model must be able to do."""
        seen = any(isinstance(part, d.ImagePart) for turn in self._turns for part in turn.parts)
        return ("vision",) if seen or self.images else ("text",)

    def request(self) -> d.Generate:
        """Everything so far, as one request without its lease."""
        sampling = {name: v for name, v in self._settings.items() if name in _SAMPLING}
        return d.Generate(
            lease="",
            messages=self._messages(),
            sampling=d.Sampling(**sampling),
            max_tokens=self._settings.get("max_tokens"),
            stop=self.stop,
        )

    def set_system(self, text: str) -> str:
        """Say what the model should be; what is said about it."""
        self._system = checked_utf8(text) or None
        return f"system: {text}" if text else "no system message"

    def set(self, name: str, value: str) -> str:
        """Change one setting; "default" takes it back.

        Raises:
            MlxdError: ``invalid_request``: no such setting, or no such value.
        """
        if name not in SETTINGS:
            raise _bad(f"there is no setting '{name}'; there are {', '.join(SETTINGS)}")
        if value == "default":
            self._settings.pop(name, None)
            return f"{name}: as the model has it"
        try:
            found = SETTINGS[name](value)
        except ValueError as error:
            kind = "a whole number" if SETTINGS[name] is int else "a number"
            raise _bad(f"{name} is {kind}, or default; not '{value}'") from error
        if wrong := out_of_bounds(name, found):
            raise _bad(f"{name}: {wrong}")
        self._settings[name] = found
        return f"{name}: {found}"

    def settings_lines(self) -> tuple[str, ...]:
        """What is set, a line each, and what else can be."""
        lines = tuple(f"{name}: {value}" for name, value in self._settings.items())
        system = (f"system: {self._system}",) if self._system else ()
        rest = ", ".join(name for name in SETTINGS if name not in self._settings)
        return (*system, *lines, f"as the model has it: {rest}")

    def saved(self, name: str) -> str:
        """The conversation as a file of this name should hold it."""
        if name.lower().endswith((".md", ".markdown")):
            return "\n".join(f"**{turn.role}**\n\n{_text(turn)}\n" for turn in self._messages())
        messages = [{"role": turn.role, "content": _content(turn)} for turn in self._messages()]
        shape = {"v": 1, "messages": messages, "settings": self._settings}
        return json.dumps(shape, ensure_ascii=False, indent=2) + "\n"

    def _messages(self) -> tuple[d.ChatMessage, ...]:
        if self._system is None:
            return tuple(self._turns)
        system = d.ChatMessage(role="system", parts=(d.TextPart(text=self._system),))
        return (system, *self._turns)


def read_image(path: Path) -> d.ImagePart:
    """A picture from a file; the worker finds out whether it is one.

    Raises:
        MlxdError: ``invalid_request`` if it cannot be read.
    """
    try:
        return d.ImagePart(data=path.expanduser().read_bytes())
    except OSError as error:
        raise MlxdError(
            Code.INVALID_REQUEST, f"cannot read {path}: {error.strerror}", field="image"
        ) from error


def _bad(message: str) -> MlxdError:
    return MlxdError(Code.INVALID_REQUEST, message)


def _text(turn: d.ChatMessage) -> str:
    return "\n".join(
        part.text if isinstance(part, d.TextPart) else "(a picture)" for part in turn.parts
    )


def _content(turn: d.ChatMessage) -> str | list[dict[str, Any]]:
    """As OpenAI's chat endpoint takes it, so that a saved conversation can be sent again."""
    if all(isinstance(part, d.TextPart) for part in turn.parts):
        return _text(turn)
    return [_part(part) for part in turn.parts]


def _part(part: d.ContentPart) -> dict[str, Any]:
    if isinstance(part, d.TextPart):
        return {"type": "text", "text": part.text}
    data = msgspec.to_builtins(part.data)
    return {"type": "image_url", "image_url": {"url": f"data:{_mime(part.data)};base64,{data}"}}


def _mime(data: bytes) -> str:
    starts = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
    return "image/" + next(
        (kind for magic, kind in starts.items() if data.startswith(magic)), "png"
    )
