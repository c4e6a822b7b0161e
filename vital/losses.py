"""Losses, each one number per picture: distribution matching, and the image priors of the paper."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vital.quantiles import order_rows


class _SortMatching(torch.autograd.Function):
    """The sort is a constant for the gradient, so the gradient is known as soon as the loss is: it alone is kept."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, quantiles: Tensor, weights: Tensor) -> Tensor:
        ordered, order = order_rows(activations)
        difference = ordered.sub_(quantiles)
        weighted = difference * (weights[..., None] / difference[0].numel())
        loss = (weighted * difference).sum((1, 2))
        gradient = torch.empty_like(weighted).scatter_(-1, order, weighted.mul_(2))
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None, None], None, None


def sort_matching(
    activations: Float[Tensor, "picture channel site"],
    quantiles: Float[Tensor, "picture channel site"],
    importance: Float[Tensor, "picture channel"] | None = None,
) -> Float[Tensor, "picture"]:
    """Mean over channels and sites of (sort(A) − q)², each channel weighted by its importance (VITAL, section 3).

    ``quantiles`` are sorted rows at the picture's own sites (`vital.quantiles.resample`).

    >>> a = torch.tensor([[[3.0, 1.0, 2.0]]])
    >>> sort_matching(a, torch.tensor([[[1.0, 2.0, 6.0]]]))
    tensor([3.])
    """
    if importance is None:
        importance = activations.new_ones(activations.shape[:2])
    loss: Tensor = _SortMatching.apply(activations, quantiles.expand_as(activations), importance)  # type: ignore[no-untyped-call]
    return loss


def total_variation(pictures: Float[Tensor, "picture 3 row column"]) -> Float[Tensor, "picture"]:
    """Sum of the Frobenius norms of the horizontal, vertical and both diagonal differences.

    >>> total_variation(torch.ones(1, 3, 4, 4))
    tensor([0.])
    """
    x = pictures
    differences = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([frobenius(part) for part in differences]).sum(0)


def frobenius(pictures: Float[Tensor, "picture 3 row column"]) -> Float[Tensor, "picture"]:
    """Frobenius norm of each picture; its gradient at a zero picture is zero, not undefined."""
    norm: Tensor = torch.linalg.vector_norm(pictures, dim=(1, 2, 3))
    return norm
