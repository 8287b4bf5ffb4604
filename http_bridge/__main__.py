"""``mlx-bridge``: the HTTP bridge as a program."""

import os
import sys

import anyio
import click
import msgspec

from daemon.wire.errors import MlxdError
from daemon.wire.logs import set_up_logging
from daemon.wire.paths import find_home
from daemon.wire.settings import load_settings
from http_bridge.run import run_bridge


@click.command()
@click.option("--host", help="Address to listen on; http.host of config.toml.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
def main(host: str | None, port: int | None) -> None:
    """Serve the OpenAI-style HTTP API in front of the mlxd daemon."""
    set_up_logging()
    try:
        home = find_home(os.environ, sys.platform)  # noqa: TID251 - a __main__ may read it
        http = load_settings(home.config_file).http
        if host is not None:
            http = msgspec.structs.replace(http, host=host)
        if port is not None:
            http = msgspec.structs.replace(http, port=port)
        anyio.run(run_bridge, str(home.control_socket), http)
    except MlxdError as error:
        click.echo(f"mlx-bridge: {error}", err=True)
        sys.exit(error.handling.exit_code)


if __name__ == "__main__":
    main()
