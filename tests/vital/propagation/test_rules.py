from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference import formulas
from vital.propagation import rules

SEEDS = range(3)
OPTIONS = [
    {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 1},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 2},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 4},
]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(weight: Tensor) -> tuple[Tensor, Tensor]:
    return rules.PositiveWeights().of(weight)


def convolved(inputs: Tensor, weight: Tensor, options: dict[str, int]) -> tuple[rules.Convolution, Tensor]:
    convolution = rules.Convolution(**options)
    return convolution, convolution(inputs, weight)


@pytest.mark.parametrize("signed", [False, True], ids=["nonnegative", "signed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_convolution_shares_by_positive_contributions(seed: int, options: dict[str, int], signed: bool) -> None:
    inputs, weight = draw(seed, 2, 4, 6, 5), draw(seed + 10, 4, 4 // options["groups"], 3, 3)
    inputs = inputs if signed else inputs.relu()
    convolution, output = convolved(inputs, weight, options)
    relevance = draw(seed + 20, *output.shape)
    result = rules.through_convolution(relevance, inputs, both(weight), convolution, nonnegative=not signed)
    for image in range(2):
        expected = formulas.convolution(relevance[image].numpy(), inputs[image].numpy(), weight.numpy(), **options)
        np.testing.assert_allclose(result[image].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_on_nonnegative_inputs_the_signed_rule_is_the_published_one() -> None:
    inputs, weight = draw(0, 1, 4, 6, 6).relu(), draw(1, 5, 4, 3, 3)
    convolution, output = convolved(inputs, weight, OPTIONS[0])
    relevance = draw(2, *output.shape)
    arguments = relevance, inputs, both(weight), convolution
    torch.testing.assert_close(
        rules.through_convolution(*arguments, nonnegative=True),
        rules.through_convolution(*arguments, nonnegative=False),
    )


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel:UserWarning")
def test_padding_same_is_torch_s_own() -> None:
    inputs, weight = draw(0, 1, 2, 6, 6).relu(), draw(1, 3, 2, 4, 4)  # an even kernel: torch pads unevenly
    relevance = draw(2, 1, 3, 6, 6)
    same = rules.through_convolution(relevance, inputs, both(weight), rules.Convolution(1, "same", 1, 1), True)
    padded = F.pad(inputs, (1, 2, 1, 2))
    explicit = rules.through_convolution(relevance, padded, both(weight), rules.Convolution(1, 0, 1, 1), True)
    torch.testing.assert_close(same, explicit[..., 1:7, 1:7])


@pytest.mark.parametrize("signed", [False, True], ids=["nonnegative", "signed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_shares_by_positive_contributions(seed: int, signed: bool) -> None:
    inputs, weight, relevance = draw(seed, 2, 6), draw(seed + 1, 4, 6), draw(seed + 2, 2, 4)
    inputs = inputs if signed else inputs.relu()
    result = rules.through_linear(relevance, inputs, both(weight), nonnegative=not signed)
    for image in range(2):
        expected = formulas.linear(relevance[image].numpy(), inputs[image].numpy(), weight.numpy())
        np.testing.assert_allclose(result[image].numpy(), expected, rtol=1e-9, atol=1e-9)
    tokens = rules.through_linear(relevance[:, None], inputs[:, None], both(weight), nonnegative=not signed)
    torch.testing.assert_close(tokens[:, 0], result)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_max_pool_is_a_two_by_two_average(seed: int) -> None:
    inputs = draw(seed, 2, 3, 8, 8).relu()
    relevance = draw(seed + 1, 2, 3, 4, 4)
    options = {"stride": 2, "padding": 1, "ceil_mode": False}
    result = rules.through_max_pool(relevance, inputs, 3, options, nonnegative=True)
    for image in range(2):
        expected = formulas.max_pool(relevance[image].numpy(), inputs[image].numpy())
        np.testing.assert_allclose(result[image].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_residual_sum_splits_by_size(seed: int) -> None:
    main, skip, relevance = draw(seed, 3, 4), draw(seed + 1, 3, 4), draw(seed + 2, 3, 4)
    main[0, 0] = skip[0, 0] = 0
    result = rules.through_sum(relevance, main, skip)
    expected = formulas.split_sum(relevance.numpy(), main.numpy(), skip.numpy())
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-12)


# Conservation: what comes out is what went in, to the ε in the denominators.


def conserved(before: Tensor, after: Tensor) -> None:
    torch.testing.assert_close(after.sum(), before.sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("signed", [False, True], ids=["nonnegative", "signed"])
def test_convolutions_conserve_relevance(options: dict[str, int], signed: bool) -> None:
    inputs, weight = draw(0, 2, 4, 9, 9), draw(1, 8, 4 // options["groups"], 3, 3)
    inputs = inputs if signed else inputs.abs()
    convolution, output = convolved(inputs, weight, options)
    positive = rules.Convolution(**options)(inputs.clamp(min=0), weight.clamp(min=0))
    positive += rules.Convolution(**options)(inputs.clamp(max=0), weight.clamp(max=0))
    relevance = draw(2, *output.shape).abs() * (positive > 0.3)  # what nothing contributed to cannot be handed on
    assert relevance.any()
    conserved(relevance, rules.through_convolution(relevance, inputs, both(weight), convolution, not signed))


@pytest.mark.parametrize("signed", [False, True], ids=["nonnegative", "signed"])
def test_linear_maps_conserve_relevance(signed: bool) -> None:
    inputs, weight, relevance = draw(0, 3, 40), draw(1, 8, 40), draw(2, 3, 8).abs()
    inputs = inputs if signed else inputs.abs()
    conserved(relevance, rules.through_linear(relevance, inputs, both(weight), not signed))


def test_signed_inputs_keep_relevance_positive_and_bounded() -> None:
    inputs, weight = draw(0, 2, 4, 9, 9), draw(1, 8, 4, 3, 3)
    relevance = draw(2, 2, 8, 7, 7).abs()
    result = rules.through_convolution(relevance, inputs, both(weight), rules.Convolution(1, 0, 1, 1), False)
    assert result.min() >= 0
    assert result.sum() <= relevance.sum()


def test_averages_conserve_relevance() -> None:
    inputs = draw(0, 2, 3, 8, 8).abs() + 0.1
    for average, output in [
        (lambda x: F.avg_pool2d(x, 2), (4, 4)),
        (lambda x: F.adaptive_avg_pool2d(x, 1), (1, 1)),
        (lambda x: F.adaptive_avg_pool2d(x, 3), (3, 3)),
        (lambda x: x.mean((2, 3), keepdim=True), (1, 1)),
    ]:
        relevance = draw(1, 2, 3, *output)
        conserved(relevance, rules.through_average(relevance, inputs, average, nonnegative=True))


def test_an_average_of_signed_inputs_gives_to_those_of_its_sign() -> None:
    for signed, expected in (
        ([[1.0, -5.0], [3.0, 0.0]], [[0.0, 8.0], [0.0, 0.0]]),
        ([[1.0, -2.0], [3.0, 0.0]], [[2.0, 0.0], [6.0, 0.0]]),
    ):
        result = rules.through_average(
            torch.tensor([[[[8.0]]]]), torch.tensor([[signed]]), lambda x: F.avg_pool2d(x, 2), nonnegative=False
        )
        torch.testing.assert_close(result, torch.tensor([[expected]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("side", "kernel", "options"),
    [
        (8, 3, {"stride": 2, "padding": 1}),
        (9, 3, {"stride": 3, "padding": 0}),
        (9, 3, {"stride": 1, "padding": 1}),
        (9, 3, {"stride": 2, "padding": 0, "ceil_mode": True}),
    ],
)
def test_max_pools_conserve_relevance(side: int, kernel: int, options: dict[str, Any]) -> None:
    inputs = draw(0, 2, 3, side, side).abs() + 0.1
    output = F.max_pool2d(inputs, kernel, **options)
    relevance = draw(1, *output.shape)
    conserved(relevance, rules.through_max_pool(relevance, inputs, kernel, options, nonnegative=True))


def test_residual_sums_conserve_relevance_exactly_where_anything_flows() -> None:
    main, skip, relevance = draw(0, 50), draw(1, 50), draw(2, 50)
    torch.testing.assert_close(sum(rules.through_sum(relevance, main, skip)), relevance)
    nothing = torch.zeros(3)
    for part in rules.through_sum(torch.ones(3), nothing, nothing):
        assert not part.any()


def test_positive_weights_are_made_once_and_belong_to_their_tensor() -> None:
    kept = rules.PositiveWeights()
    first, second = torch.tensor([1.0, -2.0]), torch.tensor([-3.0, 4.0])
    assert [part.tolist() for part in kept.of(first)] == [[1, 0], [0, -2]]
    assert [part.tolist() for part in kept.of(second)] == [[0, 4], [-3, 0]]
    assert kept.of(first)[0] is kept.of(first)[0]


def test_positive_weights_go_with_weights_that_a_pass_makes() -> None:
    kept, weight = rules.PositiveWeights(), torch.randn(4, 4)
    for factor in range(5):
        kept.of(weight * factor)
    kept.of(weight)
    assert len(kept) == 1
