"""Parts of a store that somebody removed: every command names them, and makes nothing empty in their place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stores import open_statistics
from stores.errors import SchemaMismatch
from tests.flows.command import vital
from tests.flows.conftest import LAYER, MODEL, PICTURE, VARIANT, Made

pytestmark = pytest.mark.slow

NODES = [word for node in VARIANT.nodes for word in ("--node", node)]
PICTURES = ("--side", PICTURE.side, "--steps", PICTURE.steps, "--relevant-weight", PICTURE.relevant_weight)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    copy = Made(tmp_path)
    shutil.copytree(made.store, copy.store)
    shutil.copytree(made.atlas, copy.atlas)
    return copy


@contextmanager
def without(folder: Path, away: Path) -> Iterator[None]:
    """While a part of a store is away; nobody has made it anew then."""
    folder.rename(away)
    yield
    assert not folder.exists()
    away.rename(folder)


def refused(*words: object) -> str:
    """What a command says is missing."""
    ran = vital(*words)
    assert ran.exit_code == 1, ran.output
    error = ran.output.splitlines()[-1]
    assert error.endswith("copy it again from where it is whole, or make the store anew")
    return error.removeprefix("Error: ").partition(" is ")[0]


def test_an_array_of_pictures_that_was_removed_is_named_by_pages_and_by_a_run_that_goes_on(
    copied: Made, tmp_path: Path
) -> None:
    pages = ("pages", copied.atlas, "--out", tmp_path / "pages", "--no-references", "--no-maps")
    again = ("atlas", copied.store, "--layer", LAYER, "--out", copied.atlas, *NODES, *PICTURES)
    for name in ("pixels", "alpha", "loss", "seed", "status", "reached/1/target", "reached/1/picture"):
        with without(copied.atlas / LAYER / name, tmp_path / "away"):
            for words in (pages, again):
                assert refused(*words) == f"{LAYER}/{name}"
    for words in (pages, again):
        assert vital(*words).exit_code == 0


def test_an_array_of_targets_that_was_removed_is_named_by_pictures_and_by_a_run_that_goes_on(
    copied: Made, tmp_path: Path
) -> None:
    again = ("targets", copied.store, "--layer", LAYER, *NODES)
    pictures = ("atlas", copied.store, "--layer", LAYER, "--out", tmp_path / "new.zarr", *NODES, *PICTURES)
    variant = f"targets/{LAYER}/{VARIANT.label(False)}"
    for name in ("own", "count", "status", "1/quantiles", "1/relevant", "1/importance", "1/level", "1"):
        with without(copied.store / variant / name, tmp_path / "away"):
            for words in (again, pictures):
                assert refused(*words).startswith(f"{variant}/{name}")
            shutil.rmtree(tmp_path / "new.zarr", ignore_errors=True)
    for name in ("quantiles", "mean_deviation"):  # without them pictures would match something else
        with without(copied.store / "layers" / "1" / name, tmp_path / "away"):
            assert refused(*pictures) == f"layers/1/{name}"
        shutil.rmtree(tmp_path / "new.zarr")
    assert vital(*again).exit_code == 0


def test_a_column_of_the_index_or_the_sample_that_was_removed_is_named(
    copied: Made, made: Made, tmp_path: Path
) -> None:
    """Images would have no label, and targets no trend."""
    network = ("--model", MODEL.name, "--input-size", MODEL.input_size, "--layer", LAYER, "--layer", "classes")
    again = ("references", made.shards, "--store", copied.store, *network, "--references", 3, "--levels", 16)
    assert vital(*again).exit_code == 0
    for name in ("index/label", "index/key", "shards/name"):
        with without(copied.store / name, tmp_path / "away"):
            assert refused(*again) == name
    for folder in (f"references/{LAYER}", f"layers/{LAYER}"):  # what is gone as a whole is read again
        before = {file: file.read_bytes() for file in (copied.store / folder).rglob("*") if file.is_file()}
        shutil.rmtree(copied.store / folder)
        assert vital(*again).exit_code == 0
        assert {file: file.read_bytes() for file in (copied.store / folder).rglob("*") if file.is_file()} == before
    with pytest.raises(SchemaMismatch, match=f"run `vital references … --layer {LAYER} --lowest` on the same"):
        open_statistics(str(copied.store)).references(f"{LAYER}/lowest")
    others = ("targets", copied.store, "--layer", LAYER, *NODES, "--references", 2)
    for name in ("image", "peak"):
        with without(copied.store / "samples" / LAYER / name, tmp_path / "away"):
            assert refused(*others) == f"samples/{LAYER}/{name}"
