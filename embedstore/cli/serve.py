"""The command that shows a store in the browser: serve.

The page is made by the package `page`, which alone imports a web server.
"""

from __future__ import annotations

import click

from embedstore.cli.options import Count, Location, command, open_store, store_argument, version_option
from embedstore.cli.output import Output, quiet_output, tell


@command("embedstore serve photos.store --open", "embedstore serve photos.store --port 8000")
@store_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=Count(min=0, max=65535), default=0, metavar="PORT", help="The port.  [default: a free one]"
)
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@version_option
@quiet_output
def serve(store: Location, host: str, port: int, in_browser: bool, version: int | None, output: Output) -> None:
    """Show a store in the browser: ask, drag the threshold, label, calibrate and save.

    The last line names the address; who has it whole sees the pictures. Nothing leaves this machine. Ctrl-C ends it.
    """
    opened = open_store(store, version)
    from embedstore.page.guards import is_loopback
    from embedstore.page.server import PageServer
    from embedstore.page.session import Session

    server = PageServer(Session(opened), host, port)
    if not is_loopback(host):
        tell(
            f"warning: {host} can be reached from other machines, and what is sent is not encrypted. Who reaches port "
            f"{server.port} and has the token sees the pictures of {store}, and can label and save"
        )

    def ready() -> None:
        click.echo(server.url)
        if in_browser:
            server.open_browser()

    server.run(ready)
    output.say("stopped")


COMMANDS = (serve,)
