"""What a finished picture does in a network, measured on the stored bytes and not on what the optimiser last saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vital.models import Model
from vital.neurons import Readout
from vital.probe import CLASSES, Layout, probe
from vital.schedule import REFERENCE_SIDE

SHIFT = 8
"""Pixels that a picture is moved by, of a 224-pixel one, down and to the right."""
BLUR = 1.0
"""Deviation in pixels, of a 224-pixel picture, of the blur that takes away what only a network sees."""


@dataclass(frozen=True)
class Raised:
    """How far pictures raise their own channel: ``peak`` is its greatest activation, ``rank`` how many channels of the
    layer are raised more (0 is best), each measured by its peaks over the data set (z-score)."""

    peak: Float[np.ndarray, "picture"]
    rank: Int[np.ndarray, "picture"]


def softened(pixels: UInt8[Tensor, "picture 3 row column"]) -> UInt8[Tensor, "picture 3 row column"]:
    """Pictures moved by `SHIFT` (the edge repeated) and blurred by `BLUR`, both in proportion to their side."""
    scale = pixels.shape[-1] / REFERENCE_SIDE
    by, deviation = round(SHIFT * scale), BLUR * scale
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels.device).expand(3, 1, 1, -1)
    moved = F.pad(pixels.float(), (by + reach, reach, by + reach, reach), mode="replicate")
    moved = moved[..., : moved.shape[-2] - by, : moved.shape[-1] - by]
    smooth = F.conv2d(F.conv2d(moved, kernel, groups=3), kernel.mT, groups=3)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def raised(
    model: Model,
    layer: str,
    neurons: Sequence[int],
    pixels: UInt8[np.ndarray, "picture side side 3"],
    layouts: dict[str, Layout],
    usual: tuple[Float[np.ndarray, "channel"], Float[np.ndarray, "channel"]],
    readout: Readout | None = None,
) -> Raised:
    """What each picture, softened, does to its own channel of ``layer``.

    ``usual`` are mean and deviation over the data set of each channel's peak. Channels that never vary are not ranked.
    ``readout`` says how the neurons read a layer, which ``layer`` then only names.
    """
    peaks = _peaks(model, readout or Readout(layer), pixels, layouts)
    mean, deviation = usual
    score = np.where(deviation > 0, (peaks - mean) / np.where(deviation > 0, deviation, 1), -np.inf)
    places = np.arange(len(neurons)), np.asarray(neurons)
    own = score[places]
    return Raised(peaks[places], (score > own[:, None]).sum(1))


def class_ranks(
    model: Model, classes: Sequence[int], pixels: UInt8[np.ndarray, "picture side side 3"]
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
    # A network that says nothing is not right.
    preferred: np.ndarray = (~(logits <= own[:, None])).sum(1) + (logits == own[:, None]).sum(1) - 1
    return preferred


def surprise(
    logits: Float[np.ndarray, "picture class"], classes: Sequence[int] | Int[np.ndarray, "picture"]
) -> Float[np.ndarray, "picture"]:
    """Cross-entropy of each picture's own class, in nats; not a number where a network says nothing.

    >>> surprise(np.zeros((1, 1000)), [2]).round(3)
    array([6.908])
    """
    said, own = torch.from_numpy(np.asarray(logits, np.float64)), torch.as_tensor(np.asarray(classes, np.int64))
    return F.cross_entropy(said, own, reduction="none").numpy()


def _peaks(
    model: Model, reads: Readout, pixels: UInt8[np.ndarray, "picture side side 3"], layouts: dict[str, Layout]
) -> Float[np.ndarray, "picture channel"]:
    device = next(model.network.parameters()).device
    images = softened(torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(device))
    with torch.inference_mode(), probe(model.network, [reads.layer], layouts) as run:
        seen = reads.maps(run(model.preprocessing.normalise(images))[reads.layer])
    peaks: np.ndarray = seen.amax(-1).float().numpy(force=True)
    return peaks
