"""A target from loose photographs, against the network run by hand and least squares by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.reference.networks import SIDE
from tests.reference.trends import common_by_hand, trend_by_hand
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.kept.sampling import unit_hash
from vital.measuring.photos import Photographs
from vital.measuring.targets import Attribution, Crop, Seen, Target, measure, seen_by
from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.neurons import Dictionary
from vital.network.probe import INPUT

COUNT, REFERENCES, NEURON = 27, 5, 7
NODES = (INPUT, "0", "1")
CHANNELS = {INPUT: 3, "0": 6, "1": 8}
NEVER = 10_000


def photographs(count: int = COUNT) -> Photographs:
    blocks = np.random.default_rng(4).integers(0, 256, (count, 3, 4, 4), np.uint8)
    pixels = torch.from_numpy(blocks.repeat(SIDE // 4, 2).repeat(SIDE // 4, 3))
    return Photographs(tuple(f"{one:03d}.jpg" for one in range(count)), pixels)


def by_hand(model: Model, shown: Photographs) -> dict[str, np.ndarray]:
    """(image, channel, site) of the nodes and of layer 2."""
    layers, at = model.network, model.preprocessing.normalise(shown.pixels)
    given = {INPUT: at}
    with torch.no_grad():
        for depth in ("0", "1", "2"):
            at = layers.get_submodule(depth)(at)
            given[depth] = at.clone()
    return {name: one.flatten(2).double().numpy() for name, one in given.items()}


def rows_at(levels: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Sorted activations read at some levels, an image and a channel at a time."""
    sites = activations.shape[-1]
    have = (np.arange(sites) + 0.5) / sites
    return np.array([[np.interp(levels, have, np.sort(row)) for row in image] for image in activations])


def line(
    rows: np.ndarray, crowd: np.ndarray, references: np.ndarray, learnt: np.ndarray, neuron: int = NEURON
) -> np.ndarray:
    """What least squares says of images of every strength and the references; ``crowd`` has all neurons' peaks."""
    peaks, others = crowd[:, neuron], np.setdiff1d(learnt, references)
    common = common_by_hand(rows[learnt], crowd[learnt])
    own, score = rows[references].mean(0), float(peaks[references].mean())
    return trend_by_hand(rows[others], peaks[others], own, score, len(references), common)


def seen_of(model: Model, shown: Photographs, nodes: tuple[str, ...] = NODES) -> tuple[Survey, Seen]:
    layers = survey(model)
    return layers, seen_by(model, layers, (layers.layer("2"), NEURON), shown, nodes, levels=20, batch=4)


WEIGHT = np.random.default_rng(5).normal(size=(9, 12)).astype(np.float32)


def layers_with(model: Model, name: str) -> tuple[Survey, str]:
    """The network's layers with what reads layer 2, and the layer that ``name`` stands for: with ``tokens`` that is
    layer 2, of whose sites some are not the map's."""
    features = Dictionary(WEIGHT, np.full(9, -0.2, np.float32), np.full(9, 0.05, np.float32), k=3)
    layers = replace(survey(model), directions={"some": features, "pairs": WEIGHT})
    if name != "tokens":
        return layers, name
    with_tokens = replace(layers.layers["2"], leading_tokens=2, trailing_tokens=1)
    return replace(layers, layers=layers.layers | {"2": with_tokens}), "2"


def assert_learnt(target: Target, given: dict[str, np.ndarray], references: np.ndarray, learnt: np.ndarray) -> None:
    crowd = given["2"].max(2)
    for name in NODES:
        node = target.nodes[name]
        rows = rows_at(node.levels, given[name])
        assert node.usual is not None
        assert node.trend is not None
        near = 1e-5 * np.abs(rows).max()
        np.testing.assert_allclose(node.quantiles[0], rows[references].mean(0), rtol=1e-4, atol=near)
        np.testing.assert_allclose(node.usual, rows.mean(0), rtol=1e-4, atol=near)
        expected = line(rows, crowd, references, learnt)
        np.testing.assert_allclose(node.trend[0], expected, atol=1e-4 * np.ptp(expected))
        if name != INPUT:
            assert node.deviation is not None
            np.testing.assert_allclose(node.deviation, given[name].mean(2).std(0), rtol=1e-3)


def test_one_pass_gives_rows_usual_and_trend_as_by_hand(tiny: Callable[..., Model]) -> None:
    model, shown = tiny(), photographs()
    given = by_hand(model, shown)
    references = np.argsort(-given["2"][:, NEURON].max(1), kind="stable")[:REFERENCES]
    _, seen = seen_of(model, shown)
    assert seen.best(REFERENCES).tolist() == references.tolist()
    assert seen.holds(references)
    target = seen.with_trend(seen.target(references), references)
    assert_learnt(target, given, references, np.arange(COUNT))
    assert target.nodes[INPUT].deviation is None
    own = rows_at(target.own_levels, given["2"][references, NEURON][:, None])
    np.testing.assert_allclose(target.own[0], own.mean(0)[0], rtol=1e-4, atol=1e-6)
    assert (target.count.tolist(), target.neurons.tolist(), target.layer) == ([REFERENCES], [NEURON], "2")


def test_a_target_is_what_measuring_the_references_again_gives(tiny: Callable[..., Model]) -> None:
    model, shown = tiny(), photographs()
    layers, seen = seen_of(model, shown)
    best = seen.best(REFERENCES)
    crops = [Crop(shown.pixels[one], (0,)) for one in best.tolist()]
    again = measure(model, Attribution.of(layers, "2"), [NEURON], crops, NODES, levels=20)
    target = seen.target(best)
    assert list(target.nodes) == list(again.nodes)
    np.testing.assert_allclose(target.own, again.own, rtol=1e-5)
    for name, node in again.nodes.items():
        np.testing.assert_array_equal(target.nodes[name].levels, node.levels)
        np.testing.assert_allclose(target.nodes[name].quantiles, node.quantiles, rtol=1e-5, atol=1e-6)
        assert target.nodes[name].relevant is None


