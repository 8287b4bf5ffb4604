"""The HTTP bridge of mlxd: OpenAI-style HTTP in front of the daemon and its workers.

Of the daemon it imports ``daemon.wire`` alone.
"""

from importlib.util import find_spec
from pathlib import Path


def _check_neighbour() -> None:
    """Stop where ``daemon`` is somebody else's package (python-daemon has that name, too).

    Found without importing it: a stranger's code must not run.

    Raises:
        ImportError: Says which folder was found and what to do.
    """
    here = Path(__file__).resolve().parent
    spec = find_spec("daemon")
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found != here.parent / "daemon" or not (found / "wire" / "framing.py").is_file():
        raise ImportError(
            f"mlx-bridge in {here} needs mlxd's own 'daemon' package beside it, but the import "
            f"name leads to {found or 'nothing'}; install mlxd in an environment of its own",
            name=__name__,
        )


_check_neighbour()
