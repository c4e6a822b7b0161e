"""What targets learn from images of every strength, and that no picture is asked about these."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.jobs import Running
from flows.recipes.atlas import build_atlas
from flows.recipes.targets import measure_targets
from flows.running.process import load_stored
from flows.steps.images import load_images
from flows.steps.targets import graded, images_learnt, read_targets, usual_of
from flows.steps.targets.declaring import learns_trend
from flows.steps.targets.graded import SHARE, chosen_images, draws_of, learnt_from
from stores import open_atlas, open_statistics
from stores.dataset.targets import TREND
from stores.errors import ForeignStore
from tests.flows.conftest import LAYER, VARIANT, Made, atlas_job, targets_job
from tests.reference.trends import common_by_hand, trend_by_hand
from vital.measuring.photos import Photographs
from vital.measuring.targets import GradedImages, seen_by
from vital.network.probe import INPUT

NODES = ("0", "1")


def test_half_of_all_keys_are_learnt_from_whatever_the_shards() -> None:
    keys = [f"image-{number}" for number in range(4000)]
    half = draws_of(keys) < SHARE
    assert 1850 < half.sum() < 2150
    assert (draws_of(keys[::-1]) < SHARE).tolist() == half[::-1].tolist()


@pytest.mark.slow
def test_a_stored_trend_is_the_line_through_what_the_network_gives(made: Made) -> None:
    """By hand: the network on the images themselves, sorted, and least squares by NumPy."""
    statistics = open_statistics(str(made.store))
    loaded = load_stored(statistics, Running(threads=1))
    targets = statistics.targets(LAYER, VARIANT.label(False))
    learnt = images_learnt(statistics, targets)
    keys = statistics.keys(learnt.tolist())
    assert len(learnt) >= 8
    assert (draws_of(keys) < SHARE).all()
    preprocessing = loaded.model.preprocessing
    images = [image for _, image in load_images(statistics, learnt.tolist(), preprocessing, {})]
    shown = preprocessing.normalise(torch.stack(images))
    sample, references = statistics.sample(LAYER), statistics.references(LAYER)
    peaks = sample.peak[np.isin(sample.image, learnt)]
    live = np.flatnonzero(references.live(1) & (np.ptp(peaks, axis=0) > 0))[:5].tolist()
    target = read_targets(targets, live, usual_of(statistics, targets))
    for depth, node in enumerate(NODES, 1):
        with torch.no_grad():
            given = loaded.model.network[:depth](shown).flatten(2)  # type: ignore[index]
        sites = given.shape[-1]
        rows = np.stack(
            [
                [np.interp(target.nodes[node].levels, (np.arange(sites) + 0.5) / sites, one) for one in image]
                for image in given.sort(-1).values.numpy()
            ]
        )
        common = common_by_hand(rows, peaks)
        for position, neuron in enumerate(live):
            own = references.image[neuron]
            mine = ~np.isin(learnt, own)
            score, count = references.score[neuron][own >= 0].mean(dtype=np.float64), (own >= 0).sum()
            own_rows = target.nodes[node].quantiles[position]
            expected = trend_by_hand(rows[mine], peaks[mine, neuron], own_rows, score, count, common)
            found = target.nodes[node].trend
            assert found is not None
            near = 0.01 * np.ptp(expected)  # stored rows are rounded to 256 steps each
            np.testing.assert_allclose(found[position], expected, atol=near)


@pytest.mark.slow
def test_loose_photographs_give_the_target_that_a_store_of_them_gives(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a store's targets learn from all of its images, as from photographs that are all shown."""
    monkeypatch.setattr(graded, "SHARE", 1.0)
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    variant = VARIANT.model_copy(update={"references": 2})
    measure_targets(targets_job(store, variant=variant, neurons="0:32"))
    statistics = open_statistics(str(store))
    targets = statistics.targets(LAYER, variant.label(False))
    assert TREND in targets.settings
    live = np.flatnonzero(statistics.references(LAYER).live(1))[:4].tolist()
    kept = read_targets(targets, live, usual_of(statistics, targets))
    loaded = load_stored(statistics, Running(threads=1))
    ids = np.arange(int(statistics.shards().images.sum()))
    assert statistics.sample(LAYER, ()).image.tolist() == ids.tolist()
    images = dict(load_images(statistics, ids.tolist(), loaded.model.preprocessing, {}))
    shown = Photographs(tuple(map(str, ids)), torch.stack([images[one] for one in ids.tolist()]))
    for position, number in enumerate(live):
        neuron, nodes = (loaded.survey.layer(LAYER), number), tuple(targets.nodes)
        seen = seen_by(loaded.model, loaded.survey, neuron, shown, nodes, levels=statistics.levels)
        best = seen.best(2)
        assert best.tolist() == statistics.references(LAYER, 2, [number]).image[0].tolist()
        target = seen.with_trend(seen.target(best), best)
        np.testing.assert_allclose(target.own[0], kept.own[position], rtol=2e-3)
        for name in nodes:
            ours, theirs = target.nodes[name], kept.nodes[name]
            assert ours.trend is not None
            assert theirs.trend is not None
            assert ours.usual is not None
            assert theirs.usual is not None
            np.testing.assert_allclose(ours.levels, theirs.levels)
            # a store keeps colours at 128 levels, whatever its targets' are
            near = 0.01 * np.ptp(theirs.usual) if name == INPUT else 1e-5
            np.testing.assert_allclose(ours.usual, theirs.usual, rtol=1e-4, atol=near)
            for mine, other in (
                (ours.quantiles[0], theirs.quantiles[position]),
                (ours.trend[0], theirs.trend[position]),
            ):
                np.testing.assert_allclose(mine, other, atol=0.01 * np.ptp(other))  # stored rows are rounded
            assert (ours.deviation is None) == (theirs.deviation is None) == (name == INPUT)
            if ours.deviation is not None and theirs.deviation is not None:
                np.testing.assert_allclose(ours.deviation, theirs.deviation, rtol=1e-3)


