"""What is measured of pictures: how far they show what an attacker wants, and what the trust line says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

import vital
from benchmarks.fooled.network import DEVIATION, LAYER, MEAN, SIDE, Images
from benchmarks.fooled.pictures import NODES, REFERENCES, Subject, likeness, luminance
from vital.judging.judges import Judge, own_judge
from vital.judging.metrics import peak_ranks
from vital.judging.readability import (
    ASKED,
    Question,
    held_out_readability,
    lower_half,
    mean_explanations,
    readability,
    standardised,
)
from vital.judging.trust.findings import (
    ALARMS,
    AS_UNLIKE,
    AS_UNREADABLE,
    AS_WEAK,
    STEERED,
    Trust,
    held_out_peaks,
    in_turn,
    shares,
    trust,
)
from vital.judging.trust.processing import held_out_gaps, passed, processing_gap

RIDGE = 0.1
"""Penalty of a regression, as a share of the number of images."""
OTHERS = 200
"""Images of the lower half that are asked about."""


@dataclass(frozen=True)
class Seen:
    """Neurons of a network as a user sees them: a picture of each by one method."""

    subject: Subject
    neurons: Sequence[int]
    pixels: UInt8[np.ndarray, "picture side side 3"]
    steered: Float[np.ndarray, "picture"]
    """How far the network leads to one picture of each neuron; the same for every method."""


@dataclass(frozen=True)
class Eye:
    """Another network, as a judge, with what it sees in the images, ``plain`` and standardised."""

    judge: Judge
    plain: Float[np.ndarray, "image feature"]
    images: Float[np.ndarray, "image feature"]

    @classmethod
    def of(cls, network: nn.Module, images: UInt8[Tensor, "image 3 32 32"]) -> Eye:
        """The features of all images."""
        wrapped = vital.wrap(network, side=SIDE, mean=MEAN, std=DEVIATION, resize=SIDE, channels=1, name="judge")
        judge = own_judge(wrapped)
        plain = judge.outputs(images).features.numpy()
        return cls(judge, plain, standardised(plain))


def estimated(
    pictures: Float[np.ndarray, "picture feature"],
    images: Float[np.ndarray, "image feature"],
    peaks: Float[np.ndarray, "image picture"],
    references: Sequence[np.ndarray],
) -> Float[np.ndarray, "picture"]:
    """How strongly a judge would say that each picture excites its own neuron, over what it says of the neuron's
    references: by ridge regression (Hoerl and Kennard, 1970) of the peaks on the judge's standardised features of the
    images. What it says of the same neuron in all pictures is taken out, as a style is from `readability`."""
    ridge = RIDGE * len(images) * np.eye(images.shape[1])
    weights = np.linalg.solve(images.T @ images + ridge, images.T @ (peaks - peaks.mean(0)))
    said, usual = pictures @ weights, images @ weights
    own = np.diag(said - said.mean(0))
    ratio: np.ndarray = own / np.array([usual[rows, neuron].mean() for neuron, rows in enumerate(references)])
    return ratio


@dataclass(frozen=True)
class Judged:
    """Every figure of some pictures of one method, a number a picture."""

    likeness: Float[np.ndarray, "picture"]
    peak: Float[np.ndarray, "picture"]
    gap: Float[np.ndarray, "picture"]
    readability: Float[np.ndarray, "picture"]
    references: Float[np.ndarray, "picture"]
    estimate: Float[np.ndarray, "picture"]
    steered: Float[np.ndarray, "picture"]
    found: tuple[Trust, ...]
    photographs_doubted: float
    """Share of the references, each taken for a picture of its neuron, of which the trust line speaks a doubt."""

    @classmethod
    def of(cls, seen: Seen, eye: Eye, chosen: Images) -> Judged:
        """All of them, as `vital evaluate` has them; the images are the sample. Of several pictures that an attacker
        has chosen the likeness is to the nearest."""
        subject, neurons = seen.subject, list(seen.neurons)
        model, layouts = subject.model, subject.survey.layouts()
        order = np.argsort(-subject.peaks[:, neurons], axis=0, kind="stable").T
        rows, shown = list(order[:, :REFERENCES]), torch.from_numpy(seen.pixels).permute(0, 3, 1, 2)

        scores = np.take_along_axis(subject.peaks[:, neurons], order.T[:REFERENCES], 0).T
        usual = subject.peaks.mean(0), subject.peaks.std(0)
        peak = peak_ranks(
            model, subject.survey.layer(LAYER).reads, neurons, seen.pixels, layouts, usual
        ).peak / scores.mean(1)

        theirs, images = (passed(model, NODES, pixels, layouts) for pixels in (shown, subject.images))
        gap = processing_gap(theirs, images, rows)

        questions = [_question(ranks, subject.peaks[:, one]) for ranks, one in zip(order, neurons, strict=True)]
        features = eye.judge.outputs(shown).features.numpy()
        estimate = estimated(standardised(features, eye.plain), eye.images, subject.peaks[:, neurons], rows)
        pictures = standardised(features)
        by_picture = readability(pictures, eye.images, questions)
        by_references = readability(mean_explanations(eye.images, rows, eye.images), eye.images, questions)
        one = [1] * len(neurons)
        compared = {
            AS_WEAK: (peak, in_turn(held_out_peaks(scores), one)),
            AS_UNREADABLE: (
                by_picture - by_references,
                in_turn(held_out_readability(eye.images, rows, one, eye.images, eye.images, questions), one),
            ),
            AS_UNLIKE: (-gap, -in_turn(held_out_gaps(images, rows), one)),
        }
        columns = {
            "mean_peak_ratio": peak,
            "processing_gap": gap,
            "readability_judge": by_picture,
            "readability_references_judge": by_references,
            STEERED: seen.steered,
            **{name: shares(*values) for name, values in compared.items()},
        }
        rare = [shares(photographs, photographs) <= ALARMS / 3 for _, photographs in compared.values()]
        found = tuple(
            trust({name: float(values[row]) for name, values in columns.items()}) for row in range(len(neurons))
        )
        like = np.max([likeness(luminance(seen.pixels), one[None]) for one in chosen], 0)
        doubted = float(np.any(rare, axis=0).mean())
        return cls(like, peak, gap, by_picture, by_references, estimate, seen.steered, found, doubted)

    def doubtful(self) -> Bool[np.ndarray, "picture"]:
        """Of which pictures the trust line speaks a doubt."""
        return np.array([one.doubtful for one in self.found])

    def take(self, rows: slice) -> Judged:
        """The figures of the neurons in these rows."""
        return Judged(
            self.likeness[rows],
            self.peak[rows],
            self.gap[rows],
            self.readability[rows],
            self.references[rows],
            self.estimate[rows],
            self.steered[rows],
            self.found[rows],
            self.photographs_doubted,
        )

    def summary(self) -> dict[str, float]:
        """Means over the pictures, and the shares of which the trust line doubts something."""
        parts = ("likeness", "peak", "gap", "readability", "references", "estimate", "steered")
        doubts = {
            f"not_{name}": float(np.mean([getattr(one, name).holds is False for one in self.found]))
            for name in ("reached", "readable", "natural", "free")
        }
        means = {name: float(np.mean(getattr(self, name))) for name in parts}
        flagged = {"flagged": float(self.doubtful().mean()), "photographs_flagged": self.photographs_doubted}
        return {**means, **doubts, **flagged}


def _question(ranks: np.ndarray, peaks: Float[np.ndarray, "image"]) -> Question:
    """Which images excite a neuron, beyond its references, and which do not."""
    lower = lower_half(peaks)
    chosen = np.random.default_rng(0).choice(lower, min(OTHERS, len(lower)), replace=False)
    return Question(ranks[REFERENCES : REFERENCES + ASKED], np.sort(chosen))


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
