"""``mlx-bridge``: the HTTP bridge as a program."""

from daemon.wire import lean  # noqa: F401 - before anything loads structlog

# isort: split
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import click
import msgspec

from daemon.wire.errors import MlxdError
from daemon.wire.locks import held
from daemon.wire.logs import set_up_program_logging
from daemon.wire.paths import Home, find_home, make_private
from daemon.wire.settings import load_settings
from http_bridge.run import run_bridge
from http_bridge.security import new_key
from launchd.activation import HTTP_SOCKET, inherited_sockets


@click.command()
@click.option("--host", help="Address to listen on; http.host of config.toml.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option(
    "--new-key",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda context, _option, asked: _show_new_key(context) if asked else None,
    help="Make an API key, say it and its line for config.toml, and end.",
)
def main(host: str | None, port: int | None) -> None:
    """Serve the OpenAI-style HTTP API in front of the mlxd daemon."""
    environ = dict(os.environ)  # noqa: TID251 - a __main__ may read it
    try:
        inherited = inherited_sockets(HTTP_SOCKET, environ)
        home = find_home(environ, sys.platform)
        set_up_program_logging(home.bridge_log, serviced=inherited is not None)
        http = load_settings(home.config_file).http
        if host is not None:
            http = msgspec.structs.replace(http, host=host)
        if port is not None:
            http = msgspec.structs.replace(http, port=port)
        with _alone(home, serviced=inherited is not None):
            anyio.run(run_bridge, str(home.control_socket), http, inherited)
    except MlxdError as error:
        click.echo(f"mlx-bridge: {error}", err=True)
        sys.exit(error.handling.exit_code)


def _show_new_key(context: click.Context) -> None:
    key, kept = new_key()
    click.echo(f"key, for clients; it is not kept anywhere: {key}")
    click.echo(f'config.toml, under [http]: api_keys = ["{kept}"]')
    context.exit()


@contextmanager
def _alone(home: Home, *, serviced: bool) -> Iterator[None]:
    """Hold the lock that says that the service's bridge runs; others need not be alone."""
    if not serviced:
        yield
        return
    make_private(home.run_dir)
    with held(home.bridge_lock, wait=True):
        yield


if __name__ == "__main__":
    main()
