"""The summary that follows a store being filled."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.watching import open_blocks, watch
from flows.recipes.atlas import build_atlas
from tests.flows.conftest import Made, atlas_job

pytestmark = pytest.mark.slow


def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_finished_store_is_shown_and_left(made: Made) -> None:
    for urls in ([str(made.store)], [str(made.atlas), str(made.store)]):
        console = screen()
        watch(urls, console, every=3600)
        assert all(f"{url}:" in shown(console) for url in urls)


def test_it_ends_when_the_last_block_is_written(made: Made, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas.zarr"
    build_atlas(atlas_job(made.store, atlas, neurons="0:1"))
    assert open_blocks(str(atlas)) == 1
    console = screen()
    watching = threading.Thread(target=watch, args=([str(made.store), str(atlas)], console, 0.05))
    watching.start()
    while "1 of 2 blocks" not in shown(console):
        watching.join(0.005)
        assert watching.is_alive()
    build_atlas(atlas_job(made.store, atlas))
    watching.join()
    assert open_blocks(str(atlas)) == 0
    assert "1 of 2 blocks" in shown(console)
    assert shown(console).rindex("2 of 2 blocks") > shown(console).rindex("1 of 2 blocks")
