"""The commands that show what there is, stores, pages and pictures: each yields the lines to print."""

from __future__ import annotations

import json
import signal
import webbrowser
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import Directory, ExistingDirectory, ExistingFile, Port, PositiveInt
from cyclopts.validators import Number

from flows.cli.parsing import PATH, path_of

Text = Annotated[str, Parameter(metavar="TEXT")]
AnyPath = Annotated[Path, PATH]
Side = Annotated[int, Parameter(validator=Number(gte=8, lte=4096))]


def info(*store: Annotated[str, Parameter(required=True)], watch: bool = False) -> Iterator[str]:
    """What each STORE holds, how complete it is, and what it was made from.

    For example:
      vital info a.zarr --watch
      vital info demo/*.zarr

    Args:
        store: statistics and atlases: paths or URLs
        watch: keep it up to date until every block is written; Ctrl-C ends it
    """
    if watch:
        from flows.cli.watching import watch as keep_watching

        keep_watching(store)
    else:
        yield from summaries(store)


def summaries(urls: Sequence[str]) -> Iterator[str]:
    """What stores hold, one below the other."""
    from stores import open_any

    for url in urls:
        yield from [""] if url != urls[0] else []
        yield from open_any(url).summary()


def pages(
    *atlas: Annotated[str, Parameter(required=True)],
    out: Annotated[Directory, PATH],
    no_references: bool = False,
    no_maps: bool = False,
    store: Text | None = None,
    shards: Annotated[tuple[str, ...], Parameter(metavar="TEXT")] = (),
    credits_: Annotated[ExistingFile | None, PATH] = None,
    title: Text = "VITAL Atlas",
    shown: Text = "",
) -> Iterator[str]:
    """Write ATLAS as a folder of static pages, with a contact sheet; several atlases can be compared there.

    What is there already from the same data is left alone.

    For example:
      vital pages atlas.zarr --out pages
      vital pages natural.zarr paper.zarr --out pages

    Args:
        atlas: atlas stores: paths or URLs
        out: folder for the pages  [required]
        no_references: leave the photographs out
        no_maps: leave out where neurons are active on them, for which the network must run
        store: where the statistics are, when they moved
        shards: where the shards are, when they moved  [repeatable]
        credits_: CSV with key, author, licence
        title: heading of the pages  [default: VITAL Atlas]
        shown: channels shown as red, green and blue, or one as grey, counted from 0, e.g. 3,2,1  [default: the atlas's]
    """
    from flows.jobs import Running
    from flows.pages.atlas import Showing, read_credits, write_gallery

    maps = None if no_maps else Running()
    showing = Showing(not no_references, store, shards, read_credits(credits_), maps, shown)
    yield str(write_gallery(atlas, out, showing, title))


def view(folder: Annotated[ExistingDirectory, PATH], /, *, port: Port = 0, no_browser: bool = False) -> Iterator[str]:
    """Serve the pages in FOLDER on this machine and open them; Ctrl-C ends it.

    Example: vital view pages

    Args:
        folder: what `vital pages` wrote
        port: port on this machine  [from 0 to 65535; default: any free one]
        no_browser: serve only, and print the address
    """
    from flows.cli.export import served

    over = Event()
    # in the background of a script Ctrl-C does not arrive, but a request to end does
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with served(folder, port) as url:
        yield f"{url}  (Ctrl-C ends it)"
        if not no_browser:
            webbrowser.open(url)
        try:
            over.wait()
        except KeyboardInterrupt:
            yield "ended"


def show(
    atlas: str,
    layer: str,
    neuron: int,
    /,
    *,
    facet: int = 0,
    out: AnyPath | None = None,
    side: Side | None = None,
    mask: bool = False,
    shown: Text = "",
) -> Iterator[str]:
    """Save one picture of ATLAS as PNG, WebP or JPEG, by the file's ending.

    Example: vital show a.zarr layer4.2 7 --out neuron7.png

    Args:
        atlas: atlas store: a path or URL
        layer: the picture's layer, or 'classes'
        neuron: number of the channel or class
        facet: which of its facets, where it has several, counted from 0  [default: 0]
        out: file to write  [default: LAYER-NEURON.png]
        side: side in pixels  [from 8 to 4096; default: as it was made]
        mask: with its opacity: what mattered little is transparent
        shown: channels shown as red, green and blue, or one as grey, counted from 0, e.g. 3,2,1  [default: the atlas's]
    """
    from flows.cli.export import Saving, save_picture
    from stores.pages.website import folder_name

    name = f"{folder_name(layer)}-{neuron}{f'-facet{facet}' if facet else ''}.png"
    yield str(save_picture(atlas, layer, neuron, out or Path(name), Saving(mask, shown, side), facet))


