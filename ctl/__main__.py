"""Entry point of ``mlxctl``: everything that can end the program ends here, once."""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from ctl.app import App

SIGPIPE_EXIT: Final = 141
"""128 + SIGPIPE, as the shell counts a reader that went away."""
INTERRUPTED_EXIT: Final = 130


def main() -> None:
    """Run ``mlxctl`` on the process's own arguments and exit with its code."""
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    except BrokenPipeError:
        _drop(sys.stdout)
        code = SIGPIPE_EXIT
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    _set_up_streams()
    # Imported here, so that Ctrl-C ends quietly during the imports, too.
    from ctl.app import App  # noqa: PLC0415
    from ctl.cli import run  # noqa: PLC0415

    environ = os.environ  # noqa: TID251 - a __main__ module is where it is read
    app = App(environ, sys.stdout, sys.stderr)
    try:
        code = run(app, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if not isinstance(sys.stdout, _Output) or not sys.stdout.failed:
            raise
        _drop(sys.stdout)
        return _say_unwritten(app, error)
    return code


class _Output(TextIOWrapper):
    """Stdout, with its failures told from those of files and sockets.

    Attributes:
        failed: Whether something could not be written.
    """

    failed = False

    @classmethod
    def of(cls, stream: TextIOWrapper) -> Self:
        """The same file with the same buffer."""
        return cls(
            stream.buffer,
            encoding=stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self.failed = True
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self.failed = True
            raise


def _set_up_streams() -> None:
    # Closed ones first: no socket or file may get the number of a standard stream.
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - to the end
    if sys.stdout is None:  # what is written to it fails as on a full disk
        unwritable = BufferedWriter(FileIO(os.open(os.devnull, os.O_RDONLY), "w"))
        sys.stdout = _Output(unwritable, encoding="utf-8", errors="replace")
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
    # What is no text is read as it is in arguments, and refused where text is needed. A terminal
    # that cannot show a character gets a "?", never a traceback.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stderr, "replace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)
    if type(sys.stdout) is TextIOWrapper:
        sys.stdout = _Output.of(sys.stdout)


def _say_unwritten(app: "App", error: OSError) -> int:
    from daemon.wire.errors import HANDLING, Code, Fault  # noqa: PLC0415

    message = f"stdout cannot be written: {error.strerror}"
    try:
        app.fail(Fault(code=Code.INTERNAL, message=message))
    except OSError:  # as bad as stdout
        _drop(sys.stderr)
    return HANDLING[Code.INTERNAL].exit_code


def _drop(stream: TextIO) -> None:
    """Point a stream nowhere, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
