"""How a node's sorted activations change with a neuron's activation, from image to image.

A neuron's few references have much in common by chance, and all that strong images of any neuron share. What the
neuron itself goes with shows in images of every strength: those that hardly excite it say what it does not respond to.
What excites all neurons of its layer says nothing of it, and is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Num
from torch import Tensor

from vital.measuring.kept.ranking import NOBODY
from vital.measuring.rows import stored_rows
from vital.measuring.targets.means import Target
from vital.measuring.targets.passes import Attribution
from vital.network.arithmetic import widened
from vital.network.models import Model

AT_ONCE = 1 << 23
"""Numbers of the images' rows that are handled together in double precision: 64 MB."""
MOST_BYTES = 1 << 29
"""Of the rows of graded images, which are in memory together."""
FEWEST_GRADED = 8
"""Images of which a slope is learnt at least."""
REFERENCE_COUNTS = 0.1
"""What a reference counts as in a regression, as against a graded image: references were looked for, among all images,
and have much in common with those of other neurons (docs/trials.md)."""


def graded_bytes(shapes: Iterable[tuple[int, ...]]) -> int:
    """Of an image's rows at all nodes, whose shapes these are (channel, level), as they are kept."""
    return sum(4 * math.prod(shape) for shape in shapes)


def first_drawn(draws: Float[np.ndarray, "image"], image_bytes: int) -> Int64[np.ndarray, "chosen"]:
    """The positions, in ascending order, of the images that a trend is learnt from, whose rows take ``image_bytes``
    each: the first by their draw where memory does not hold all, so that they are of all kinds in whatever order these
    come."""
    most = max(FEWEST_GRADED, MOST_BYTES // max(image_bytes, 1))
    return np.sort(np.argsort(draws, kind="stable")[:most])


@dataclass(frozen=True, eq=False)
class GradedImages:
    """Images in ascending order of their ids, their sorted rows at every node that is matched, and what of these goes
    with the peaks of any neuron of the layer (`common_trend`)."""

    image: Int64[np.ndarray, "image"]
    rows: Mapping[str, Float[np.ndarray, "image _channel _level"]]
    common: Mapping[str, Float[np.ndarray, "_channel _level"]]

    @classmethod
    def finite(
        cls,
        image: Int64[np.ndarray, "image"],
        rows: Mapping[str, np.ndarray],
        peaks: Float[np.ndarray, "image every_neuron"],
    ) -> GradedImages:
        """Those of some images on which the network does not overflow: the others would count for every neuron.
        ``peaks`` are those of all neurons of the layer."""
        usable = np.all([np.isfinite(each.reshape(len(each), -1)).all(1) for each in rows.values()], axis=0)
        if not usable.all():
            image, peaks = image[usable], peaks[usable]
            rows = {name: each[usable] for name, each in rows.items()}
        return cls(image, rows, {name: common_trend(each, peaks) for name, each in rows.items()})

    def with_trend(
        self,
        target: Target,
        references: Int[np.ndarray, "neuron rank"],
        scores: Float[np.ndarray, "neuron rank"],
        peaks: Float[np.ndarray, "image neuron"],
    ) -> Target:
        """A target with the trend of its neurons, which was measured on these ``references`` with these peaks,
        ``scores``; `NOBODY` is none. ``peaks`` are the neurons' on the graded images."""
        known = references != NOBODY
        mean = np.where(known, scores, 0).sum(1, dtype=np.float64) / np.maximum(known.sum(1), 1)
        others = np.stack([~np.isin(self.image, own) for own in references], axis=1)
        nodes = {
            name: replace(
                node,
                trend=trend(
                    self.rows[name], peaks, others, node.quantiles, mean, target.count, common=self.common[name]
                ),
            )
            for name, node in target.nodes.items()
        }
        return replace(target, nodes=nodes)


def image_rows(
    model: Model,
    attribution: Attribution,
    images: Iterable[Num[Tensor, "colour side side"]],
    nodes: Sequence[str],
    *,
    levels: int = 128,
    batch: int = 8,
) -> dict[str, Float[np.ndarray, "image channel level"]]:
    """The sorted rows of every image at every node, as `vital.measuring.targets.measure` keeps their means. Memory: all
    of them in single precision, and one batch's activations."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in nodes}
    source = iter(images)
    with attribution.passes(model, nodes, [0]) as passes:
        while part := list(islice(source, batch)):
            activations = passes.forward(part)
            for name in nodes:
                stored = stored_rows(widened(activations[name].detach()), levels)
                rows[name].append(stored.numpy(force=True).astype(np.float32))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


@np.errstate(invalid="ignore", over="ignore")
def common_trend(
    rows: Float[np.ndarray, "image channel level"], peaks: Float[np.ndarray, "image every_neuron"]
) -> Float[np.ndarray, "channel level"]:
    """How rows go with the peak of a layer's neurons, for one standard deviation of it: by linear regression on that of
    each neuron, mean over the neurons.

    It is less by one part in as many as these are, so that a layer's only neuron loses nothing. Neurons that are as
    active on all images, or overflow, do not count.

    >>> rows = np.float32([[[0.0]], [[1.0]], [[2.0]]])
    >>> common_trend(rows, np.float32([[0, 0], [1, 0], [2, 3]])).round(3)
    array([[0.381]], dtype=float32)
    """
    excited, counted = np.zeros(len(peaks)), 0
    step = max(1, AT_ONCE // len(peaks))
    for start in range(0, peaks.shape[1], step):
        some = peaks[:, start : start + step].astype(np.float64)
        mean = some.mean(0)
        square = ((some - mean) ** 2).mean(0)
        usable = np.isfinite(square) & ~_flat(square, mean)
        excited += ((some - mean)[:, usable] / np.sqrt(square[usable])).sum(1)
        counted += int(usable.sum())
    weights = excited / (max(counted, 1) * len(peaks)) * (1 - 1 / max(counted, 1))
    flattened = rows.reshape(len(rows), -1)
    result = np.empty(flattened.shape[1], np.float32)
    for part in _parts(rows):
        result[part] = weights @ flattened[:, part].astype(np.float64)
    return result.reshape(rows.shape[1:])


@np.errstate(invalid="ignore", over="ignore")  # of a neuron that overflows nothing is finite
def trend(
    rows: Float[np.ndarray, "image channel level"],
    peaks: Float[np.ndarray, "image neuron"],
    others: Bool[np.ndarray, "image neuron"],
    means: Float[np.ndarray, "neuron channel level"],
    scores: Float[np.ndarray, "neuron"],
    count: Int[np.ndarray, "neuron"],
    *,
    common: Float[np.ndarray, "channel level"],
) -> Float[np.ndarray, "neuron channel level"]:
    """How far rows are from what is usual where a neuron is as active as on its references, by linear regression of
    rows on the neuron's peak, less what goes with any neuron's.

    Each row is fitted by least squares over the images of a sample and the neuron's references, each of which counts as
    `REFERENCE_COUNTS` of an image. The slope is multiplied by the references' mean score less the mean peak of all
    these. As many standard deviations as that is of the peak, so often is ``common`` taken off.

    Args:
        rows: sorted rows of the sample's images, one at least.
        peaks: the neurons' peaks on these.
        others: which of these count for a neuron: none of its own references, which count by themselves.
        means: mean sorted rows of each neuron's references.
        scores: mean peak of each neuron's references.
        count: how many references that are.
        common: what goes with the peak of any neuron of the layer (`common_trend`).

    >>> sample = np.float32([[[0.0]], [[1.0]], [[2.0]]])
    >>> peaks, every = np.float32([[0], [1], [2]]), np.ones((3, 1), bool)
    >>> references = np.float32([[[3.0]]]), np.float32([3]), np.array([10])
    >>> trend(sample, peaks, every, *references, common=np.zeros((1, 1), np.float32))
    array([[[1.5]]], dtype=float32)
    """
    counted = others & np.isfinite(peaks)
    peak = np.where(counted, peaks, 0).astype(np.float64)
    own = REFERENCE_COUNTS * count.astype(np.float64)
    total = np.maximum(counted.sum(0) + own, np.finfo(np.float32).eps)
    usual = (peak.sum(0) + own * scores) / total
    apart = np.where(counted, peak - usual, 0)
    square = ((apart**2).sum(0) + own * (scores - usual) ** 2) / total
    # Of images that all excite the neuron equally no slope is known: their rows against those of the references are.
    flat = _flat(square, usual)
    scale = np.where(flat, 0, (scores - usual) / np.where(flat, 1, square * total))
    weights = np.where(flat, -1 / len(rows), apart * scale)
    of_own = np.where(flat, 1, own * (scores - usual) * scale)
    excess = np.where(flat, 0, (scores - usual) / np.sqrt(np.where(flat, 1, square)))
    flattened, wanted, taken = rows.reshape(len(rows), -1), means.reshape(len(means), -1), common.reshape(-1)
    result = np.empty(wanted.shape, np.float32)
    for part in _parts(rows):
        of_images = weights.T @ flattened[:, part].astype(np.float64)
        of_references = of_own[:, None] * wanted[:, part].astype(np.float64)
        result[:, part] = of_images + of_references - excess[:, None] * taken[part].astype(np.float64)
    return result.reshape(means.shape)


def _parts(rows: Float[np.ndarray, "image channel level"]) -> Iterator[slice]:
    """Of the values of all channels and levels, such as are handled together."""
    width, step = rows[0].size, max(1, AT_ONCE // len(rows))
    return (slice(start, start + step) for start in range(0, width, step))


def _flat(square: Float[np.ndarray, "neuron"], mean: Float[np.ndarray, "neuron"]) -> Bool[np.ndarray, "neuron"]:
    """Whether peaks of this variance and mean are all the same, as far as single precision tells."""
    least = np.finfo(np.float32)
    flat: np.ndarray = square <= least.eps * np.maximum(mean**2, least.tiny)
    return flat
