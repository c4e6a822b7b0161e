"""Rules of attention and of products, against the formulas written out, and as the pass catches them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference import attention as literal
from tests.reference.networks import randomise
from vital.errors import UnsupportedOperation
from vital.propagation.attention import attention_weights, merged_mask, through_product, through_weighted_sum
from vital.propagation.mode import Relevance


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def relevance_of(function: Callable[..., Tensor], start: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Relevance at the inputs, beginning with ``start`` at the output; checks that the gradient stays true."""
    live = [value.detach().clone().requires_grad_() for value in inputs]
    mode = Relevance()
    with mode:
        output = function(*live)
    flat = [value.requires_grad_() for value in live]
    with mode._relevant():
        result = torch.autograd.grad(output, flat, start, retain_graph=True, allow_unused=True)
    gradient = torch.autograd.grad(output, flat, start, allow_unused=True)
    bare = [value.detach().clone().requires_grad_() for value in inputs]
    expected = torch.autograd.grad(function(*bare), bare, start, allow_unused=True)
    for mine, true in zip(gradient, expected, strict=True):
        assert (mine is None) == (true is None)
        if true is not None:
            torch.testing.assert_close(mine, true)
    return [torch.zeros_like(value) if part is None else part for value, part in zip(live, result, strict=True)]


def test_weights_are_the_softmax_of_products_with_every_kind_of_mask() -> None:
    queries, keys = draw(4, 3), draw(4, 3)
    hidden = np.triu(np.full((4, 4), -np.inf), 1)
    expected = literal.attention_weights(queries.numpy(), keys.numpy(), hidden)
    seen = torch.ones(4, 4, dtype=torch.bool).tril()
    for result in (
        attention_weights(queries, keys, causal=True),
        attention_weights(queries, keys, seen),
        attention_weights(queries, keys, torch.from_numpy(hidden)),
        attention_weights(queries * 2, keys, seen, scale=0.5 / math.sqrt(3)),
    ):
        np.testing.assert_allclose(result.numpy(), expected)


def test_a_weighted_sum_gives_to_the_values_of_its_sign_and_loses_nothing() -> None:
    weights, values, relevance = draw(5, 5).softmax(-1), draw(5, 4), draw(5, 4)
    result = through_weighted_sum(relevance, weights, values)
    np.testing.assert_allclose(
        result.numpy(), literal.weighted_sum(relevance.numpy(), weights.numpy(), values.numpy()), rtol=1e-10
    )
    torch.testing.assert_close(result.sum(), relevance.sum(), rtol=1e-3, atol=1e-3)
    assert through_weighted_sum(relevance.abs(), weights, -values.abs()).min() >= 0  # bounded whatever the signs


def test_a_product_of_activations_gives_half_of_each_term_to_each_factor() -> None:
    first, second, relevance = draw(3, 4), draw(4, 5), draw(3, 5)
    expected = literal.matrix_product(relevance.numpy(), first.numpy(), second.numpy())
    for parts in (
        through_product(relevance, first, second, torch.matmul, 2),
        relevance_of(lambda a, b: a @ b, relevance, first, second),
        relevance_of(lambda a, b: torch.einsum("ij,jk->ik", a, b), relevance, first, second),
        relevance_of(lambda a, b: torch.bmm(a[None], b[None])[0], relevance, first, second),
    ):
        for mine, true in zip(parts, expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), true, rtol=1e-9, atol=1e-12)


def test_a_parameter_in_a_product_takes_nothing() -> None:
    inputs, weight, relevance = draw(6, 4), draw(4, 5), draw(6, 5)
    expected = literal.projection(relevance.numpy(), inputs.numpy(), weight.T.numpy())
    for function in (lambda x: x @ weight, lambda x: (weight.T @ x.T).T, lambda x: torch.matmul(x, weight)):
        [result] = relevance_of(function, relevance, inputs)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-12)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = F.dropout((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1), 0.5, False)
    return weights.reshape(2, -1, 5, 5).flatten(0, 1).matmul(v)


@pytest.mark.parametrize("function", [F.scaled_dot_product_attention, by_hand], ids=["one call", "by hand"])
def test_attention_gives_everything_to_the_values(function: Callable[..., Tensor]) -> None:
    queries, keys, values, relevance = draw(2, 5, 3), draw(2, 5, 3), draw(2, 5, 3), draw(2, 5, 3)
    to_queries, to_keys, to_values = relevance_of(function, relevance, queries, keys, values)
    assert not to_queries.any()
    assert not to_keys.any()
    for head in range(2):
        weights = literal.attention_weights(queries[head].numpy(), keys[head].numpy())
        expected = literal.weighted_sum(relevance[head].numpy(), weights, values[head].numpy())
        np.testing.assert_allclose(to_values[head].numpy(), expected, rtol=1e-9, atol=1e-12)


def multi_head(width: int = 6, heads: int = 2) -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(width, heads, batch_first=True).double()
    randomise(module, 1)
    return module


