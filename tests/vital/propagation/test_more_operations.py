"""Relevance through operations that some networks use besides: each against its rule written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vital.errors import UnsupportedOperation
from vital.propagation.mode import Relevance


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arrived(function: Callable[[Tensor], Tensor], inputs: Tensor, relevance: Tensor) -> Tensor:
    mode = Relevance()
    given = inputs.clone().requires_grad_()
    with mode:
        output = function(given)
    return mode.backward(output, relevance, [given])[0]


def matrix_of(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear map: what it makes of each unit vector."""
    size = int(np.prod(shape))
    return np.stack([function(unit.view(shape)).flatten().numpy() for unit in torch.eye(size, dtype=torch.float64)], 1)


def shares_by_sign(matrix: np.ndarray, inputs: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Each output's relevance to the inputs of its own sign, in proportion to what they add to it."""
    found = np.zeros(len(inputs))
    for row, part in zip(matrix, relevance, strict=True):
        terms = row * inputs
        kept = np.maximum(terms, 0) if terms.sum() > 0 else np.maximum(-terms, 0)
        found += part * kept / (kept.sum() + 1e-5)
    return found


AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda x: F.interpolate(x, (6, 5), mode="bilinear", align_corners=False),
    "smaller": lambda x: F.interpolate(x, (2, 2), mode="bilinear", antialias=True),
    "sum": lambda x: x.sum((2, 3)),
}


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("seed", range(2))
def test_maps_of_another_size_and_sums_share_by_sign(name: str, seed: int) -> None:
    inputs = draw(seed, 1, 2, 9)

    def function(x: Tensor) -> Tensor:
        return AVERAGES[name](x.view(1, 2, 3, 3))

    relevance = draw(seed + 5, *function(inputs).shape)
    expected = shares_by_sign(matrix_of(function, (1, 2, 9)), inputs.flatten().numpy(), relevance.flatten().numpy())
    found = arrived(function, inputs, relevance)
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-6, atol=1e-9)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "reshape_as": lambda x: x.reshape_as(torch.zeros(3, 8)),
    "type_as": lambda x: x.type_as(torch.zeros(1, dtype=torch.float64)),
    "repeat_interleave": lambda x: x.repeat_interleave(3, dim=1),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0, 2])),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "tile": lambda x: x.tile(2, 1, 1),
    "hstack": lambda x: torch.hstack([x, x]),
    "where": lambda x: torch.where(torch.arange(3) > 0, x, torch.zeros(1, dtype=x.dtype)),
    "masked_fill": lambda x: x.masked_fill(torch.arange(3) > 0, 0.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_moved_values_take_their_relevance_along_and_copies_add_theirs(name: str) -> None:
    function, inputs = MOVES[name], draw(0, 2, 4, 3)
    relevance = draw(1, *function(inputs).shape)
    found = arrived(function, inputs, relevance)
    # Each copy is a one in the matrix of the move.
    matrix = matrix_of(function, (2, 4, 3))
    assert set(np.unique(matrix)) <= {0.0, 1.0}
    np.testing.assert_allclose(found.flatten().numpy(), matrix.T @ relevance.flatten().numpy(), rtol=1e-12)
    kept = torch.from_numpy(matrix.sum(1)) > 0  # what is masked out has no relevance to give
    torch.testing.assert_close(found.sum(), relevance.flatten()[kept].sum())


def test_addcmul_is_the_sum_and_the_product_that_it_is() -> None:
    scale, shift, relevance = draw(1, 3), draw(2, 3), draw(3, 2, 4, 3)
    inputs = draw(0, 2, 4, 3)
    # An affine map of one activation, as of a norm, hands everything on.
    torch.testing.assert_close(arrived(lambda x: torch.addcmul(shift, scale, x), inputs, relevance), relevance)
    other = draw(4, 2, 4, 3)
    found = arrived(lambda x: torch.addcmul(x, scale, x * 1.0 + other, value=2), inputs, relevance)
    main, skip = (2 * scale * (inputs + other)).abs(), inputs.abs()
    whole = main + skip
    torch.testing.assert_close(found, relevance * skip / whole + relevance * main / whole)
    both = torch.stack([inputs, other], 1).flatten(2)  # (2, two summands, 12)
    split = arrived(
        lambda x: torch.addcmul(x[:, 0].view(2, 4, 3), scale, x[:, 1].view(2, 4, 3), value=2), both, relevance
    )
    main = (2 * scale * other).abs()
    torch.testing.assert_close(split[:, 0].view(2, 4, 3), relevance * skip / (skip + main))
    torch.testing.assert_close(split[:, 1].view(2, 4, 3), relevance * main / (skip + main))


def test_a_broadcast_activation_takes_the_relevance_of_all_its_copies() -> None:
    inputs, scale, relevance = draw(0, 2, 4, 1), draw(1, 4, 3), draw(2, 2, 4, 3)
    expected = relevance.sum(-1, keepdim=True)
    for function in (lambda x: x * scale, lambda x: x + scale):
        torch.testing.assert_close(arrived(function, inputs, relevance), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolutions_share_by_positive_contributions(stride: int) -> None:
    """As the linear map that they are: z = W⁺a⁺ + W⁻a⁻."""
    inputs, kernel = draw(0, 1, 2, 9), draw(1, 2, 3, 3, 3)

    def function(x: Tensor, weight: Tensor = kernel) -> Tensor:
        return F.conv_transpose2d(x.view(1, 2, 3, 3), weight, None, stride, 1)

    relevance = draw(2, *function(inputs).shape)
    signs = kernel.clamp(min=0), kernel.clamp(max=0)
    positive, negative = (matrix_of(partial(function, weight=part), (1, 2, 9)) for part in signs)
    a = inputs.flatten().numpy()
    up, down = np.maximum(a, 0), np.minimum(a, 0)
    ratio = relevance.flatten().numpy() / (positive @ up + negative @ down + 1e-5)
    expected = up * (positive.T @ ratio) + down * (negative.T @ ratio)
    np.testing.assert_allclose(arrived(function, inputs, relevance).flatten().numpy(), expected, rtol=1e-8, atol=1e-10)


def test_an_adaptive_max_pool_shares_as_the_average_of_its_windows() -> None:
    inputs, relevance = draw(0, 1, 2, 16).relu(), draw(1, 1, 2, 2, 2)
    found = arrived(lambda x: F.adaptive_max_pool2d(x.view(1, 2, 4, 4), 2), inputs, relevance).view(1, 2, 4, 4)
    for row, column in np.ndindex(2, 2):
        window = (..., slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
        values = inputs.view(1, 2, 4, 4)[window]
        share = values / 4 / (values.mean((2, 3), keepdim=True) + 1e-5)
        torch.testing.assert_close(found[window], share * relevance[..., row, column, None, None])


BICUBIC: dict[str, dict[str, Any]] = {
    "larger": {"size": (5, 7)},
    "smaller": {"size": (2, 2), "antialias": True},
    "one size": {"size": 4, "align_corners": True},
    "scaled": {"scale_factor": 1.5},
    "scaled apart": {"scale_factor": (2.0, 0.5)},
}


@pytest.mark.parametrize("name", BICUBIC)
@pytest.mark.parametrize("rectified", [True, False])
def test_bicubic_maps_share_positive_contributions(name: str, rectified: bool) -> None:
    """z⁺ of the matrix that the interpolation is, written out."""
    inputs = draw(3, 1, 2, 12)

    def function(x: Tensor) -> Tensor:
        x = x.view(1, 2, 3, 4)
        return F.interpolate(F.relu(x) if rectified else x, mode="bicubic", **BICUBIC[name])

    matrix = matrix_of(lambda x: F.interpolate(x.view(1, 2, 3, 4), mode="bicubic", **BICUBIC[name]), (24,))
    relevance = draw(4, *function(inputs).shape)
    values = inputs.clamp(min=0) if rectified else inputs
    terms = np.maximum(matrix * values.flatten().numpy(), 0)
    expected = (relevance.flatten().numpy()[:, None] * terms / (terms.sum(1, keepdims=True) + 1e-5)).sum(0)
    np.testing.assert_allclose(arrived(function, inputs, relevance).flatten().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_powers_are_activation_functions() -> None:
    relevance = draw(1, 2, 3, 4)
    assert torch.equal(arrived(lambda x: x.relu() ** 2, draw(0, 2, 3, 4), relevance), relevance)


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "convolution": (
        lambda x: F.conv2d(input=x, weight=draw(3, 4, 2, 3, 3)),
        lambda x: F.conv2d(x, draw(3, 4, 2, 3, 3)),
    ),
    "flatten": (lambda x: torch.flatten(input=x, start_dim=1), lambda x: torch.flatten(x, 1)),
    "cat": (lambda x: torch.cat(tensors=[x, x], dim=1), lambda x: torch.cat([x, x], 1)),
    "sum": (lambda x: torch.add(input=x, other=x), lambda x: x + x),
    "pool": (lambda x: F.avg_pool2d(input=x, kernel_size=2), lambda x: F.avg_pool2d(x, 2)),
    "where": (
        lambda x: torch.where(condition=torch.ones(()).bool(), input=x, other=x),
        lambda x: torch.where(torch.ones(()).bool(), x, x),
    ),
    "addcmul": (lambda x: torch.addcmul(input=x, tensor1=x, tensor2=x), lambda x: torch.addcmul(x, x, x)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_an_operation_that_is_called_with_names_has_the_same_relevance(name: str) -> None:
    inputs = draw(0, 1, 2, 16)
    by_name, by_position = SPELLINGS[name]
    begun = by_position(inputs.view(1, 2, 4, 4)).abs()

    def seen(call: Callable[[Tensor], Tensor]) -> Tensor:
        return arrived(lambda x: call(x.view(1, 2, 4, 4)), inputs, begun)

    assert torch.equal(seen(by_name), seen(by_position))


@pytest.mark.parametrize("times", [0.5, -2.0])
def test_a_sum_of_one_activation_and_a_multiple_of_another_is_the_sum_and_the_multiple(times: float) -> None:
    both = draw(0, 1, 2, 3)
    found = arrived(lambda x: torch.add(x[:, 0], x[:, 1], alpha=times), both, torch.ones(1, 3, dtype=torch.float64))
    sizes = (both * torch.tensor([[1.0], [times]])).abs()
    assert torch.allclose(found, sizes / sizes.sum(1))


FILLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "where": lambda x: F.relu(x).where(x > 0.5, x),
    "masked_fill": lambda x: F.relu(x).masked_fill(x < 0.5, -3.0),
    "pad": lambda x: F.pad(F.relu(x), (1, 1), value=-3.0),
}


@pytest.mark.parametrize("name", FILLINGS)
def test_values_that_are_put_among_rectified_ones_may_be_negative(name: str) -> None:
    """Negative inputs contribute through negative weights: no relevance is less than zero, and all arrives."""
    inputs, matrix = draw(0, 1, 2, 6), draw(1, 5, 8 if name == "pad" else 6)
    filled = FILLINGS[name](inputs)
    begun = (filled @ matrix.T).clamp(min=0)
    terms = (filled[:, :, None] * matrix).clamp(min=0)
    expected = (terms * (begun / (terms.sum(-1) + 1e-5))[..., None]).sum(2)
    kept = expected[..., 1:-1] if name == "pad" else torch.where(filled == -3, 0, expected)
    found = arrived(lambda x: F.linear(FILLINGS[name](x), matrix), inputs, begun)
    assert torch.allclose(found, kept)


def test_a_dilated_max_pool_is_refused_in_the_pass_and_not_after_it() -> None:
    with pytest.raises(UnsupportedOperation, match="dilation"):
        arrived(
            lambda x: F.max_pool2d(x.view(1, 2, 6, 6), 3, stride=1, padding=1, dilation=2),
            draw(0, 1, 2, 36),
            torch.ones(1, 2, 4, 4, dtype=torch.float64),
        )


def test_a_type_that_is_asked_for_is_no_activation() -> None:
    def function(x: Tensor) -> Tensor:
        rectified = F.relu(x)
        assert rectified.type() == "torch.DoubleTensor"
        return rectified

    begun = torch.ones(1, 1, 3, dtype=torch.float64)
    assert torch.equal(arrived(function, draw(0, 1, 1, 3), begun), begun)
