"""How sets of pictures and photographs resemble each other: in a network's features, and in their own pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8


def frechet_distance(
    some: Float[np.ndarray, "image feature"], others: Float[np.ndarray, "other_image feature"]
) -> float:
    """Fréchet distance of two sets of features taken as Gaussians: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Heusel et
    al., "GANs trained by a two time-scale update rule" (2017)).

    With Σ = AᵀA the trace of the root is the sum of the singular values of A₁A₂ᵀ, which is exact for fewer images than
    features, too. Few images make it larger, by an amount that depends on their number: compare at equal numbers. NaN
    for fewer than two images.

    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    if min(len(some), len(others)) < 2:
        return float("nan")
    means = [part.mean(0, dtype=np.float64) for part in (some, others)]
    roots = [(part - mean) / np.sqrt(len(part) - 1) for part, mean in zip((some, others), means, strict=True)]
    spread = sum(float(np.square(root).sum()) for root in roots)
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(np.square(means[0] - means[1]).sum() + spread - 2 * shared)


def unit(features: Float[np.ndarray, "*image feature"]) -> Float[np.ndarray, "*image feature"]:
    """Features of length one; a zero stays zero."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    scaled: np.ndarray = features / np.where(length > 0, length, 1)
    return scaled


def nearest_similarity(
    features: Float[np.ndarray, "picture feature"], references: Sequence[Float[np.ndarray, "_reference feature"]]
) -> Float[np.ndarray, "picture"]:
    """Greatest cosine between a picture's features and those of its own references; NaN where it has none. One means
    a copy, as far as the network can tell."""
    return np.array(
        [
            float((unit(own) @ one).max()) if len(own) else np.nan
            for one, own in zip(unit(features), references, strict=True)
        ]
    )


def diversity(features: Float[np.ndarray, "seed picture feature"]) -> Float[np.ndarray, "picture"]:
    """One less the mean cosine between the pictures of a neuron made with different seeds; NaN for a single seed.

    >>> diversity(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    array([1.])
    """
    seeds = len(features)
    if seeds < 2:
        return np.full(features.shape[1], np.nan)
    rows = unit(features)
    total = np.einsum("spf,tpf->p", rows, rows) - np.einsum("spf,spf->p", rows, rows)
    apart: np.ndarray = 1 - total / (seeds * (seeds - 1))
    return apart


def variation(pixels: UInt8[np.ndarray, "picture side side 3"]) -> Float[np.ndarray, "picture"]:
    """Mean absolute difference of neighbouring pixels, in bytes, over both directions and all colours. It does not
    depend on the side of smooth pictures' grain, only on how much neighbours differ."""
    values = pixels.astype(np.float64)
    down, right = np.abs(np.diff(values, axis=1)), np.abs(np.diff(values, axis=2))
    mean: np.ndarray = (down.mean((1, 2, 3)) + right.mean((1, 2, 3))) / 2
    return mean
