from collections.abc import Callable, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.reference import formulas
from tests.reference.networks import SIDE, Residual, literal_relevance
from vital.measuring.exact import ExactRows
from vital.measuring.rows import stored_levels
from vital.measuring.targets import Attribution, Crop, NodeTarget, Target, measure
from vital.network.models import Model, load_model
from vital.network.probe import CLASSES, INPUT, Layout, probe
from vital.settings import ModelSettings, RelevanceKind

NODES = ("0", "1")
LAYER = "2"
LEVELS = 10_000  # more than any node has sites: rows are kept whole


def crops(rows: Sequence[tuple[int, ...]], seed: int = 0, side: int = SIDE) -> list[Crop]:
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (len(rows), 3, side, side), generator=stream, dtype=torch.uint8)
    return [Crop(image, of) for image, of in zip(pixels, rows, strict=True)]


def assert_same(first: Target, second: Target, tolerance: float) -> None:
    assert first.nodes.keys() == second.nodes.keys()
    np.testing.assert_array_equal(first.count, second.count)
    np.testing.assert_allclose(first.own, second.own, rtol=tolerance, atol=tolerance)
    for name, node in first.nodes.items():
        for part in fields(NodeTarget):
            mine, theirs = getattr(node, part.name), getattr(second.nodes[name], part.name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance, err_msg=f"{name} {part.name}")


@pytest.mark.parametrize("seed", range(2))
def test_targets_are_the_paper_s(tiny: Callable[..., Model], seed: int) -> None:
    """Per reference one forward pass and one literal relevance pass; sort; mean."""
    network = Residual()
    model = tiny(seed, network)
    neurons, rows = [0, 3, 5], [(0, 1), (1,), (0, 2), (2, 1, 0)]
    given = crops(rows, seed, 16)
    target = measure(model, Attribution("out"), neurons, given, ["conv1", "pool"], levels=LEVELS, batch=3)
    assert target.count.tolist() == [3, 3, 2]
    for index, neuron in enumerate(neurons):
        own, plain, relevant, relevances = [], [], [], []
        for crop in given:
            if index not in crop.rows:
                continue
            literal = literal_relevance(network, model.preprocessing.normalise(crop.pixels[None])[0], neuron)
            maps = {name: values.reshape(len(values), -1) for name, values in literal.activations.items()}
            flows = {name: values.reshape(len(values), -1) for name, values in literal.relevance.items()}
            own.append(np.sort(maps["out"][neuron]))
            plain.append({name: np.sort(maps[name], -1) for name in flows})
            relevant.append({name: np.sort(formulas.relevance_map(flows[name]) * maps[name], -1) for name in flows})
            relevances.append(flows)
        close: Any = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(target.own[index], np.mean(own, 0), **close)
        for name, node in target.nodes.items():
            assert node.relevant is not None
            assert node.importance is not None
            np.testing.assert_allclose(node.quantiles[index], np.mean([part[name] for part in plain], 0), **close)
            np.testing.assert_allclose(node.relevant[index], np.mean([part[name] for part in relevant], 0), **close)
            expected = formulas.importance([part[name] for part in relevances])
            np.testing.assert_allclose(node.importance[index], expected, **close)


@pytest.mark.parametrize("kind", ["lrp", "lrp-gamma", "lrp-restricted", "gradient-x-activation"])
def test_the_batch_size_does_not_matter(tiny: Callable[..., Model], kind: RelevanceKind) -> None:
    model, neurons = tiny(), [1, 4, 7]
    given = crops([(0,), (1, 2), (2, 0), (), (0, 1, 2), (1,), (2,)])
    whole, *others = (
        measure(model, Attribution(LAYER, kind), neurons, given, NODES, levels=LEVELS, batch=batch)
        for batch in (7, 1, 3)
    )
    for other in others:
        assert_same(whole, other, 1e-6)


def test_a_crop_that_neurons_share_counts_for_each_as_its_own(tiny: Callable[..., Model]) -> None:
    model, neurons = tiny(), [1, 4]
    shared = measure(model, Attribution(LAYER), neurons, crops([(0, 1), (1, 0)]), NODES, levels=LEVELS)
    for index, neuron in enumerate(neurons):
        alone = measure(model, Attribution(LAYER), [neuron], crops([(0,), (0,)]), NODES, levels=LEVELS)
        assert_same(shared.take(slice(index, index + 1)), alone, 1e-6)