@pytest.mark.slow
def test_targets_that_were_begun_without_a_trend_go_on_without(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    other = VARIANT.model_copy(update={"references": 2})
    with monkeypatch.context() as patch:
        patch.setattr("flows.steps.targets.measuring.FEWEST_GRADED", 10_000)
        patch.setattr("flows.steps.targets.declaring.FEWEST_GRADED", 10_000)
        measure_targets(targets_job(store, variant=other, neurons="0:32"))
    before = open_statistics(str(store)).targets(LAYER, other.label(False))
    assert TREND not in before.settings
    measure_targets(targets_job(store, variant=other))
    targets = open_statistics(str(store)).targets(LAYER, other.label(False))
    assert targets.settings == before.settings
    target = read_targets(targets, [0, 39], usual_of(open_statistics(str(store)), targets))
    assert all(node.trend is None for node in target.nodes.values())


@pytest.mark.slow
def test_targets_of_an_earlier_rule_are_refused_with_a_way_out_that_does(made: Made, tmp_path: Path) -> None:
    """The number of references that are kept makes another variant of the same references."""
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    targets = open_statistics(str(store), "r+").targets(LAYER, VARIANT.label(False))
    record = targets.group.attrs["variant"]
    assert isinstance(record, dict)
    targets.group.attrs["variant"] = {**record, "fields": {**targets.settings, TREND: 1}}
    with pytest.raises(
        ForeignStore, match=r"by an earlier .* trend is 1, and 2 .* number of --references .the number that is kept"
    ):
        measure_targets(targets_job(store))
    every = VARIANT.model_copy(update={"references": open_statistics(str(store)).ranked()[LAYER]})
    assert measure_targets(targets_job(store, variant=every, neurons="0:32")) != targets.variant
    build_atlas(atlas_job(store, tmp_path / "atlas.zarr", neurons="0:32"))  # what was measured is read as before
    assert open_atlas(str(tmp_path / "atlas.zarr")).layer(LAYER).made().any()


@pytest.mark.parametrize("change", [{"crop": "patch"}, {"facets": 2}])
def test_patches_and_facets_have_none(made: Made, change: dict[str, object]) -> None:
    statistics = open_statistics(str(made.store))
    variant = VARIANT.model_validate(VARIANT.model_dump() | change)
    learnt = [
        learns_trend(statistics, job, statistics.targets(job.layer, job.variant.label(job.layer == "classes")))
        for job in (
            targets_job(made.store, variant=VARIANT.model_copy(update={"references": 1})),
            targets_job(made.store, variant=variant.model_copy(update={"references": 1})),
            targets_job(made.store, "classes", variant=VARIANT.model_copy(update={"references": 1})),
        )
    ]
    assert learnt == [True, False, False]
    of_classes = statistics.targets("classes", VARIANT.label(True))
    assert len(images_learnt(statistics, of_classes)) == 0


def test_where_memory_is_short_images_are_taken_by_lot(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = open_statistics(str(made.store))
    every = learnt_from(statistics, LAYER)
    draws = draws_of(statistics.keys(every.tolist()))
    assert chosen_images(statistics, LAYER, 1).tolist() == every.tolist()
    monkeypatch.setattr("vital.measuring.targets.trends.FEWEST_GRADED", 2)
    monkeypatch.setattr("vital.measuring.targets.trends.MOST_BYTES", 300)
    some = chosen_images(statistics, LAYER, 100)
    assert some.tolist() == sorted(every[np.argsort(draws)[:3]].tolist())
    assert len(chosen_images(statistics, LAYER, 1000)) == 2


def test_images_on_which_the_network_overflows_are_left_out() -> None:
    rows = np.ones((3, 2, 4), np.float32)
    other = rows.copy()
    other[1, 0, 3] = np.inf
    peaks = np.array([[0, 1], [1, 0], [2, 5]], np.float32)
    found = GradedImages.finite(np.array([4, 6, 9]), {"a": rows, "b": other}, peaks)
    assert found.image.tolist() == [4, 9]
    assert {name: each.shape for name, each in found.rows.items()} == {"a": (2, 2, 4), "b": (2, 2, 4)}
    np.testing.assert_allclose(found.common["b"], common_by_hand(other[[0, 2]], peaks[[0, 2]]), atol=1e-6)
    assert GradedImages.finite(np.array([4, 6, 9]), {"a": rows}, peaks).rows["a"] is rows
