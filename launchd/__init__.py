"""mlxd as a service: launchd agents, systemd user units, and the sockets they hand over."""

import os

DISTRIBUTION = "mlxd"


def _refuse_strangers() -> None:
    """Stop where this folder does not lie beside the rest of mlxd.

    Raises:
        ImportError: Says which folder this is and what to do.
    """
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib loads slowly
    if not os.path.isfile(os.path.join(here, "..", "daemon", "wire", "paths.py")):  # noqa: PTH113, PTH118
        raise ImportError(
            f"the 'launchd' package in {here} is not part of an installed mlxd: there is no "
            "'daemon' package of mlxd beside it; install mlxd in an environment of its own",
            name=__name__,
        )


_refuse_strangers()
