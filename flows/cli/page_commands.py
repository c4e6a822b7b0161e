"""The commands around pages: ``pages``, ``view``, ``show``, ``export``."""

from __future__ import annotations

import signal
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any, Literal

import click


@click.command()
@click.argument("urls", nargs=-1, required=True, metavar="URL…")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder for the pages")
@click.option("--no-references", is_flag=True, help="leave the photographs out")
@click.option("--store", default=None, help="where the statistics are, when they moved")
@click.option("--shards", multiple=True, help="where the shards are, when they moved; repeatable")
@click.option(
    "--credits",
    "credits_",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="CSV with key, author, licence",
)
@click.option("--title", default="VITAL Atlas", show_default=True, help="heading of the pages")
def pages(
    urls: Sequence[str],
    out: Path,
    no_references: bool,
    store: str | None,
    shards: Sequence[str],
    credits_: Path | None,
    title: str,
) -> None:
    """Write the atlas at URL as a folder of static pages, with a contact sheet; several atlases can be compared there.

    What is there already from the same data is left alone.

    \b
    Examples: vital pages atlas.zarr --out pages
              vital pages natural.zarr paper.zarr --out pages
    """
    from flows.pages.atlas import read_credits, write_gallery

    click.echo(write_gallery(urls, out, store, shards, read_credits(credits_), not no_references, title))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="port on this machine  [default: any free one]")
@click.option("--no-browser", is_flag=True, help="serve only, and print the address")
def view(folder: Path, port: int, no_browser: bool) -> None:
    """Serve the pages in FOLDER on this machine and open them; Ctrl-C ends it."""
    from flows.cli.export import served

    over = Event()
    # in the background of a script Ctrl-C does not arrive, but a request to end does
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with served(folder, port) as url:
        click.echo(f"{url}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(url)
        try:
            over.wait()
        except KeyboardInterrupt:
            click.echo("ended")


@click.command()
@click.argument("url")
@click.argument("layer")
@click.argument("neuron", type=int)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="file to write  [default: LAYER-NEURON.png]")
@click.option("--side", type=click.IntRange(8, 4096), default=None, help="side in pixels  [default: as it was made]")
@click.option("--mask", is_flag=True, help="with its opacity: what mattered little is transparent")
def show(url: str, layer: str, neuron: int, out: Path | None, side: int | None, mask: bool) -> None:
    """Save one picture of the atlas at URL as PNG, WebP or JPEG, by the file's ending."""
    from flows.cli.export import save_picture
    from stores.pages.website import folder_name

    click.echo(save_picture(url, layer, neuron, out or Path(f"{folder_name(layer)}-{neuron}.png"), side, mask))


@click.command()
@click.argument("url")
@click.option("--layer", required=True, help="the pictures' layer, or 'classes'")
@click.option("--neurons", default="", help="ranges and lists, e.g. 0:64,70  [default: all]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder, or a file that ends in .zip")
@click.option("--format", "kind", type=click.Choice(["png", "webp"]), default="png", show_default=True)
@click.option("--mask", is_flag=True, help="with their opacity: what mattered little is transparent")
@click.option("--no-sheet", is_flag=True, help="without the contact sheet")
def export(
    url: str, layer: str, neurons: str, out: Path, kind: Literal["png", "webp"], mask: bool, no_sheet: bool
) -> None:
    """Save a selection of pictures of the atlas at URL, with a contact sheet and a table, as a folder or a zip.

    Example: vital export atlas.zarr --layer layer4.2 --neurons 0:64,70 --out selection.zip
    """
    from flows.cli import export as picture_files

    count = picture_files.export(url, layer, neurons, out, kind, mask, not no_sheet)
    click.echo(f"{count} pictures in {out}")


COMMANDS: dict[str, Any] = {"pages": pages, "view": view, "show": show, "export": export}
