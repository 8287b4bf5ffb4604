"""mlxctl, the command line of mlxd: a thin client that imports only :mod:`daemon.wire`."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "mlxd"


def _refuse_strangers() -> None:
    """Stop where ``daemon`` is somebody else's package (python-daemon has that name, too).

    The two import names are one program and lie side by side; a ``daemon`` from any other
    place would answer this package's imports with other code.

    Raises:
        ImportError: Says which folder was found and what to do.
    """
    here = Path(__file__).resolve().parent
    spec = find_spec("daemon")
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    ours = found == here.parent / "daemon" and (
        # One folder can hold the files of two distributions: then the later one's are on top.
        getattr(import_module("daemon"), "DISTRIBUTION", None) == DISTRIBUTION
    )
    if not ours:
        raise ImportError(
            f"mlxctl in {here} needs mlxd's own 'daemon' package beside it, but the import name "
            f"leads to {found or 'nothing'}; install mlxd in an environment of its own",
            name=__name__,
        )


_refuse_strangers()