@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_is_the_written_out_path_of_its_values(masked: bool) -> None:
    module, tokens, relevance = multi_head(), draw(2, 5, 6), draw(2, 5, 6)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked else None
    added = np.triu(np.full((5, 5), -np.inf), 1) if masked else None
    [result] = relevance_of(lambda x: module(x, x, x, need_weights=False, attn_mask=hidden)[0], relevance, tokens)
    assert module.in_proj_weight is not None
    projections = tuple(part.numpy() for part in module.in_proj_weight.detach().chunk(3))
    biases = tuple(part.numpy() for part in module.in_proj_bias.detach().chunk(3))
    for image in range(2):
        expected = literal.multi_head(
            relevance[image].numpy(), tokens[image].numpy(), projections, biases,  # type: ignore[arg-type]
            module.out_proj.weight.detach().numpy(), 2, added,
        )  # fmt: skip
        np.testing.assert_allclose(result[image].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_multi_head_attention_in_its_other_spellings() -> None:
    """Without a batch, with weights asked for, with its own projections, and with padding."""
    module, tokens, relevance = multi_head(), draw(5, 6), draw(5, 6)
    [bare] = relevance_of(lambda x: module(x, x, x, need_weights=False)[0], relevance, tokens)
    [asked] = relevance_of(lambda x: module(x, x, x, need_weights=True)[0], relevance, tokens)
    torch.testing.assert_close(asked, bare)
    other = nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True).double()
    randomise(other, 2)
    parts = relevance_of(lambda q, k, v: other(q, k, v)[0], draw(1, 5, 6), draw(1, 5, 6), draw(1, 7, 4), draw(1, 7, 3))
    assert [bool(part.any()) for part in parts] == [False, False, True]
    hidden = torch.tensor([[False] * 4 + [True]])
    [padded] = relevance_of(
        lambda x: module(x, x, x, key_padding_mask=hidden, need_weights=False)[0], relevance[None], tokens[None]
    )
    assert not padded[0, 4].any()
    assert padded[0, :4].any()


def test_masks_merge_into_one_that_is_added() -> None:
    like = draw(1)
    assert merged_mask(None, None, like, 2, 3) is None
    pair, padding = torch.ones(4, 4, dtype=torch.bool).triu(1), torch.zeros(3, 4, dtype=torch.bool)
    padding[1, 0] = True
    both = merged_mask(pair, padding, like, 2, 3)
    assert both is not None
    assert both.shape == (3, 1, 4, 4)
    assert both[1].isinf().sum() == 6 + 4
    assert both[0].isinf().sum() == 6
    heads = merged_mask(draw(6, 4, 4), None, like, 2, 3)
    assert heads is not None
    assert heads.shape == (3, 2, 4, 4)


def test_keys_from_elsewhere_are_refused() -> None:
    module = nn.MultiheadAttention(6, 2, batch_first=True, add_zero_attn=True)
    x = torch.rand(1, 5, 6).requires_grad_()
    with pytest.raises(UnsupportedOperation, match=r"multi_head_attention_forward with .*add_zero_attn"), Relevance():
        module(x, x, x)


def test_grouped_queries_and_three_factors_are_refused() -> None:
    x = torch.rand(1, 4, 5, 6).requires_grad_()
    with pytest.raises(UnsupportedOperation, match="enable_gqa"), Relevance():
        F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)
    with pytest.raises(UnsupportedOperation, match="einsum of 3 factors"), Relevance():
        torch.einsum("bhij,bhkj,bhkl->bhil", x, x, x)


def test_the_relevance_of_an_image_does_not_depend_on_its_batch() -> None:
    module, tokens, relevance = multi_head(), draw(3, 5, 6), draw(3, 5, 6)
    [together] = relevance_of(lambda x: module(x, x, x, need_weights=False)[0], relevance, tokens)
    for image in range(3):
        [alone] = relevance_of(
            lambda x: module(x, x, x, need_weights=False)[0], relevance[image, None], tokens[image, None]
        )
        torch.testing.assert_close(together[image, None], alone)


# Elementwise products, quotients and differences.


def test_a_product_of_equals_gives_half_to_each_and_a_self_gate_everything_back() -> None:
    first, second, start = draw(2, 3, 4), draw(2, 3, 4), draw(2, 3, 4)
    parts = relevance_of(lambda a, b: a * b, start, first, second)
    assert all(torch.equal(part, start / 2) for part in parts)
    for function in (lambda x: x * x, lambda x: x * torch.sigmoid(x)):
        torch.testing.assert_close(relevance_of(function, start, first)[0], start)


def test_attention_weights_are_a_gate_of_the_same_size() -> None:
    features, scores, start = draw(2, 3, 4), draw(2, 3, 4), draw(2, 3, 4)
    to_features, to_scores = relevance_of(lambda x, s: x * s.softmax(-1), start, features, scores)
    assert torch.equal(to_features, start)
    assert not to_scores.any()


def test_what_is_divided_takes_everything() -> None:
    first, second, start = draw(2, 3, 4), draw(2, 3, 4).exp(), draw(2, 3, 4)
    to_first, to_second = relevance_of(lambda a, b: a / b, start, first, second)
    assert torch.equal(to_first, start)
    assert not to_second.any()
    assert torch.equal(relevance_of(lambda a: a / 3, start, first)[0], start)
    assert torch.equal(relevance_of(F.normalize, start, first)[0], start)
    with pytest.raises(UnsupportedOperation, match="div"):
        relevance_of(lambda a: torch.ones(()).double().div(a), start, second)


def test_a_difference_splits_by_size_and_a_sign_changes_nothing() -> None:
    first, second, start = draw(2, 3, 4), draw(2, 3, 4), draw(2, 3, 4)
    to_first, to_second = relevance_of(lambda a, b: a - b, start, first, second)
    torch.testing.assert_close(to_first, start * first.abs() / (first.abs() + second.abs()))
    torch.testing.assert_close(to_first + to_second, start)
    for function in (lambda a: a - 1, lambda a: 1 - a, lambda a: -a):
        assert torch.equal(relevance_of(function, start, first)[0], start)
    with pytest.raises(UnsupportedOperation, match="sub"):
        relevance_of(lambda a: a - draw(2, 3, 4), start, draw(2, 3, 1))
