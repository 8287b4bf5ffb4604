"""``mlxctl run MODEL`` without a prompt: a chat, line by line."""

import readline
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctl.answer import Answer, Outcome, ask, stats_line
from ctl.app import App
from ctl.blocks import Line
from ctl.connect import talk
from ctl.conversation import COMMANDS, SETTINGS, Conversation, read_image
from ctl.progress import shown_progress
from daemon.wire import control as c
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError

HISTORY_LINES: Final = 1000
PROMPT: Final = ">>> "
MORE: Final = "... "
FENCE: Final = '"""'


class Chat:
    """One chat with one model.

    Args:
        deadline_ms: The longest wait for the model, each time.
        read: Gives a line that the user typed, or raises EOFError.
    """

    def __init__(
        self,
        app: App,
        model: str,
        conversation: Conversation,
        deadline_ms: int,
        read: Callable[[str], str] = input,
    ) -> None:
        self._app = app
        self._model = model
        self._talk = conversation
        self._deadline_ms = deadline_ms
        self._read = read
        self._last: Outcome | None = None

    def run(self) -> None:
        """Until the user leaves.

        Raises:
            MlxdError: The model cannot be had at all.
        """
        granted = self._warm_up()
        sees = " and pictures" if "vision" in granted.capabilities else ""
        self._note(f"{granted.model} reads text{sees}, {granted.context_tokens:,} tokens. /help")
        leaving = False
        while True:
            try:
                text = self._message()
            except EOFError:
                self._app.write("\n")
                return
            except KeyboardInterrupt:
                if leaving:
                    self._app.write("\n")
                    return
                leaving = True
                self._note("\nCtrl-C again, Ctrl-D or /bye leaves")
                continue
            leaving = False
            try:
                if not self._take(text):
                    return
            except MlxdError as error:
                self._app.fail(error.fault)

    def _warm_up(self) -> c.Granted:
        """The model in memory before the first question, or the reason why not."""
        with shown_progress(self._app) as on_progress:

            async def lease(control: Control) -> c.Granted:
                async with control.lease(
                    self._model,
                    needs=self._talk.needs,
                    deadline_ms=self._deadline_ms,
                    on_progress=on_progress,
                ) as granted:
                    return granted

            return talk(self._app, lease)

    def _message(self) -> str:
        """One message; three quotes begin and end one of several lines."""
        line = self._read(PROMPT)
        if not line.lstrip().startswith(FENCE):
            return line.strip()
        lines = [line.lstrip()[len(FENCE) :]]
        while not lines[-1].rstrip().endswith(FENCE):
            lines.append(self._read(MORE))
        lines[-1] = lines[-1].rstrip()[: -len(FENCE)]
        return "\n".join(lines).strip("\n")

    def _take(self, text: str) -> bool:
        """Do what a message says; False leaves."""
        word, _, rest = text.partition(" ")
        if text.startswith("/") and "\n" not in text:
            return self._command(word, rest.strip())
        if text.strip():
            self._answer(text)
        return True

    def _command(self, word: str, rest: str) -> bool:
        match word:
            case "/bye" | "/exit" | "/quit":
                return False
            case "/help" | "/?":
                width = max(map(len, COMMANDS))
                self._say(*(f"{name:{width}}  {what}" for name, what in COMMANDS.items()))
                self._say(
                    f"{FENCE} begins and ends a message of several lines; Ctrl-C stops an answer"
                )
            case "/image":
                self._add_image(rest)
            case "/system":
                self._say(self._talk.set_system(rest))
            case "/set":
                name, _, value = rest.partition(" ")
                lines = self._talk.settings_lines()
                self._say(*((self._talk.set(name, value.strip()),) if rest else lines))
            case "/clear":
                self._talk.clear()
                self._say("forgotten")
            case "/save":
                self._save(rest)
            case "/stats":
                self._say(stats_line(self._last) if self._last else "nothing has been answered yet")
            case _:
                self._say(f"there is no {word}; /help lists what there is")
        return True

    def _add_image(self, name: str) -> None:
        if not name:
            raise MlxdError(Code.INVALID_REQUEST, "name a file: /image photo.png")
        # As shells and file managers write names that are dropped into a terminal.
        path = Path(name.strip("'\"").replace("\\ ", " "))
        self._talk.images = (*self._talk.images, read_image(path))
        self._say(f"{path.name} goes with your next message")

    def _save(self, name: str) -> None:
        if not name:
            raise MlxdError(Code.INVALID_REQUEST, "name a file: /save chat.json")
        path = Path(name).expanduser()
        try:
            path.write_text(self._talk.saved(name), encoding="utf-8")
        except OSError as error:
            raise MlxdError(
                Code.INVALID_REQUEST, f"cannot write {path}: {error.strerror}"
            ) from error
        self._say(f"saved to {path}")

    def _answer(self, text: str) -> None:
        self._talk.ask(text)
        answer = Answer()
        try:
            self._last = ask(
                self._app,
                self._model,
                self._talk.request(),
                needs=self._talk.needs,
                deadline_ms=self._deadline_ms,
                answer=answer,
            )
        except KeyboardInterrupt:
            self._note("\nstopped" if not answer.text else "stopped")
        finally:
            if answer.text:
                self._talk.answer(answer.text)
            else:
                self._talk.take_back()

    def _say(self, *lines: str) -> None:
        self._app.show(*map(Line, lines))

    def _note(self, text: str) -> None:
        self._app.show(*(Line(line, "dim") for line in text.split("\n")))


def set_up_line_editing(history: Path) -> Callable[[], None]:
    """Arrow keys, a history that lasts, and Tab for commands and files.

    Returns:
        What writes the history, to be called at the end.
    """
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(" ")
    readline.set_completer(_complete)
    # macOS links libedit, which is asked for in its own words.
    edit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if edit else "tab: complete")
    with suppress(OSError):
        readline.read_history_file(history)

    def keep() -> None:
        with suppress(OSError):  # a history that cannot be kept is no reason to fail
            history.touch(mode=0o600)
            readline.write_history_file(history)

    return keep


def _complete(text: str, state: int) -> str | None:
    line = readline.get_line_buffer()
    if line.startswith(("/image ", "/save ")):
        folder = Path(text).expanduser()
        parent = folder if text.endswith("/") else folder.parent
        found = [str(path) + "/" * path.is_dir() for path in sorted(parent.glob("*"))]
        options = [one for one in found if one.startswith(str(Path(text).expanduser()))]
    elif line.startswith("/set "):
        options = [f"{name} " for name in SETTINGS if name.startswith(text)]
    else:
        options = [f"{one.split()[0]} " for one in COMMANDS if one.startswith(text or "/")]
    return options[state] if state < len(options) else None
