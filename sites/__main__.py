"""Look at the practice sites in a browser, or build what they are made of."""

import logging
import threading
from typing import Annotated

import typer

from sites.catalogue import SITES
from sites.pictures import make_pictures
from sites.server import PracticeServer

app = typer.Typer(help="Practice websites, generated from a world's name.", no_args_is_help=True, add_completion=False)


@app.command()
def build() -> None:
    """Draw the pictures that the sites show (serving does it too, if they aren't there)."""
    typer.echo(f"{make_pictures()} pictures drawn")


@app.command()
def serve(
    site: Annotated[str | None, typer.Option(help="One site only; default: every site.")] = None,
    world: Annotated[str, typer.Option(help="train-<n> or heldout-<n>.")] = "train-0",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8000,
) -> None:
    """Serve a world until Ctrl-C. Example: python -m sites serve --site shop --world train-3."""
    try:
        server = PracticeServer(port)
    except OSError as error:
        raise typer.BadParameter(f"port {port}: {error.strerror}") from None
    with server:
        for name in [site] if site else sorted(SITES):
            try:
                typer.echo(server.open(name, world, key="demo-" + name).url)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo("stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    app()
