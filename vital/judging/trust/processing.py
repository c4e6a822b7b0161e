"""How unlike photographs a network itself treats a picture on the way to its neuron.

Geirhos et al., "Don't trust your eyes: on the (un)reliability of feature visualizations" (ICML 2024), compare, layer by
layer, how similar a visualization's activations are to those of natural images, on a scale that natural images set
themselves. Activations are means over sites here, since a picture has no layout in common with any photograph; and
similarity is Spearman's, which neither contrast nor a few large channels decide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from vital.memory import by_parts
from vital.network.arithmetic import rounding
from vital.network.models import Model
from vital.network.probe import INPUT, Layout, anchor, probe

logger = logging.getLogger(__name__)

NO_NEARER = (
    "on the way to a neuron its references are no more alike than those of different neurons: more images may have "
    "references that are"
)

Passed = Mapping[str, Float[np.ndarray, "_image _channel"]]
"""By node: the mean of each channel over sites, of every image."""


@rounding()
def passed(
    model: Model, nodes: Sequence[str], pixels: Num[Tensor, "image colour row column"], layouts: Mapping[str, Layout]
) -> dict[str, Float[np.ndarray, "_image _channel"]]:
    """What images give at some nodes, the input left out; they are of the network's side. Fewer pass together, where
    memory runs out."""
    inner = [node for node in nodes if node != INPUT]
    if not inner:
        return {}
    device = anchor(model.network).device

    def of(part: slice) -> Passed:
        with torch.inference_mode(), probe(model.network, inner, layouts) as run:
            activations = run(model.preprocessing.normalise(pixels[part].to(device)))
            return {node: activations[node].float().mean(2).numpy(force=True) for node in inner}

    return joined(by_parts(len(pixels), of, "image"))


def joined(parts: Sequence[Passed]) -> dict[str, Float[np.ndarray, "_image _channel"]]:
    """What several batches gave, one after the other."""
    return {node: np.concatenate([part[node] for part in parts]) for node in (parts[0] if parts else ())}


def processing_gap(
    pictures: Passed,
    references: Passed,
    rows: Sequence[Int[np.ndarray, "_reference"]],
    of: Int[np.ndarray, "picture"] | None = None,
) -> Float[np.ndarray, "picture"]:
    """(s − p) / (s − o), of similarities averaged over nodes: p of a picture to its neuron's references, which are
    ``rows`` of all, s of these among each other, o of these to the references of other neurons. 0: as near as they are
    to each other; 1: as far as images of other neurons; more: farther. ``of`` has the neuron of every picture, which is
    one of each in their order where it is not given.

    s − o is the mean over neurons, since that of one may be nearly 0. NaN for a neuron with fewer than two references,
    and for all, which a warning says, where those of a neuron are no nearer to each other than to others.
    """
    neurons = np.arange(len(rows)) if of is None else of
    among, apart = _usual(references, rows)
    near = np.zeros(len(neurons))
    for node, values in references.items():
        own, all_of = _comparable(pictures[node]), _comparable(values)
        for picture, neuron in enumerate(neurons):
            mine = rows[neuron]
            near[picture] += own[picture] @ all_of[mine].sum(0) / len(mine) if len(mine) else np.nan
    scale = _scale(among, apart)
    if references and not np.isfinite(scale):
        some = np.isfinite(among - apart).any()
        logger.warning(
            "processing gaps are not known, since %s",
            NO_NEARER if some else "no two neurons have references to compare",
        )
    gap: np.ndarray = (among[neurons] - near) / scale
    return gap


def held_out_gaps(
    references: Passed, rows: Sequence[Int[np.ndarray, "_reference"]]
) -> list[Float[np.ndarray, "_reference"]]:
    """What `processing_gap` would say of each reference of every neuron, were it a picture and not among the
    references: how far photographs are apart that all excite the neuron. NaN where these are fewer than three."""
    near, among = ([np.zeros(len(mine)) for mine in rows] for _ in range(2))
    for values in references.values():
        all_of = _comparable(values)
        for neuron, mine in enumerate(rows):
            count, own = len(mine), all_of[mine]
            if count < 3:
                near[neuron][:] = np.nan
                continue
            rest, squares = own.sum(0) - own, np.square(own).sum(1)
            near[neuron] += (own * rest).sum(1) / (count - 1)
            among[neuron] += (np.square(rest).sum(1) - squares.sum() + squares) / ((count - 1) * (count - 2))
    scale = _scale(*_usual(references, rows))
    return [(others - one) / scale for others, one in zip(among, near, strict=True)]


def _usual(
    references: Passed, rows: Sequence[Int[np.ndarray, "_reference"]]
) -> tuple[Float[np.ndarray, "neuron"], Float[np.ndarray, "neuron"]]:
    """How similar a neuron's references are to each other, and to those of others, summed over nodes; NaN where there
    are fewer than two, or no others."""
    among, apart = np.zeros((2, len(rows)))
    for values in references.values():
        all_of = _comparable(values)
        total = all_of.sum(0)
        for neuron, mine in enumerate(rows):
            count, theirs = len(mine), len(all_of) - len(mine)
            if count < 2 or not theirs:
                among[neuron] = apart[neuron] = np.nan
                continue
            whole = all_of[mine].sum(0)
            among[neuron] += (whole @ whole - np.square(all_of[mine]).sum()) / (count * (count - 1))
            apart[neuron] += whole @ (total - whole) / (count * theirs)
    return among, apart


def _scale(among: Float[np.ndarray, "neuron"], apart: Float[np.ndarray, "neuron"]) -> float:
    """The mean of s − o; NaN where it is not above zero."""
    scale = among - apart
    known = scale[np.isfinite(scale)]
    usual = float(known.mean()) if len(known) else 0.0
    return usual if usual > 0 else float("nan")


def _comparable(values: Float[np.ndarray, "image channel"]) -> Float[np.ndarray, "image channel"]:
    """Ranks of an image's channels, equal ones sharing theirs, centred and of length one: their products are
    Spearman's correlations. Images whose channels are all equal have none: zeros."""
    ranks = np.empty(values.shape)
    for image, row in enumerate(values):
        order = np.sort(row)
        ranks[image] = np.searchsorted(order, row, "left") + np.searchsorted(order, row, "right")
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    scaled: np.ndarray = ranks / np.where(length > 0, length, 1)
    return scaled
