"""What is measured of pictures: how far they activate their neuron, how networks classify them, how near they come to
the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor

from vital.measuring.rows import resample, site_levels, sort_rows
from vital.measuring.targets import Target
from vital.memory import by_parts
from vital.network.arithmetic import rounding
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import CLASSES, Layout, anchor, probe
from vital.pictures.transforms import REFERENCE_SIDE

SHIFT = 8
"""Pixels that a picture is moved by, of a 224-pixel one, down and to the right."""
BLUR = 1.0
"""Deviation in pixels, of a 224-pixel picture, of the blur that takes away what only a network responds to."""


@dataclass(frozen=True)
class PeakRanks:
    """How far pictures activate their own channel: ``peak`` is its greatest activation, ``rank`` how many channels of
    the layer are activated more (0 is best), each measured by its peaks over the data set (z-score)."""

    peak: Float[np.ndarray, "picture"]
    rank: Int[np.ndarray, "picture"]


def softened(pixels: UInt8[Tensor, "picture colour row column"]) -> UInt8[Tensor, "picture colour row column"]:
    """Pictures moved by `SHIFT` (the edge repeated) and blurred by `BLUR`, both in proportion to their side."""
    scale = pixels.shape[-1] / REFERENCE_SIDE
    by, deviation = round(SHIFT * scale), BLUR * scale
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels.device).expand(pixels.shape[1], 1, 1, -1)
    moved = F.pad(pixels.float(), (by + reach, reach, by + reach, reach), mode="replicate")
    moved = moved[..., : moved.shape[-2] - by, : moved.shape[-1] - by]
    smooth = F.conv2d(F.conv2d(moved, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))
    return smooth.round().clamp(0, 255).to(torch.uint8)


def peak_ranks(
    model: Model,
    reads: Readout,
    neurons: Sequence[int],
    pixels: UInt8[np.ndarray, "picture side side colour"],
    layouts: Mapping[str, Layout],
    usual: tuple[Float[np.ndarray, "neuron"], Float[np.ndarray, "neuron"]],
) -> PeakRanks:
    """How far each picture, softened, activates its own neuron of those that ``reads`` is of.

    ``usual`` are mean and deviation over the data set of each neuron's peak. Neurons that never vary are not ranked.
    """
    peaks = _peaks(model, reads, pixels, layouts)
    mean, deviation = usual
    score = np.where(deviation > 0, (peaks - mean) / np.where(deviation > 0, deviation, 1), -np.inf)
    pictures, numbers = np.arange(len(neurons)), np.asarray(neurons)
    own = score[pictures, numbers]
    # A picture whose activation is not a number does not activate its channel the most.
    rank = np.where(np.isnan(own), score.shape[1] - 1, (score > own[:, None]).sum(1))
    return PeakRanks(peaks[pictures, numbers], rank)


def class_ranks(
    model: Model, classes: Sequence[int], pixels: UInt8[np.ndarray, "picture side side colour"]
) -> Int[np.ndarray, "picture"]:
    """How many classes the network prefers to each picture's own, for the softened picture; 0 is top-1."""
    return ranks(_peaks(model, Readout(CLASSES), pixels, {}), classes)


def ranks(
    logits: Float[np.ndarray, "picture class"], classes: Sequence[int] | Int[np.ndarray, "picture"]
) -> Int[np.ndarray, "picture"]:
    """How many classes are preferred to each picture's own; 0 is top-1.

    >>> ranks(np.array([[0.1, 0.7, 0.2]]), [2])
    array([1])
    """
    own = logits[np.arange(len(classes)), np.asarray(classes)]
    # A network whose output is not a number is not right.
    preferred: np.ndarray = (~(logits <= own[:, None])).sum(1) + (logits == own[:, None]).sum(1) - 1
    return preferred


def surprise(
    logits: Float[np.ndarray, "picture class"], classes: Sequence[int] | Int[np.ndarray, "picture"]
) -> Float[np.ndarray, "picture"]:
    """Cross-entropy of each picture's own class, in nats; not a number where a network gives none.

    >>> surprise(np.zeros((1, 1000)), [2]).round(3)
    array([6.908])
    """
    given, own = (torch.from_numpy(np.array(part, kind)) for part, kind in ((logits, np.float64), (classes, np.int64)))
    return F.cross_entropy(given, own, reduction="none").numpy()


@rounding()
def _peaks(
    model: Model, reads: Readout, pixels: UInt8[np.ndarray, "picture side side colour"], layouts: Mapping[str, Layout]
) -> Float[np.ndarray, "picture channel"]:
    device = anchor(model.network).device

    def of(part: slice) -> np.ndarray:
        images = softened(torch.from_numpy(np.ascontiguousarray(pixels[part])).permute(0, 3, 1, 2).to(device))
        with torch.inference_mode(), probe(model.network, [reads.layer], layouts) as run:
            maps = reads.maps(run(model.preprocessing.normalise(images))[reads.layer])
        peaks: np.ndarray = maps.amax(-1).float().numpy(force=True)
        return peaks

    return np.concatenate(by_parts(len(pixels), of))


@dataclass(frozen=True)
class MatchedCurve:
    """A node's own row of every picture and the target's, both averaged over channels by importance."""

    picture: Float[np.ndarray, "picture level"]
    target: Float[np.ndarray, "picture level"]


@rounding()
def matched_curves(
    model: Model, target: Target, pixels: UInt8[np.ndarray, "picture side side colour"], layouts: Mapping[str, Layout]
) -> Mapping[str, MatchedCurve]:
    """By node: the rows that stored 8-bit pictures give, and those they were to match, at the target's levels."""
    device = anchor(model.network).device
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode(), probe(model.network, list(target.nodes), layouts) as run:
        activations = run(model.preprocessing.normalise(images))
        rows = {}
        for name, node in target.nodes.items():
            ordered = sort_rows(activations[name].float())
            mine = resample(ordered, site_levels(ordered.shape[-1]), node.levels).numpy(force=True)
            weight = np.ones(mine.shape[:2]) if node.importance is None else node.importance
            share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
            rows[name] = MatchedCurve(
                *(np.einsum("pc,pcl->pl", share, part).astype(np.float32) for part in (mine, node.quantiles))
            )
    return rows


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


def variation(pixels: Num[np.ndarray, "picture side side colour"]) -> Float[np.ndarray, "picture"]:
    """Mean absolute difference of neighbouring pixels, in bytes, over both directions and all colours. It does not
    depend on the side of smooth pictures, only on how much neighbours differ."""
    values = pixels.astype(np.float64)
    down, right = np.abs(np.diff(values, axis=1)), np.abs(np.diff(values, axis=2))
    mean: np.ndarray = (down.mean((1, 2, 3)) + right.mean((1, 2, 3))) / 2
    return mean


def clipped(pixels: Num[np.ndarray, "picture side side colour"]) -> Float[np.ndarray, "picture"]:
    """Share of a picture's values that are the least or the greatest a byte holds: what is harsh has many."""
    share: np.ndarray = ((pixels == 0) | (pixels == 255)).mean((1, 2, 3))
    return share


def curve_distance(
    curves: Mapping[str, tuple[Float[np.ndarray, "neuron level"], Float[np.ndarray, "neuron level"]]],
) -> Float[np.ndarray, "neuron"] | None:
    """How near pictures came to what they were to match: mean over nodes of |picture − target| / |target|, both sorted
    rows averaged over channels; None without nodes."""
    parts = []
    for picture, target in curves.values():
        aimed = target.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(np.linalg.norm(picture - aimed, axis=1) / np.linalg.norm(aimed, axis=1))
    return np.mean(parts, axis=0) if parts else None
