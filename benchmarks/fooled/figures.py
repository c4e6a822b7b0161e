"""What is measured of pictures: how far they show what an attacker wants, and what the trust line says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from benchmarks.fooled.network import LAYER, Images, Network, scaled
from benchmarks.fooled.pictures import NODES, REFERENCES, Subject, likeness, luminance
from vital.judging.metrics import unit
from vital.judging.trust import Trust, trust
from vital.network.probe import probe

QUERIES = 10
OTHERS = 100
"""Images of the lower half that a picture must tell queries from."""


@dataclass(frozen=True)
class Seen:
    """Some neurons of a network with their pictures by one method."""

    subject: Subject
    neurons: Sequence[int]
    pixels: UInt8[np.ndarray, "picture side side 3"]

    def peak_ratio(self) -> Float[np.ndarray, "picture"]:
        """What each picture gives its neuron, over the mean of its references."""
        model = self.subject.model
        images = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        with torch.inference_mode(), probe(model.network, [LAYER]) as run:
            own = run(model.preprocessing.normalise(images))[LAYER].amax(-1).numpy()
        rows, numbers = self.subject.references(self.neurons), np.asarray(self.neurons)
        mean = self.subject.peaks[rows, numbers[:, None]].mean(1)
        ratio: np.ndarray = own[np.arange(len(numbers)), numbers] / mean
        return ratio

    def processing_gap(self) -> Float[np.ndarray, "picture"]:
        """How unlike images the network treats each picture on the way to its neuron: 0 as the neuron's references
        are alike, 1 as those of other neurons; mean over nodes (Geirhos et al., section 3). A node's activations are
        its channels' means, standardised over the images."""
        own = _node_means(self.subject, torch.from_numpy(self.pixels).permute(0, 3, 1, 2))
        every = _node_means(self.subject, self.subject.images)
        references = self.subject.references(self.neurons)
        gaps = []
        for node in NODES:
            mean, deviation = every[node].mean(0), every[node].std(0) + 1e-6
            rows = unit((every[node][references] - mean) / deviation)
            pictures = unit((own[node] - mean) / deviation)
            alike = np.einsum("prc,psc->prs", rows, rows)
            among = (alike.sum((1, 2)) - REFERENCES) / (REFERENCES * (REFERENCES - 1))
            centres = rows.mean(1)
            unrelated = (centres @ centres.T * (1 - np.eye(len(centres)))).sum(1) / (len(centres) - 1)
            similar = np.einsum("pc,pc->p", pictures, centres)
            gaps.append((among - similar) / (among - unrelated))
        gap: np.ndarray = np.mean(gaps, axis=0)
        return gap