def test_where_memory_is_short_rows_are_kept_by_lot(
    tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shown = tiny(), photographs()
    image_bytes = 4 * sum(20 * channels for channels in CHANNELS.values())
    monkeypatch.setattr("vital.measuring.targets.trends.MOST_BYTES", 12 * image_bytes + 1)
    layers, seen = seen_of(model, shown)
    lots = np.array([unit_hash(name) for name in shown.names])
    learnt = np.sort(np.argsort(lots)[:12])
    assert seen.kept.tolist() == learnt.tolist()
    assert {name: len(rows) for name, rows in seen.rows.items()} == dict.fromkeys(NODES, 12)
    best = seen.best(REFERENCES)
    assert not seen.holds(best)
    crops = [Crop(shown.pixels[one], (0,)) for one in best.tolist()]
    measured = measure(model, Attribution.of(layers, "2"), [NEURON], crops, NODES, levels=20)
    assert_learnt(seen.with_trend(measured, best), by_hand(model, shown), best, learnt)


@pytest.mark.parametrize("name", ["2@1,2", "2~pairs", "2~some", "tokens"])
def test_the_crowd_is_all_neurons_of_the_layer_as_they_read_it(tiny: Callable[..., Model], name: str) -> None:
    """Of a dictionary, whose features are many, the neuron alone: then nothing is common."""
    model, shown = tiny(), photographs()
    layers, name = layers_with(model, name)
    layer, given = layers.layer(name), by_hand(model, shown)["2"]
    seen = seen_by(model, layers, (layer, 4), shown, ("1",), batch=4)
    if name == "2~some":
        assert seen.crowd.tolist() == seen.peak[:, None].tolist()
    elif name == "2":
        np.testing.assert_allclose(seen.crowd, given[..., 2:-1].max(2), rtol=1e-5)
    elif name == "2~pairs":
        np.testing.assert_allclose(seen.crowd, np.einsum("nc,ics->ins", WEIGHT, given).max(2), rtol=1e-4, atol=1e-5)
    else:
        assert layer.reads.site is not None
        np.testing.assert_allclose(seen.crowd, given[..., layer.reads.site], rtol=1e-5)
    np.testing.assert_allclose(seen.crowd[:, 0 if name == "2~some" else 4], seen.peak, rtol=1e-5, atol=1e-6)


def test_of_few_photographs_no_trend_is_learnt(tiny: Callable[..., Model]) -> None:
    _, seen = seen_of(tiny(), photographs(7))
    best = seen.best(3)
    target = seen.with_trend(seen.target(best), best)
    assert all(node.trend is None and node.usual is not None for node in target.nodes.values())


def test_photographs_that_are_all_references_say_nothing_more(tiny: Callable[..., Model]) -> None:
    """What is usual is what they have: a caricature is no other than they are."""
    _, seen = seen_of(tiny(), photographs())
    best = seen.best(NEVER)
    target = seen.with_trend(seen.target(best), best)
    for node in target.nodes.values():
        near = 1e-5 * np.abs(node.quantiles).max()
        np.testing.assert_allclose(node.caricature(target.count, 1.0), node.quantiles, atol=near)


def test_a_photograph_on_which_the_network_overflows_is_not_learnt_from(tiny: Callable[..., Model]) -> None:
    model, shown = tiny(), photographs()
    _, seen = seen_of(model, shown)
    best, clean = seen.best(REFERENCES), dict(seen.rows)
    lost = int(np.setdiff1d(np.arange(COUNT), best)[0])
    rows = {name: values.copy() for name, values in clean.items()}
    rows["0"][lost, 2, 5] = np.inf
    target = replace(seen, rows=rows)
    found = target.with_trend(seen.target(best), best).nodes["1"].trend
    crowd = by_hand(model, shown)["2"].max(2)
    expected = line(clean["1"].astype(np.float64), crowd, best, np.setdiff1d(np.arange(COUNT), [lost]))
    assert found is not None
    np.testing.assert_allclose(found[0], expected, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("name", ["2", "0", "2@1,2", "2~some", "2~pairs", "tokens"])
def test_photographs_are_ranked_as_a_pass_over_shards_ranks_them(tiny: Callable[..., Model], name: str) -> None:
    model, shown = tiny(), photographs()
    layers, name = layers_with(model, name)
    layer = layers.layer(name)
    if "~" not in name:  # two that are the same: the first of them is the better; sums of channels may differ in order
        shown.pixels[20] = shown.pixels[3]
    batch = Batch(shown.pixels, np.arange(COUNT), np.full(COUNT, -1), shown.names)
    ranking = gather(model, layers, Plan((name,), (), COUNT, 20), batch).rankings[name]
    for number in range(layer.channels):
        seen = seen_by(model, layers, (layer, number), shown, batch=COUNT)
        known = ranking.images[number] != NOBODY
        assert seen.best(NEVER).tolist() == ranking.images[number][known].tolist()
        chosen = seen.best(REFERENCES)
        assert seen.site[chosen].tolist() == ranking.sites[number][: len(chosen)].tolist()
        np.testing.assert_allclose(seen.peak[chosen], ranking.scores[number][: len(chosen)], rtol=1e-6)
    assert seen.rows == {}
