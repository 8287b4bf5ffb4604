"""Entry point of ``mlxctl``: everything that can end the program ends here, once."""

import os
import sys
from typing import Final

SIGPIPE_EXIT: Final = 141
"""128 + SIGPIPE, as the shell counts a reader that went away."""
INTERRUPTED_EXIT: Final = 130


def main() -> None:
    """Run ``mlxctl`` on the process's own arguments and exit with its code."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    except BrokenPipeError:
        _drop_stdout()
        code = SIGPIPE_EXIT
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    # Imported here, so that Ctrl-C ends quietly during the imports, too.
    from ctl.app import App  # noqa: PLC0415
    from ctl.cli import run  # noqa: PLC0415

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a "?", never a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    environ = os.environ  # noqa: TID251 - a __main__ module is where it is read
    return run(App(environ, sys.stdout, sys.stderr), arguments)


def _drop_stdout() -> None:
    """Point stdout nowhere, so that the interpreter's last flush finds no broken pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
