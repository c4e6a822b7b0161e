"""Pictures of a network's neurons by every method, and the inputs that the network got on the way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

import vital
from benchmarks.fooled.network import DEVIATION, LAYER, MEAN, SIDE, Images
from vital.judging.trust.steering import ascended, sameness, steered
from vital.measuring.image_sums import ImageSums
from vital.measuring.rows import resample, site_levels, sort_rows, stored_levels
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.nodes import matched_nodes
from vital.network.probe import INPUT, probe
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings

METHODS = ("vital", "pixel", "fourier", "maco", "deepinversion")
NODES = ("blocks.0", "blocks.1", "blocks.2")
REFERENCES = 8
TOGETHER = 48
"""Pictures optimised at a time."""
LEVELS = 128
"""Levels kept of a sorted row."""
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
        target = measure(self.model, Attribution.of(self.survey, LAYER), neurons, crops, nodes, batch=TOGETHER)
        usual = self._usual(nodes)
        compared = {
            name: replace(node, usual=usual[name][0], deviation=None if name == INPUT else usual[name][1])
            for name, node in target.nodes.items()
        }
        return replace(target, nodes=compared)

    def _usual(self, nodes: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each node the mean sorted row over the images, and the deviation of its channels' means, as a pass over
        shards keeps them."""
        rows: dict[str, list[Tensor]] = {node: [] for node in nodes}
        means: dict[str, list[Tensor]] = {node: [] for node in nodes}
        with torch.inference_mode(), probe(self.model.network, nodes, self.survey.layouts()) as run:
            for part in self.images.split(256):
                for node, found in run(self.model.preprocessing.normalise(part)).items():
                    sites = found.shape[-1]
                    ordered = resample(sort_rows(found), site_levels(sites), stored_levels(sites, LEVELS))
                    rows[node].append(ordered.sum(0))
                    means[node].append(found.mean(-1))
        return {
            node: (
                (torch.stack(rows[node]).sum(0) / len(self.images)).numpy(),
                torch.cat(means[node]).std(0, correction=0).numpy(),
            )
            for node in nodes
        }

    def steered(self, neurons: Sequence[int]) -> Float[np.ndarray, "neuron"]:
        """How far the network leads to one picture of each of these neurons."""
        layer, layouts = self.survey.layer(LAYER), self.survey.layouts()
        return steered(sameness(ascended(self.model, layer, neurons, layouts)))

    def pictures(
        self,
        target: Target,
        method: str,
        steps: int,
        seed: int = 0,
        kept: dict[int, list[Tensor]] | None = None,
        changed: Mapping[str, Any] | None = None,
    ) -> UInt8[np.ndarray, "picture side side 3"]:
        """A picture of every neuron of the target, by ``changed`` settings; what the network got every `KEPT` steps is
        added to ``kept``."""
        asked = {"method": method, "steps": steps, "side": SIDE, "seed": seed}
        settings = PictureSettings.model_validate({**asked, **(changed or {})})
        spectrum = self.sums.mean_spectrum() if settings.parametrisation == "phase" else None
        calls = itertools.count()

        def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if kept is not None and (call := next(calls)) % KEPT in (0, KEPT // 4):
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