def _node_means(subject: Subject, images: UInt8[Tensor, "image 3 side side"]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {node: [] for node in NODES}
    with torch.inference_mode(), probe(subject.model.network, NODES, subject.survey.layouts()) as run:
        for part in images.split(256):
            for node, found in run(subject.model.preprocessing.normalise(part)).items():
                parts[node].append(found.mean(-1).numpy())
    return {node: np.concatenate(rows) for node, rows in parts.items()}


@dataclass(frozen=True)
class Eye:
    """Another network that looks, and what it sees in the images, standardised."""

    judge: Network
    images: Float[np.ndarray, "image feature"]
    mean: Float[np.ndarray, "feature"]
    deviation: Float[np.ndarray, "feature"]

    @classmethod
    def of(cls, judge: Network, images: Images) -> Eye:
        """The features of all images."""
        found = features(judge, images)
        mean, deviation = found.mean(0), found.std(0) + 1e-6
        return cls(judge, (found - mean) / deviation, mean, deviation)

    def readability(
        self, seen: Seen, beside: UInt8[np.ndarray, "other side side 3"]
    ) -> tuple[Float[np.ndarray, "picture"], Float[np.ndarray, "picture"]]:
        """How well the pictures, and the references, tell images that excite a neuron most from those of the lower
        half: area under the curve, 0.5 is chance. Pictures are standardised over the layer's, those ``beside`` them
        included, so that the style of a method says nothing."""
        own, others = (features(self.judge, luminance(part)) for part in (seen.pixels, beside))
        every = np.concatenate([own, others])
        own = (own - every.mean(0)) / (every.std(0) + 1e-6)
        areas: list[tuple[float, float]] = []
        for picture, neuron in zip(own, seen.neurons, strict=True):
            order = np.argsort(-seen.subject.peaks[:, neuron], kind="stable")
            lower = order[len(order) // 2 :]
            chosen = np.random.default_rng(neuron).choice(lower, min(OTHERS, len(lower)), replace=False)
            high, low = (unit(self.images[rows]) for rows in (order[REFERENCES : REFERENCES + QUERIES], chosen))
            looks = unit(picture), unit(self.images[order[:REFERENCES]].mean(0))
            areas.append(tuple(area(high @ look, low @ look) for look in looks))  # type: ignore[arg-type]
        by_picture, by_references = np.array(areas).T
        return by_picture, by_references


def features(judge: Network, images: Images) -> Float[np.ndarray, "image feature"]:
    """What a judge's classifier looks at."""
    with torch.inference_mode():
        found = [torch.relu(judge.units(part)) for part in scaled(images).split(512)]
    return torch.cat(found).numpy()


def area(high: Float[np.ndarray, "some"], low: Float[np.ndarray, "others"]) -> float:
    """Share of pairs in which the first is greater; equal ones count half.

    >>> area(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    apart = high[:, None] - low[None]
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


@dataclass(frozen=True)
class Judged:
    """Every figure of some pictures of one method, a number a picture."""

    likeness: Float[np.ndarray, "picture"]
    peak: Float[np.ndarray, "picture"]
    gap: Float[np.ndarray, "picture"]
    readability: Float[np.ndarray, "picture"]
    references: Float[np.ndarray, "picture"]
    found: tuple[Trust, ...]

    @classmethod
    def of(
        cls,
        seen: Seen,
        eye: Eye,
        beside: UInt8[np.ndarray, "other side side 3"],
        chosen: UInt8[np.ndarray, "row column"],
    ) -> Judged:
        """All of them."""
        readable, references = eye.readability(seen, beside)
        peak, gap = seen.peak_ratio(), seen.processing_gap()
        columns = {
            "mean_peak_ratio": peak, "processing_gap": gap, "readability_eye": readable,
            "readability_references_eye": references,
        }  # fmt: skip
        found = tuple(trust({name: float(values[row]) for name, values in columns.items()}) for row in range(len(peak)))
        return cls(likeness(luminance(seen.pixels), chosen), peak, gap, readable, references, found)

    def doubtful(self) -> Bool[np.ndarray, "picture"]:
        """Of which pictures the trust line speaks a doubt."""
        return np.array([one.doubtful for one in self.found])

    def summary(self) -> dict[str, float]:
        """Means over the pictures, and shares of what the trust line finds."""
        parts = {name: getattr(self, name) for name in ("likeness", "peak", "gap", "readability", "references")}
        shares = {
            f"not_{name}": float(np.mean([getattr(one, name).holds is False for one in self.found]))
            for name in ("reached", "readable", "natural")
        }
        means = {name: float(np.mean(values)) for name, values in parts.items()}
        return {**means, **shares, "flagged": float(self.doubtful().mean())}


def flagged_at(
    honest: Float[np.ndarray, "picture"], fooled: Float[np.ndarray, "other"], alarms: float = 0.05
) -> tuple[float, float]:
    """The least bound that at most this share of honest values exceeds, and the share of the others that does.

    >>> flagged_at(np.arange(20.0), np.array([18.5, 19.5, 30.0]))
    (18.0, 1.0)
    """
    ordered = np.sort(honest)
    bound = float(ordered[len(ordered) - 1 - int(alarms * len(ordered))])
    return bound, float((fooled > bound).mean())
