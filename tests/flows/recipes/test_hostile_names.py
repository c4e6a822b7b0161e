"""Names are data: a network whose modules are called as nobody would, and folders of images called so, too, through all
commands to the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stores import open_atlas, open_statistics
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.steps.test_inputs import done, refused

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_server")]
MODEL = ("--model", "tests.flows.tiny:hostile", "--input-size", tiny.SIDE)
LAYERS = (".input", "/features/2/Conv", "a b~c@d@1,1", tiny.BROKEN)
"""Layers whose neurons get pictures; all other names are nodes of the last."""


@pytest.fixture(scope="module")
def folder(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of images that were not packed, their targets and an atlas."""
    made = tmp_path_factory.mktemp("hostile [0] {a,b}")
    for number in range(6):
        image = made / "photos #1 %20" / f"{number % 2}" / f"{number} é.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(tiny.jpeg(number))
    store, atlas = made / "s [x].zarr", made / "a {0..1}.zarr"
    layers = [word for layer in LAYERS for word in ("--layer", layer)]
    kept = ("--references", 2, "--levels", 8)
    every = [word for name in tiny.HOSTILE[3:7] for word in ("--node", name)]
    own = [word for name in ("classes", "input", "own") for word in ("--node", f".{name}")]
    done(vital("references", made / "photos #1 %20", "--store", store, *MODEL, *layers, *every, *own, *kept))
    for layer in LAYERS:
        nodes = [*every, *own] if layer == LAYERS[-1] else ["--node", ".classes"]
        asked = ("--store", store, "--layer", layer, "--references", 2)
        done(vital("targets", *asked, *nodes))
        done(vital("atlas", *asked, "--out", atlas, "--steps", 2))
    return made


def test_every_layer_has_its_own_numbers_and_pictures(folder: Path) -> None:
    statistics, atlas = open_statistics(str(folder / "s [x].zarr")), open_atlas(str(folder / "a {0..1}.zarr"))
    assert set(atlas.layers) == set(LAYERS) <= set(statistics.ranked())
    assert {f".{name}" for name in ("classes", "input", "own")} < set(statistics.measured())
    scores = [statistics.references(layer).score.tobytes() for layer in LAYERS]
    assert len(set(scores)) == len(scores)
    last = next(targets for targets in statistics.all_targets(LAYERS[-1]))
    assert set(last.nodes) == {"input", *tiny.HOSTILE[3:7], ".classes", ".input", ".own"}
    assert set(last.levels) == {*last.nodes, "own"}
    for layer in LAYERS:
        assert atlas.require_layer(layer).made().all()
        assert len(np.unique(atlas[layer, 0].pixels)) > 10
    assert set(atlas.layer(LAYERS[-1]).reached()) | {"input"} == set(last.nodes)


def test_they_are_shown_and_exported_by_these_names(folder: Path, tmp_path: Path) -> None:
    atlas = folder / "a {0..1}.zarr"
    said = done(vital("info", folder / "s [x].zarr"))
    shown = [*LAYERS[:-1], r"[red]%2F=2F\n\t\x1b[31m\u202e"]
    assert all(f"references/{layer}: 8 of 8 neurons" in said for layer in shown)
    assert all(f"  {layer}: " in done(vital("info", atlas)) for layer in shown)
    done(vital("evaluate", "--atlas", atlas, "--layer", "/features/2/Conv"))
    done(vital("pages", atlas, "--out", tmp_path / "pages"))
    for number, layer in enumerate(LAYERS):
        done(vital("show", atlas, layer, 1, "--out", tmp_path / f"{number}.png"))
        done(vital("export", atlas, "--layer", layer, "--out", tmp_path / f"{number}", "--no-sheet"))
        with (tmp_path / f"{number}" / "neurons.csv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        assert {row["layer"] for row in rows} == {layer}
        assert all((tmp_path / f"{number}" / row["file"]).is_file() for row in rows)


def test_what_a_store_cannot_tell_apart_is_refused_before_it_is_made(folder: Path, tmp_path: Path) -> None:
    photos = folder / "photos #1 %20"
    asked = ("references", photos, "--store", tmp_path / "s.zarr", *MODEL, "--layer")
    refused(vital(*asked, "a b~c@d/lowest"), "ends in /lowest", "another name")
    assert not (tmp_path / "s.zarr").exists()
