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
    for name in ("reached/1", "reached"):  # pages would show other nodes' curves alone, or none
        with without(copied.atlas / LAYER / name, tmp_path / "away"):
            for words in (pages, again):
                assert refused(*words).startswith(f"{LAYER}/{name}/")
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
    node = copied.store / variant / "1"
    with without(node / "relevant", tmp_path / "away"), without(node / "importance", tmp_path / "too"):
        assert refused(*pictures) == f"{variant}/1/relevant"  # whole activations alone would be matched
    shutil.rmtree(tmp_path / "new.zarr", ignore_errors=True)
    for name in ("layers/1/quantiles", "layers/1/mean_deviation", "light/sums/rows"):  # they would match something else
        with without(copied.store / name, tmp_path / "away"):
            assert refused(*pictures) == name
        shutil.rmtree(tmp_path / "new.zarr")
    assert vital(*again).exit_code == 0


def test_what_pages_say_of_targets_and_of_the_data_set_is_named_where_it_was_removed(
    copied: Made, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "pages", "--no-references", "--no-maps")
    pages = ("pages", copied.atlas, *out, "--store", copied.store)
    node = f"targets/{LAYER}/{VARIANT.label(False)}/1"
    flags = node.removesuffix("1") + "done"
    for name in (flags, f"{node}/relevant", f"{node}/importance", f"layers/{LAYER}/peak_mean"):
        with without(copied.store / name, tmp_path / "away"):
            assert refused(*pages) == name
    assert vital(*pages).exit_code == 0


def test_what_targets_on_the_fly_were_made_of_is_named_by_pages_and_by_a_run_that_goes_on(
    copied: Made, tmp_path: Path
) -> None:
    """Pages would say nothing of it, or less, and new pictures would be written without."""
    out, fly = tmp_path / "fly.zarr", ("--references", 2, "--targets", "fly")
    again = ("atlas", copied.store, "--layer", LAYER, "--out", out, *NODES, *PICTURES, *fly, "--neurons")
    pages = ("pages", out, "--out", tmp_path / "pages", "--no-references", "--no-maps")
    assert vital(*again, 0).exit_code == 0
    for name in ("origin", "origin/1", "origin/1/mean", "origin/1/importance"):
        with without(out / LAYER / name, tmp_path / "away"):
            for words in (pages, (*again, 32)):
                assert refused(*words).startswith(f"{LAYER}/{name}")
    for words in (pages, (*again, 32)):
        assert vital(*words).exit_code == 0


def test_a_sum_that_was_removed_is_named_by_a_run_that_adds_shards(made: Made, tmp_path: Path) -> None:
    first, *_ = sorted(made.shards.iterdir())
    network = ("--model", MODEL.name, "--input-size", MODEL.input_size, "--layer", LAYER)
    store = ("--store", tmp_path / "s.zarr", *network, "--references", 3, "--levels", 16)
    assert vital("references", first, *store).exit_code == 0
    more = ("references", made.shards, *store, "--extend")
    for name in ("quantiles", "total"):
        sums, rests = (tmp_path / "s.zarr" / "layers" / "1" / part / name for part in ("sums", "rests"))
        with without(sums, tmp_path / "away"), without(rests, tmp_path / "too"):
            assert refused(*more) == f"layers/1/sums/{name}"
    for name in ("layers/1/minimum", "light/sums/rows"):
        with without(tmp_path / "s.zarr" / name, tmp_path / "away"):
            assert refused(*more) == name
    assert vital(*more).exit_code == 0


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
