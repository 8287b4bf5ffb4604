"""The daemon of mlxd: pool, event log, supervision and the protocol."""

import os

DISTRIBUTION = "mlxd"
"""Whose ``daemon`` this is: other distributions use that import name, too."""


def _refuse_strangers() -> None:
    """Stop where this folder is not mlxd's alone.

    python-daemon installs a package of the same name. In one environment the two share this
    folder, the later one's files on top of the earlier one's, and removing either breaks
    the other.

    Raises:
        ImportError: Says what was found and what to do.
    """
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib loads slowly
    advice = "install mlxd in an environment of its own"
    for stranger in ("daemon.py", "pidfile.py"):
        if os.path.exists(os.path.join(here, stranger)):  # noqa: PTH110, PTH118
            raise ImportError(
                f"another distribution has put {stranger} into mlxd's 'daemon' package in {here} "
                f"(python-daemon does); {advice}",
                name=__name__,
            )
    if not os.path.isfile(os.path.join(here, "..", "ctl", "__init__.py")):  # noqa: PTH113, PTH118
        raise ImportError(
            f"the 'daemon' package in {here} is not part of an installed mlxd: there is no 'ctl' "
            f"package of mlxd beside it; {advice}",
            name=__name__,
        )


_refuse_strangers()