def test_what_a_neuron_gets_has_the_same_bits_however_its_references_are_ordered_and_shared(
    tiny: Callable[..., Model],
) -> None:
    """One image a pass, so that the network's own arithmetic is the same in all of them."""
    model, neurons = tiny(), [1, 4, 7]
    rows = [(0, 1, 2), (1,), (0, 2), (2,), (0, 1), (2, 1), (0,)]
    given = crops(rows)
    whole = measure(model, Attribution(LAYER), neurons, given, NODES, batch=1)
    for order in ([6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 5, 1, 4]):
        assert_same(
            whole, measure(model, Attribution(LAYER), neurons, [given[index] for index in order], NODES, batch=1), 0
        )
    for index, neuron in enumerate(neurons):
        own = [Crop(crop.pixels, (0,)) for crop in given if index in crop.rows]
        assert_same(
            whole.take(slice(index, index + 1)), measure(model, Attribution(LAYER), [neuron], own, NODES, batch=1), 0
        )


def test_sums_are_exact() -> None:
    """Values of very unlike size, where float64 sums differ with the order."""
    values = np.array([2.0**30, 2.0**-40, 0.1, -(2.0**30), 3.0**-9, 1e-7, 2.0**-60], np.float32)
    sums = {}
    for seed in range(5):
        held, order = ExactRows(2), np.random.default_rng(seed).permutation(len(values))
        for value in values[order]:
            held.add("x", torch.tensor([1]), torch.tensor([[value]]))
        sums[seed] = held.mean("x", np.array([0, 1]))
        assert sums[seed][0, 0] == 0
    assert len({float(one[1, 0]) for one in sums.values()}) == 1
    assert float(sums[0][1, 0]) == float(sum(Fraction(float(value)) for value in values))


def test_sums_of_as_many_references_as_a_neuron_may_have_are_exact() -> None:
    """The worst of them: each value lies between two steps of the coarse grid, so that the fine part has it all."""
    values = 2.0**-21 * (1 - np.random.default_rng(0).random(1000) * 0.02)
    for order in (np.arange(1000), np.argsort(values)):
        held = ExactRows(1)
        for value in values[order]:
            held.add("x", torch.tensor([0]), torch.from_numpy(value.reshape(1, 1)))
        fine = held._sums["x"][1].abs().max()
        assert fine < 2**53
        kept = [Fraction(round(Fraction(float(value)) * 2**63), 2**63) for value in values]
        assert float(held.mean("x", np.array([1]))[0, 0]) == float(sum(kept))


def test_sums_of_references_that_have_left_what_is_exact_are_named(caplog: pytest.LogCaptureFixture) -> None:
    for value, lines in ((4e9, 0), (5e9, 1)):
        held = ExactRows(1)
        for _ in range(2):
            held.add("x", torch.tensor([0]), torch.tensor([[value]]))
        assert held.mean("x", np.array([2]))[0, 0] == value
        assert [record.getMessage()[:41] for record in caplog.records] == [
            "1 sums of references' x are beyond 9e+09,"
        ] * lines


def test_a_shared_crop_is_forwarded_once(tiny: Callable[..., Model]) -> None:
    model = tiny()
    seen: list[int] = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    measure(model, Attribution(LAYER), [1, 4, 7], crops([(0, 1, 2), (0, 2), (1,)]), NODES, batch=2)
    assert seen == [2, 1]


def test_a_gradient_kind_measures_the_derivative_times_the_activation(tiny: Callable[..., Model]) -> None:
    model = tiny()
    given = crops([(0,)])
    target = measure(model, Attribution(LAYER, "gradient-x-activation"), [4], given, ["1"], levels=LEVELS)
    images = model.preprocessing.normalise(given[0].pixels[None])
    first = model.network.get_submodule("0")(images)
    second = model.network.get_submodule("1")(first).detach().requires_grad_()
    own = model.network.get_submodule("2")(second)[0, 4]
    (gradient,) = torch.autograd.grad(own, second, own.detach())
    flow = (gradient * second)[0].detach().flatten(1).double().numpy()
    activations = second[0].detach().flatten(1).double().numpy()
    expected = np.sort(formulas.relevance_map(flow) * activations, -1)
    node = target.nodes["1"]
    assert node.relevant is not None
    np.testing.assert_allclose(node.relevant[0], expected, rtol=1e-4, atol=1e-6)