def export(
    atlas: str,
    /,
    *,
    layer: Annotated[Text, Parameter(allow_repeating=False)],
    out: AnyPath,
    neurons: Annotated[Text, Parameter(allow_repeating=False)] = "",
    format_: Literal["png", "webp"] = "png",
    mask: bool = False,
    no_sheet: bool = False,
    shown: Text = "",
) -> Iterator[str]:
    """Save a selection of pictures of ATLAS, with a contact sheet and a table, as a folder or a zip.

    Example: vital export atlas.zarr --layer layer4.2 --neurons 0:64,70 --out a.zip

    Args:
        atlas: atlas store: a path or URL
        layer: the pictures' layer, or 'classes'  [required]
        out: folder, or a file that ends in .zip  [required]
        neurons: ranges and lists, e.g. 0:64,70  [default: all]
        format_: of the pictures  [png, webp; default: png]
        mask: with their opacity: what mattered little is transparent
        no_sheet: without the contact sheet
        shown: channels shown as red, green and blue, or one as grey, counted from 0, e.g. 3,2,1  [default: the atlas's]
    """
    from flows.cli.export import Saving
    from flows.cli.export import export as export_pictures

    how = Saving(mask, shown, kind=format_, sheet=not no_sheet)
    yield f"{export_pictures(atlas, layer, neurons, out, how)} pictures in {out}"


def look(
    first: Annotated[str, Parameter(name="ATLAS")],
    /,
    *photo: str,
    atlas: Annotated[tuple[str, ...], Parameter(metavar="TEXT")] = (),
    layer: Annotated[tuple[str, ...], Parameter(metavar="LAYER")] = (),
    top: PositiveInt = 10,
    each: bool = False,
    every: bool = False,
    out: Annotated[Directory | None, PATH] = None,
    pages: Text | None = None,
    json_: bool = False,
    store: Text | None = None,
    device: Text = "auto",
) -> Iterator[str]:
    """Which neurons of an atlas, or of several, see photographs: how strongly against the data set's images, and where.

    Those come first that the fewest of the data set's images excite as much.

    For example:
      vital look a.zarr cat.jpg
      vital look a.zarr photos --layer layer4.2 --layer classes --top 5 --each
      vital look a.zarr photos --out look --pages pages
      vital look cat.jpg --atlas natural.zarr --atlas paper.zarr
      vital look a.zarr cat.jpg --json | jq .photographs[0].neurons[0]

    Args:
        first: atlas store; left out where --atlas names it
        photo: photographs, and folders of them
        atlas: instead of ATLAS: one or several, each of which looks for itself  [repeatable]
        layer: their layers that look  [repeatable; default: all]
        top: neurons of each photograph, of all layers together  [from 1; default: 10]
        each: so many of each layer, one layer after the other
        every: neurons without a picture, too
        out: folder for a static page, with maps over the photographs
        pages: the atlases' pages, which that page and JSON are to link into: their folder, or their address
        json_: print JSON, with the maps, instead of tables
        store: where the statistics are, when they moved
        device: auto, cpu, cuda or cuda:N
    """
    from flows.cli.options import UsageError
    from flows.jobs import Running
    from flows.pages.looking.look import look_at
    from flows.pages.looking.several import look_through
    from stores import open_atlas

    if pages is not None and out is None and not json_:
        raise UsageError("--pages is for the links of a page or of JSON: say with --out where a page is to be written")
    atlases, words = (atlas, (first, *photo)) if atlas else ((first,), photo)
    if not words:
        raise UsageError("PHOTO is missing: say `vital look ATLAS PHOTO`, or `vital look PHOTO --atlas ATLAS`")
    try:
        photos = [path_of(word) for word in words]
    except ValueError as error:
        raise UsageError(f"PHOTO: {error}") from None
    opened, running = [open_atlas(url) for url in atlases], Running(device=device)
    see = partial(look_at, photos=photos, layers=layer, top=top, each=each, every=every, store=store, running=running)
    looking = look_through(opened, see, out, pages)
    if json_:
        yield json.dumps(looking.as_json(), ensure_ascii=False)
        return
    for one in looking.looks:
        yield from [one.atlas] if len(looking.looks) > 1 else []
        yield from one.lines()
    if looking.page is not None:
        yield str(looking.page)
