"""Imported first by programs that draw nothing: structlog without rich.

Where rich is installed, as it is for mlxctl, structlog loads it to draw tracebacks: 5 MB, and
a quarter of the daemon's start (measured). Without it tracebacks are Python's own.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # importing it fails meanwhile
    import structlog  # noqa: F401

    del sys.modules["rich"]
