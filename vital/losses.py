"""Losses, each one number per picture: distribution matching, and the image priors of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vital.quantiles import for_rows, order_rows

CACHED = 1 << 17
"""Activations handled together on a CPU: what fits its cache beside their order."""


class _SortMatching(torch.autograd.Function):
    """The sort is a constant for the gradient, so the gradient is known as soon as the loss is: it alone is kept."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, quantiles: Tensor, weights: Tensor) -> Tensor:
        shares = weights / activations[0].numel()
        rows = _match_on_cpu if activations.device.type == "cpu" else _match
        squares, gradient = rows(activations, quantiles, shares)
        ctx.save_for_backward(gradient)
        return squares.sum(1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None, None], None, None


def _match(activations: Tensor, quantiles: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted squared distance of each row (picture, channel), and its gradient (picture, channel, site)."""
    ordered, order = order_rows(activations)
    difference = ordered - quantiles
    weighted = difference * shares[..., None]
    return (weighted * difference).sum(-1), torch.empty_like(weighted).scatter_(-1, order, weighted * 2)


def _match_on_cpu(activations: Tensor, quantiles: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """As `_match`, a cacheful of rows at a time: sorted, compared and put back before the next ones are touched."""
    sites = activations.shape[-1]
    values = activations.detach().reshape(-1, sites).numpy()
    targets, weights = quantiles.detach().reshape(-1, sites).numpy(), shares.reshape(-1).numpy()
    squares, gradient = np.empty_like(values, shape=len(values)), np.empty_like(values, shape=values.shape)

    def work(part: slice) -> None:
        order = np.argsort(values[part], axis=1)
        difference = np.take_along_axis(values[part], order, axis=1)
        difference -= targets[part]
        squares[part] = np.einsum("rs,rs->r", difference, difference) * weights[part]
        difference *= 2 * weights[part, None]
        np.put_along_axis(gradient[part], order, difference, axis=1)

    for_rows(len(values), CACHED // sites, work)
    shape = activations.shape
    return torch.from_numpy(squares).reshape(shape[:2]), torch.from_numpy(gradient).reshape(shape)


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
