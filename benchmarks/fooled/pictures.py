"""Pictures of a network's neurons by every method, and the inputs that the network got on the way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

import vital
from benchmarks.fooled.network import DEVIATION, LAYER, MEAN, SIDE, Images
from vital.measuring.image_sums import ImageSums
from vital.measuring.targets import Crop, Target, measure
from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.nodes import matched_nodes
from vital.network.probe import probe
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings

METHODS = ("vital", "pixel", "fourier", "maco", "deepinversion")
NODES = ("blocks.0", "blocks.1", "blocks.2")
REFERENCES = 8
TOGETHER = 48
"""Pictures optimised at a time."""
KEPT = 40
"""Steps between two whose inputs are kept."""


@dataclass(frozen=True)
class Subject:
    """A network as a user has it, with the images that he has."""

    model: Model
    survey: Survey
    images: UInt8[Tensor, "image 3 32 32"]
    sums: ImageSums
    peaks: Float[np.ndarray, "image neuron"]
    """The greatest activation of every neuron in every image."""

    @classmethod
    def of(cls, network: nn.Module, images: Images) -> Subject:
        """Wrapped as `vital.wrap` does it, and shown the images once."""
        model = vital.wrap(network, side=SIDE, mean=MEAN, std=DEVIATION, resize=SIDE, channels=1, name="fashion")
        shown = in_colour(images)
        found = survey(model)
        with torch.inference_mode(), probe(model.network, [LAYER], found.layouts()) as run:
            peaks = [run(model.preprocessing.normalise(part))[LAYER].amax(-1) for part in shown.split(512)]
        return cls(model, found, shown, ImageSums.of(shown), torch.cat(peaks).numpy())

    def references(self, neurons: Sequence[int]) -> Int[np.ndarray, "neuron reference"]:
        """The images with the greatest peaks, the best first."""
        order: np.ndarray = np.argsort(-self.peaks[:, neurons], axis=0, kind="stable")[:REFERENCES].T
        return order

    def live(self) -> list[int]:
        """Neurons that more than one image in twenty activates."""
        return [int(one) for one in np.flatnonzero((self.peaks > 0.01).mean(0) > 0.05)]

    def target(self, neurons: Sequence[int]) -> Target:
        """What pictures of these neurons must match."""
        rows: dict[int, list[int]] = {}
        for row, images in enumerate(self.references(neurons)):
            for image in images.tolist():
                rows.setdefault(image, []).append(row)
        equally_many = sorted(rows.items(), key=lambda item: len(item[1]))
        crops = [Crop(self.images[image], tuple(of)) for image, of in equally_many]
        nodes = matched_nodes(self.survey, LAYER, NODES)
        return measure(self.model, LAYER, neurons, crops, nodes, self.survey.layouts(), batch=TOGETHER)

    def pictures(
        self, target: Target, method: str, steps: int, seed: int = 0, kept: dict[int, list[Tensor]] | None = None
    ) -> UInt8[np.ndarray, "picture side side 3"]:
        """A picture of every neuron of the target; what the network got every `KEPT` steps is added to ``kept``."""
        settings = PictureSettings(method=method, steps=steps, side=SIDE, seed=seed)
        spectrum = self.sums.mean_spectrum() if settings.parametrisation == "phase" else None
        calls = itertools.count()

        def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if kept is None or inputs[0].shape[-1] != SIDE:  # a first try at half the side, which the units cannot take
                return
            if (call := next(calls)) % KEPT in (0, KEPT // 4):
                kept.setdefault(call, []).append(inputs[0].detach().clone())

        handle = self.model.network.register_forward_pre_hook(watch)
        try:
            made = [
                optimise(self.model, target.take(slice(start, start + TOGETHER)), settings, self.survey.layouts(),
                         colours=self.sums.colours(), spectrum=spectrum).pixels
                for start in range(0, len(target), TOGETHER)
            ]  # fmt: skip
        finally:
            handle.remove()
        return np.concatenate(made)


def in_colour(images: Images) -> UInt8[Tensor, "image 3 32 32"]:
    """Images as files of them are decoded."""
    return torch.tensor(images)[:, None].expand(-1, 3, -1, -1).contiguous()


def luminance(pixels: UInt8[np.ndarray, "picture side side 3"]) -> Images:
    """What the network sees of pictures."""
    grey: np.ndarray = (pixels @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return grey


def likeness(some: Images, others: Images) -> Float[np.ndarray, "picture"]:
    """Correlation of each picture's pixels with those of its partner, or of all with those of the only other one."""
    rows, partners = (part.reshape(len(part), -1).astype(np.float64) for part in (some, others))
    rows, partners = (part - part.mean(1, keepdims=True) for part in (rows, partners))
    length = np.linalg.norm(rows, axis=1) * np.linalg.norm(partners, axis=1)
    similar: np.ndarray = (rows * partners).sum(1) / np.where(length > 0, length, 1)
    return similar
