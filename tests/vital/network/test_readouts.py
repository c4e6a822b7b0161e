"""Neurons that are not channels: directions in channel space, and one site of a map."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.reference.networks import SIDE
from vital.errors import UnknownLayer
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.nodes import default_nodes
from vital.network.probe import probe
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings, RelevanceKind

pytestmark = pytest.mark.slow

LAYER, CHANNELS, WIDTH = "2", 12, 4
NODES = ("0", "1")
DIRECTIONS = np.random.default_rng(5).standard_normal((3, CHANNELS)).astype(np.float32)
KINDS = pytest.mark.parametrize("kind", ["lrp", "lrp-restricted", "gradient-x-activation"])


@pytest.fixture
def model(tiny: Callable[..., Model]) -> Model:
    return tiny()


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def crops(neurons: int) -> list[Crop]:
    return [Crop(image, (row % neurons,)) for row, image in enumerate(pixels(6))]


def with_a_layer_for(model: Model, directions: np.ndarray) -> Model:
    """The network up to `LAYER`, then the directions as a convolution of one site: its channels are the neurons."""
    reading = nn.Conv2d(CHANNELS, len(directions), 1, bias=False)
    reading.weight.data = torch.from_numpy(directions)[..., None, None]
    children = list(model.network.children())[:3]
    return replace(model, network=nn.Sequential(*children, reading.requires_grad_(False)).eval())


def assert_same_targets(first: Target, second: Target, rtol: float) -> None:
    np.testing.assert_allclose(first.own, second.own, rtol=rtol, atol=1e-5)
    for name, node in first.nodes.items():
        other = second.nodes[name]
        np.testing.assert_allclose(node.quantiles, other.quantiles, rtol=rtol)
        assert node.relevant is not None
        assert node.importance is not None
        assert other.relevant is not None
        assert other.importance is not None
        scale = np.abs(other.relevant).max()
        np.testing.assert_allclose(node.relevant / scale, other.relevant / scale, atol=rtol)
        np.testing.assert_allclose(node.importance, other.importance, atol=rtol)


# The site of lrp-restricted is chosen by the feature vector that is read, which one more layer would replace.
@pytest.mark.parametrize("kind", ["lrp", "gradient-x-activation"])
def test_a_direction_is_a_channel_of_one_more_linear_layer(model: Model, kind: RelevanceKind) -> None:
    read = Readout(LAYER, directions=DIRECTIONS)
    target = measure(model, Attribution(f"{LAYER}~some", kind, readout=read), range(3), crops(3), NODES)
    other = measure(with_a_layer_for(model, DIRECTIONS), Attribution("3", kind), range(3), crops(3), NODES)
    assert_same_targets(target, other, 1e-4)


@KINDS
def test_a_direction_along_an_axis_is_that_channel(model: Model, kind: RelevanceKind) -> None:
    axes = np.eye(CHANNELS, dtype=np.float32)
    target = measure(
        model, Attribution(f"{LAYER}~axes", kind, readout=Readout(LAYER, None, axes)), (3, 7, 10), crops(3), NODES
    )
    assert_same_targets(target, measure(model, Attribution(LAYER, kind), (3, 7, 10), crops(3), NODES), 1e-4)


@KINDS
@pytest.mark.parametrize("directions", [None, DIRECTIONS])
def test_relevance_of_one_site_begins_there_alone(
    model: Model, kind: RelevanceKind, directions: np.ndarray | None
) -> None:
    read, whole = Readout(LAYER, 6, directions), Readout(LAYER, None, directions)
    with torch.no_grad(), probe(model.network, [LAYER]) as run:
        seen = run(model.preprocessing.normalise(pixels(3)))[LAYER]
    neurons = torch.tensor([2, 0, 1])
    start, own = read.start(seen, neurons, kind), read.own(seen, neurons)
    assert own.shape == (3, 1)
    torch.testing.assert_close(own[:, 0], whole.own(seen, neurons)[:, 6])
    assert not start[..., [index for index in range(WIDTH**2) if index != 6]].any()
    if kind != "lrp-restricted":
        torch.testing.assert_close(start[..., 6], whole.start(seen, neurons, kind)[..., 6])


# Before its rectifier: a single rectified site that is zero has no gradient.
@pytest.mark.parametrize(
    "read", [Readout("2.1", 6, sites=16), Readout("2.1", None, DIRECTIONS)], ids=["site", "direction"]
)
def test_pictures_raise_what_they_show(model: Model, read: Readout) -> None:
    target = measure(model, Attribution("some", readout=read), range(3), crops(3), NODES)
    assert target.reads is read
    assert target.take(slice(1, 2)).reads is read
    settings = PictureSettings(
        steps=60, side=SIDE, jitter=0, softness=0, own_weight=1, plain_weight=0, relevant_weight=0
    )
    made = optimise(model, target, settings)
    assert made.finite.all()
    with torch.no_grad(), probe(model.network, ["2.1"]) as run:
        pictures = torch.from_numpy(made.pixels).permute(0, 3, 1, 2)
        reached = read.maps(run(model.preprocessing.normalise(pictures))["2.1"]).amax(-1).diagonal()
    aimed = target.own.max(1) + (settings.own_boost - 1) * np.abs(target.own.max(1))
    np.testing.assert_allclose(reached, aimed, rtol=0.05, atol=0.25)  # stored as bytes


@pytest.fixture
def layers(model: Model) -> Survey:
    return replace(survey(model), directions={"some": DIRECTIONS, "wide": np.zeros((2, 99), np.float32)})


def test_layers_of_sites_and_directions_are_named_after_their_module(layers: Survey) -> None:
    site, along = layers.layer("2@1,2"), layers.layer("2~some")
    assert (site.name, site.channels, site.sites, site.reads.site) == ("2@1,2", CHANNELS, 1, 6)
    assert (along.name, along.channels, along.sites) == ("2~some", 3, WIDTH**2)
    assert along.reads.layer == site.reads.layer == "2"
    assert default_nodes(layers, "2@1,2") == default_nodes(layers, "2~some") == default_nodes(layers, "2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("2@4,0", r"names no site of '2', which has 4 × 4: a site is written MODULE@ROW,COLUMN, counted from 0"),
        ("2@01,2", "MODULE@ROW,COLUMN"),
        ("2@6", "MODULE@ROW,COLUMN"),
        ("2@", "MODULE@ROW,COLUMN"),
        ("classes@0,0", "names no site of 'classes'"),
        ("2~other", r"no directions 'other' for '2~other' \(known: some, wide\): give their file with --directions"),
        ("2~wide", r"directions 'wide' are of 99 channels but '2' has 12"),
        ("7@0,0", "no layer '7'"),
    ],
)
def test_a_name_of_nothing_is_refused_with_the_way_out(layers: Survey, name: str, words: str) -> None:
    with pytest.raises(UnknownLayer, match=words):
        layers.layer(name)


def test_a_site_is_the_same_place_in_a_map_of_another_size() -> None:
    tokens = Readout("layer", site=1 + 5, sites=17, leading=1)  # row 1, column 1 of 4 × 4 after a class token
    assert tokens.site_among(1 + 64) == 1 + 3 * 8 + 3
    assert tokens.site_among(17) == 6
    assert Readout("layer", site=0, sites=17, leading=1).site_among(65) == 0  # the class token
    assert Readout("layer", site=15, sites=16).site_among(4) == 3
    detecting = Readout("layer", site=1 + 7 * 14 + 7, sites=1 + 196 + 100, leading=1, trailing=100)
    assert detecting.site_among(1 + 400 + 100) == 1 + 10 * 20 + 10
    assert replace(detecting, site=1 + 196 + 5).site_among(1 + 400 + 100) == 1 + 400 + 5


def test_references_of_sites_and_directions_are_ranked_by_what_is_read(model: Model, layers: Survey) -> None:
    images = pixels(5)
    nobody = np.full(5, -1)
    plan = Plan(("2@1,2", "2~some", "2"), ("0",), 2, 16)
    gathered = gather(model, layers, plan, Batch(images, np.arange(5), nobody, [str(row) for row in range(5)]))
    with torch.no_grad(), probe(model.network, ["2"]) as run:
        seen = run(model.preprocessing.normalise(images))["2"].numpy()
    along = np.einsum("nc,ics->ins", DIRECTIONS, seen)
    expected = {"2@1,2": seen[:, :, 6], "2~some": along.max(2), "2": seen.max(2)}
    for name, scores in expected.items():
        order = np.argsort(-scores, axis=0, kind="stable")[:2].T
        np.testing.assert_array_equal(gathered.rankings[name].images, order)
        np.testing.assert_allclose(gathered.rankings[name].scores, np.take_along_axis(scores.T, order, 1), rtol=1e-5)
    assert (gathered.rankings["2@1,2"].sites == 6).all()
    first = gathered.rankings["2~some"]
    peaks = [along[image, neuron].argmax() for neuron, image in enumerate(first.images[:, 0])]
    np.testing.assert_array_equal(first.sites[:, 0], peaks)


@KINDS
def test_a_readout_of_some_neurons_reads_them_as_the_whole_one_does(model: Model, kind: RelevanceKind) -> None:
    many = np.random.default_rng(6).standard_normal((50, CHANNELS)).astype(np.float32)
    whole = Readout(LAYER, directions=many)
    some = whole.of([31, 4, 31, 17])
    assert some.directions is not None
    assert some.directions.shape == (3, CHANNELS)
    again = some.of([17, 4])
    with torch.no_grad(), probe(model.network, [LAYER]) as run:
        seen = run(model.preprocessing.normalise(pixels(3)))[LAYER]
    for read, neurons in ((some, [31, 17, 31]), (again, [17, 4, 17])):
        asked = torch.tensor(neurons)
        assert torch.equal(read.own(seen, asked), whole.own(seen, asked))
        assert torch.equal(read.start(seen, asked, kind), whole.start(seen, asked, kind))
    assert Readout(LAYER, 3).of([2]).site == 3


def test_directions_go_to_a_device_once_and_only_those_of_the_task(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is counted that leaves NumPy while ten pictures' steps read three of 1000 directions."""
    many = np.random.default_rng(6).standard_normal((1000, CHANNELS)).astype(np.float32)
    read, taken = Readout(LAYER, directions=many), []
    target = measure(model, Attribution(f"{LAYER}~many", readout=read), (20, 999, 4), crops(3), NODES)
    take = torch.from_numpy

    def watched(values: np.ndarray) -> torch.Tensor:
        if values.shape[-1] == CHANNELS and values.dtype == np.float32:
            taken.append(len(values))
        return take(values)

    monkeypatch.setattr(torch, "from_numpy", watched)
    optimise(model, target, PictureSettings(steps=10, side=SIDE))
    rows = [count for count in taken if count != len(target)]
    assert not rows
    before = len(taken)
    optimise(model, target, PictureSettings(steps=1, side=SIDE))
    assert len(taken) - before == before  # of no step, but of the run
    taken.clear()
    measure(model, Attribution(f"{LAYER}~many", readout=read), (20, 999, 4), crops(3), NODES)
    assert taken == [3]