def test_classes_have_no_relevance_and_their_own_is_the_logit(tiny: Callable[..., Model]) -> None:
    model, given = tiny(), crops([(0,), (0, 1), (1,)])
    target = measure(model, Attribution(CLASSES), [2, 9], given, NODES, levels=LEVELS)
    assert target.classes
    logits = model.network(model.preprocessing.normalise(torch.stack([crop.pixels for crop in given])))
    np.testing.assert_allclose(target.own[:, 0], [logits[:2, 2].mean(), logits[1:, 9].mean()], rtol=1e-5)
    with probe(model.network, NODES) as run:
        seen = run(model.preprocessing.normalise(torch.stack([crop.pixels for crop in given])))
    for name, node in target.nodes.items():
        assert node.relevant is None
        assert node.importance is None
        rows = np.sort(seen[name].double().numpy(), -1)
        np.testing.assert_allclose(node.quantiles[0], rows[:2].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(node.quantiles[1], rows[1:].mean(0), rtol=1e-5, atol=1e-6)


def test_the_input_is_a_node_without_relevance(tiny: Callable[..., Model]) -> None:
    model, given = tiny(), crops([(0,), (0,)])
    node = measure(model, Attribution(LAYER), [4], given, [INPUT, "0"], levels=LEVELS).nodes[INPUT]
    images = model.preprocessing.normalise(torch.stack([crop.pixels for crop in given])).flatten(2).numpy()
    np.testing.assert_allclose(node.quantiles[0], np.sort(images, -1).mean(0), rtol=1e-5, atol=1e-6)
    assert node.relevant is None
    assert node.importance is None


def test_long_rows_are_kept_at_stored_levels(tiny: Callable[..., Model]) -> None:
    model, given = tiny(), crops([(0,), (0,)])
    whole = measure(model, Attribution(LAYER), [4], given, NODES, levels=LEVELS).nodes["0"]
    short = measure(model, Attribution(LAYER), [4], given, NODES, levels=12).nodes["0"]
    np.testing.assert_array_equal(short.levels, stored_levels(256, 12))
    expected = [np.interp(short.levels, whole.levels, row) for row in whole.quantiles[0]]
    np.testing.assert_allclose(short.quantiles[0], expected, rtol=1e-5, atol=1e-6)


def test_a_neuron_without_references_is_zero_and_counted_so(tiny: Callable[..., Model]) -> None:
    target = measure(tiny(), Attribution(LAYER), [4, 5], crops([(0,)]), NODES)
    assert target.count.tolist() == [1, 0]
    assert not target.own[1].any()
    assert not target.nodes["0"].quantiles[1].any()
    assert target.nodes["0"].quantiles[0].any()


def test_taking_some_neurons_takes_every_part_of_them(tiny: Callable[..., Model]) -> None:
    whole = measure(tiny(), Attribution(LAYER), [4, 5, 6], crops([(0, 1, 2), (2,)]), NODES)
    some = whole.take(slice(1, 3))
    assert len(some) == 2
    assert some.neurons.tolist() == [5, 6]
    assert some.count.tolist() == [1, 2]
    np.testing.assert_array_equal(some.own, whole.own[1:])
    for name in NODES:
        for part in ("quantiles", "relevant", "importance"):
            np.testing.assert_array_equal(getattr(some.nodes[name], part), getattr(whole.nodes[name], part)[1:])


@pytest.fixture(scope="module")
def attentive() -> Model:
    return load_model(ModelSettings(name="vit_b_32", weights="random"))


@pytest.mark.parametrize("kind", ["lrp", "lrp-gamma", "lrp-restricted", "gradient-x-activation"])
def test_a_network_with_attention_is_measured_by_every_kind(attentive: Model, kind: RelevanceKind) -> None:
    pixels = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (3, 224, 224), np.uint8))
    layer, nodes = "encoder.layers.encoder_layer_1", ["conv_proj", "encoder.layers.encoder_layer_0"]
    layouts: dict[str, Layout] = dict.fromkeys((layer, nodes[1]), "channels-last")
    one = [Crop(pixels, (0,))]
    target = measure(attentive, Attribution(layer, kind, layouts), [5], one, nodes)
    importance = target.nodes[nodes[1]].importance
    assert importance is not None
    assert np.isfinite(importance).all()
    assert importance.max() > 0.9
