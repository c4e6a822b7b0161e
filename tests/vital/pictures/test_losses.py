from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.reference import formulas
from vital.pictures import losses
from vital.pictures.losses import frobenius, sort_matching, total_variation

SEEDS = range(3)
Prior = Callable[[torch.Tensor], torch.Tensor]


def tensors(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    activations = torch.randn(2, 3, 7, generator=stream, dtype=torch.float64)
    quantiles = torch.randn(2, 3, 7, generator=stream, dtype=torch.float64).sort(-1).values
    return activations, quantiles, torch.rand(2, 3, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
def test_sort_matching_is_the_formula(seed: int) -> None:
    activations, quantiles, importance = tensors(seed)
    plain = [formulas.sort_matching(a.numpy(), q.numpy()) for a, q in zip(activations, quantiles, strict=True)]
    weighted = [
        formulas.sort_matching(a.numpy(), q.numpy(), w.numpy())
        for a, q, w in zip(activations, quantiles, importance, strict=True)
    ]
    np.testing.assert_allclose(sort_matching(activations, quantiles).numpy(), plain, rtol=1e-12)
    np.testing.assert_allclose(sort_matching(activations, quantiles, importance).numpy(), weighted, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_of_sort_matching_is_its_finite_difference(seed: int) -> None:
    activations, quantiles, importance = tensors(seed)
    upstream = torch.tensor([2.0, -0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(
        sort_matching(activations.requires_grad_(), quantiles, importance), activations, upstream
    )
    for picture in range(2):
        expected = formulas.finite_differences(
            lambda a, picture=picture: formulas.sort_matching(  # type: ignore[misc]
                a, quantiles[picture].numpy(), importance[picture].numpy()
            ),
            activations[picture].detach().numpy(),
        )
        np.testing.assert_allclose(gradient[picture].numpy(), expected * upstream[picture].item(), atol=1e-8)


def test_sort_matching_leaves_its_arguments_alone() -> None:
    activations, quantiles, importance = tensors(0)
    before = [part.clone() for part in (activations, quantiles, importance)]
    sort_matching(activations.requires_grad_(), quantiles, importance).sum().backward()
    for now, then in zip((activations, quantiles, importance), before, strict=True):
        assert torch.equal(now, then)


def test_a_matched_picture_has_no_loss_and_no_gradient() -> None:
    activations, _, _ = tensors(0)
    quantiles = activations.sort(-1).values
    loss = sort_matching(activations.requires_grad_(), quantiles)
    (gradient,) = torch.autograd.grad(loss.sum(), activations)
    assert loss.tolist() == [0, 0]
    assert not gradient.any()


def test_losses_do_not_tie_pictures_together() -> None:
    activations, quantiles, importance = tensors(1)
    pictures = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    for picture in range(2):
        one = slice(picture, picture + 1)
        alone = sort_matching(activations[one], quantiles[one], importance[one])
        assert torch.equal(sort_matching(activations, quantiles, importance)[one], alone)
        assert torch.equal(total_variation(pictures)[one], total_variation(pictures[one]))
        assert torch.equal(frobenius(pictures)[one], frobenius(pictures[one]))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_priors_are_the_formulas(seed: int) -> None:
    pictures = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    arrays = [picture.numpy() for picture in pictures]
    np.testing.assert_allclose(
        total_variation(pictures).numpy(), [formulas.total_variation(x) for x in arrays], rtol=1e-12
    )
    np.testing.assert_allclose(frobenius(pictures).numpy(), [formulas.frobenius(x) for x in arrays], rtol=1e-12)


@pytest.mark.parametrize(
    ("prior", "literal"), [(total_variation, formulas.total_variation), (frobenius, formulas.frobenius)]
)
def test_the_gradients_of_the_priors_are_their_finite_differences(
    prior: Prior, literal: Callable[[np.ndarray], float]
) -> None:
    picture = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(prior(picture).sum(), picture)
    expected = formulas.finite_differences(literal, picture[0].detach().numpy())
    np.testing.assert_allclose(gradient[0].numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("prior", [total_variation, frobenius])
def test_the_priors_have_a_finite_gradient_at_a_plain_picture(prior: Prior) -> None:
    picture = torch.zeros(1, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(prior(picture).sum(), picture)
    assert not gradient.any()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_rows_sorted_in_16_bits_give_the_same_loss_and_gradient(kind: torch.dtype) -> None:
    """As a GPU sorts them, many values equal; against the promoted rows there and on the CPU."""
    stream = torch.Generator().manual_seed(0)
    narrow = (torch.randn(2, 3, 400, generator=stream).relu() * 4).round().div(4).to(kind)
    promoted, shares = narrow.float(), torch.rand(2, 3, generator=stream)
    quantiles = torch.randn(2, 3, 400, generator=stream).sort(-1).values
    squares, gradient = losses._match(promoted, quantiles, shares, narrow=narrow)
    for others in (losses._match(promoted, quantiles, shares), losses._match_on_cpu(promoted, quantiles, shares, None)):
        torch.testing.assert_close(squares, others[0])
        torch.testing.assert_close(gradient, others[1])
    assert torch.equal(gradient, losses._match(promoted, quantiles, shares)[1])
    assert torch.equal(
        sort_matching(promoted, quantiles, shares, narrow=narrow), sort_matching(promoted, quantiles, shares)
    )
