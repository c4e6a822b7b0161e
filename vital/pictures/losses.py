"""Losses, each one number per picture: distribution matching, and the image priors of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vital.measuring.rows import share_out, sort_in_place
from vital.network.neurons import GUARD, relevance_map

CACHED = 1 << 17
"""Activations handled together on a CPU: what fits its cache beside their order."""
LINE = 16
"""Channels that share a line of the cache where channels are the innermost axis: fewer together would read it twice."""


class _SortMatching(torch.autograd.Function):
    """The sort is a constant for the gradient, so the gradient is known as soon as the loss is: it alone is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        activations: Tensor,
        quantiles: Tensor,
        weights: Tensor,
        relevance: Tensor | None,
        narrow: Tensor | None,
    ) -> Tensor:
        shares = weights / activations[0].numel()
        if activations.device.type == "cpu":
            squares, gradient = _match_on_cpu(activations, quantiles, shares, relevance)
        else:
            squares, gradient = _match(activations, quantiles, shares, relevance, narrow)
        ctx.save_for_backward(gradient)
        return squares.sum(1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None, None], None, None, None, None


def _match(
    activations: Tensor,
    quantiles: Tensor,
    shares: Tensor,
    relevance: Tensor | None = None,
    narrow: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted squared distance of each row (picture, channel), and its gradient (picture, channel, site).

    Of equal values the earlier site comes first, as in `_match_on_cpu`. ``narrow`` are the activations in the 16 bits
    that they had: they have the same order, and sorting them moves half the bytes.
    """
    scale = None if relevance is None else relevance_map(relevance)
    rows = (activations if narrow is None else narrow) if scale is None else scale * activations
    ordered, order = torch.sort(rows, dim=-1, stable=True)
    ordered = ordered.to(activations.dtype)
    difference = ordered - quantiles
    weighted = difference * shares[..., None]
    squares = (weighted * difference).sum(-1)
    gradient = torch.empty_like(weighted).scatter_(-1, order, weighted * 2)
    return squares, gradient if scale is None else gradient * scale


def _match_on_cpu(
    activations: Tensor, quantiles: Tensor, shares: Tensor, relevance: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `_match`, a cacheful of rows at a time: weighed, sorted, compared and put back before the next are touched."""
    gradient = torch.empty_like(activations)  # in the memory order of the activations: nothing is rearranged later
    values, targets, weights, out = (part.detach().numpy() for part in (activations, quantiles, shares, gradient))
    relevant = None if relevance is None else relevance.detach().numpy()
    squares = np.empty(values.shape[:2], values.dtype)
    pictures, channels, sites = values.shape
    step = max(LINE, CACHED // sites)

    def work(part: tuple[int, slice]) -> None:
        rows = np.array(values[part], order="C")
        scale = None if relevant is None else _map(relevant[part])
        if scale is not None:
            rows *= scale
        order = sort_in_place(rows)
        rows -= targets[part]
        squares[part] = np.einsum("rs,rs->r", rows, rows) * weights[part]
        rows *= 2 * weights[part][:, None]
        back = np.empty_like(rows)
        back.reshape(-1)[order] = rows.reshape(-1)
        if scale is not None:
            back *= scale
        out[part] = back

    share_out(
        [(picture, slice(first, first + step)) for picture in range(pictures) for first in range(0, channels, step)],
        work,
    )
    return torch.from_numpy(squares), gradient


def _map(relevance: Float[np.ndarray, "channel site"]) -> Float[np.ndarray, "channel site"]:
    """`vital.network.neurons.relevance_map` of some rows."""
    rows = np.array(relevance, order="C")
    low = rows.min(1, keepdims=True)
    width = rows.max(1, keepdims=True) - low
    rows -= low
    rows /= width + rows.dtype.type(GUARD)
    return rows


def sort_matching(
    activations: Float[Tensor, "picture channel site"],
    quantiles: Float[Tensor, "picture channel site"],
    importance: Float[Tensor, "picture channel"] | None = None,
    relevance: Float[Tensor, "picture channel site"] | None = None,
    narrow: Float[Tensor, "picture channel site"] | None = None,
) -> Float[Tensor, "picture"]:
    """Mean over channels and sites of (sort(A) − q)², each channel weighted by its importance (VITAL, section 3).

    With ``relevance``, a constant, R̂ · A is matched instead of A (`vital.network.neurons.relevance_map`).
    ``quantiles`` are sorted rows at the picture's own sites (`vital.measuring.rows.resample`). ``narrow`` are the same
    activations before they were promoted, which a GPU sorts faster; the result is the same.

    >>> a = torch.tensor([[[3.0, 1.0, 2.0]]])
    >>> sort_matching(a, torch.tensor([[[1.0, 2.0, 6.0]]]))
    tensor([3.])
    """
    if importance is None:
        importance = activations.new_ones(activations.shape[:2])
    loss: Tensor = _SortMatching.apply(  # type: ignore[no-untyped-call]
        activations, quantiles.expand_as(activations), importance, relevance, narrow
    )
    return loss


def total_variation(pictures: Float[Tensor, "picture colour row column"]) -> Float[Tensor, "picture"]:
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


def frobenius(pictures: Float[Tensor, "picture colour row column"]) -> Float[Tensor, "picture"]:
    """Frobenius norm of each picture; its gradient at a zero picture is zero, not undefined."""
    norm: Tensor = torch.linalg.vector_norm(pictures, dim=(1, 2, 3))
    return norm
