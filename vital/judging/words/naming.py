"""Words for neurons: those whose scores on images go along with a neuron's peaks.

As CLIP-Dissect does (Oikarinen & Weng, "CLIP-Dissect: automatic description of neuron representations in deep vision
networks", ICLR 2023), words are compared with a neuron over images, whatever gives a word's score on an image. Here one
half of the images chooses the words and the other half, which had no part in the choice, scores them. The measures are
two of the five that tell right from wrong names in the checks of Oikarinen, Yan & Weng ("Evaluating neuron
explanations: a unified framework with sanity checks", ICML 2025): Pearson's correlation, and average precision. What
chance alone would reach is found by shuffling the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.measuring.kept.sampling import unit_hash

NO_WORD = -1
"""The word of a rank that none took."""
STRONG = 0.05
"""Share of the images, those that excite a neuron most, that a word's scores are to find."""
EVIDENCE = 4
"""Images shown with a neuron's words."""
FEWEST = 8
"""Images of each half: with fewer, chance reaches nearly everything."""
RIVALS = 3
"""Words of a neuron, the best over the images that choose, of which the first must be the best over the others, too,
but for a standard error: else it was chosen by chance, or several words say the same."""
TOGETHER = 2048
"""Words compared at a time."""


@dataclass(frozen=True, eq=False)
class WordScores:
    """What says how much each of ``words`` is in each image: a label, a logit, a cosine. Only how scores of a
    word differ between images matters, not their scale."""

    words: Sequence[str]
    scores: Float32[np.ndarray, "image word"]


@dataclass(frozen=True, eq=False)
class Names:
    """Words of the neurons of a layer, the best first, and what speaks for them.

    ``word`` is a position in the vocabulary, −1 where no word goes along with the neuron. ``chosen`` is the correlation
    of its scores with the neuron's peaks over the images that chose it, ``score`` that over the others, and
    ``precision`` how well the word's scores find the neuron's strongest of these (average precision). NaN where the
    neuron has no word. ``bound`` is what the best of all words reaches by chance, and ``precise`` what precision the
    first word does, NaN where it is below the bound anyhow. Neurons are ``named`` whose first word is above the one
    and not below the other, and which no next word outdoes on the other images by more than a standard error: the
    others have no name. ``evidence`` are the positions of those of the other images on which the neuron is strongest,
    the strongest first, and ``shown`` the first word's scores there.
    """

    word: Int64[np.ndarray, "neuron rank"]
    chosen: Float32[np.ndarray, "neuron rank"]
    score: Float32[np.ndarray, "neuron rank"]
    precision: Float32[np.ndarray, "neuron rank"]
    bound: Float32[np.ndarray, "neuron"]
    precise: Float32[np.ndarray, "neuron"]
    named: Bool[np.ndarray, "neuron"]
    evidence: Int64[np.ndarray, "neuron shown"]
    shown: Float32[np.ndarray, "neuron shown"]

    def best(self, count: int) -> Names:
        """The first ``count`` words of every neuron."""
        ranked = ("word", "chosen", "score", "precision")
        return Names(
            **{
                part.name: getattr(self, part.name)[:, :count] if part.name in ranked else getattr(self, part.name)
                for part in fields(self)
            }
        )


def choosing(keys: Sequence[str]) -> Bool[np.ndarray, "image"]:
    """Which images choose words, about half of them, by nothing but their keys; the others score what was chosen.

    >>> choosing(["a", "b"]).tolist() == [bool(one) for key in ("a", "b") for one in choosing([key])]
    True
    """
    # another number than the one by which images came into the sample
    return np.array([unit_hash(f"names/{key}") < 0.5 for key in keys], bool)


def name_neurons(
    peaks: Float32[np.ndarray, "image neuron"],
    words: Float32[np.ndarray, "image word"],
    chooses: Bool[np.ndarray, "image"],
    *,
    ranks: int = 3,
    shuffles: int = 200,
    quantile: float = 0.95,
    device: torch.device | None = None,
) -> Names:
    """The words of every neuron: the ``ranks`` that correlate best over the images that choose, scored on the others.

    The bound of a neuron is a ``quantile`` of what the best of all words scores where the other images are shuffled,
    over so many ``shuffles``; that of precision the same of its first word. A word that is the same on all images of a
    half takes no part; nor does a neuron.

    Raises:
        UnsuitableInput: a half has fewer than `FEWEST` images, or no word differs between the images of each half.
    """
    device = device or torch.device("cpu")
    halves = [np.flatnonzero(chooses), np.flatnonzero(~chooses)]
    if min(map(len, halves)) < FEWEST:
        raise UnsuitableInput(
            f"{len(halves[0])} images would choose names and {len(halves[1])} others score them, but each takes "
            f"{FEWEST} at least: take a data set, or a sample of it, with more images that words have scores on"
        )
    usable = np.flatnonzero(np.all([np.ptp(words[half], axis=0) > 0 for half in halves], axis=0))
    if not len(usable):
        raise UnsuitableInput(
            f"none of {words.shape[1]} words differs between images of both halves of {len(chooses)}: give other "
            "words, or more images"
        )
    first, other = (_unit(torch.from_numpy(peaks[half]).to(device)) for half in halves)
    chosen, likeliest = _best(words[halves[0]], usable, first, min(max(ranks, RIVALS), len(usable)))
    orders = _orders(len(halves[1]), shuffles)
    bound = np.quantile(_by_chance(words[halves[1]], usable, other, orders), quantile, axis=0, method="higher")
    alive = ((first != 0).any(0) & (other != 0).any(0)).numpy(force=True)
    word = np.where(alive[:, None] & (chosen > 0), likeliest, NO_WORD)
    scoring = _Scoring(halves[1], peaks[halves[1]], words[halves[1]])
    return _scored(word, chosen, bound, scoring, orders, quantile).best(ranks)


def average_precision(wanted: Bool[np.ndarray, "image"], score: Float[np.ndarray, "image"]) -> float:
    """How well scores find the ``wanted`` images: the sum over thresholds of precision times the recall gained there,
    images of one score together (the area under the steps of the precision-recall curve). NaN where none is wanted.

    >>> round(average_precision(np.array([True, False, True]), np.array([3.0, 2.0, 1.0])), 3)
    0.833
    """
    return float(average_precisions(wanted[None], score)[0])


def average_precisions(
    wanted: Bool[np.ndarray, "draw image"], score: Float[np.ndarray, "image"]
) -> Float[np.ndarray, "draw"]:
    """The same of several sets of images at once."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(wanted[:, order], axis=1)
    last = np.append(score[order][1:] != score[order][:-1], True)  # of images of one score
    hits, taken = hits[:, last], np.arange(1, len(score) + 1)[last]
    every = hits[:, -1]
    sums = (np.diff(hits, axis=1, prepend=0) * hits / taken).sum(1)
    return np.where(every > 0, sums / np.maximum(every, 1), np.nan)


def strongest(peaks: Float[np.ndarray, "image"], share: float = STRONG) -> Bool[np.ndarray, "image"]:
    """The ``share`` of the images that excite a neuron most, one at least; none that excites it the least."""
    count = max(1, round(share * len(peaks)))
    least = np.partition(peaks, -count)[-count]
    strong: np.ndarray = (peaks >= least) & (peaks > peaks.min())
    return strong


def _unit(columns: Tensor) -> Tensor:
    """Columns (row, column) less their mean and of length one, so that products are correlations; zero where a column
    does not differ between rows, or is not finite."""
    centred = columns.double()
    centred = centred - centred.mean(0)
    length = centred.norm(dim=0)
    rounding = 1e-12 * columns.double().abs().amax(0) * len(columns) ** 0.5
    kept = torch.isfinite(length) & (length > rounding)
    return torch.where(kept, centred / torch.where(kept, length, 1), 0).float()


def _best(
    words: np.ndarray, usable: np.ndarray, peaks: Tensor, ranks: int
) -> tuple[Float[np.ndarray, "neuron rank"], Int64[np.ndarray, "neuron rank"]]:
    """The greatest correlations of each neuron, and the words that have them."""
    best = torch.full((peaks.shape[1], ranks), -torch.inf, device=peaks.device)
    word = torch.full((peaks.shape[1], ranks), NO_WORD, device=peaks.device)
    for part in _parts(usable):
        correlations = peaks.T @ _unit(torch.from_numpy(words[:, part]).to(peaks.device))
        numbers = torch.from_numpy(part).to(peaks.device).expand(len(correlations), -1)
        both, candidates = torch.cat([best, correlations], 1), torch.cat([word, numbers], 1)
        best, taken = both.sort(dim=1, descending=True, stable=True)
        best, word = best[:, :ranks], candidates.gather(1, taken[:, :ranks])
    return best.numpy(force=True), word.numpy(force=True)


def _by_chance(
    words: np.ndarray, usable: np.ndarray, peaks: Tensor, orders: Sequence[np.ndarray]
) -> Float[np.ndarray, "shuffle neuron"]:
    """For each order of the images, the greatest correlation that any word has with each neuron."""
    best = torch.full((len(orders), peaks.shape[1]), -torch.inf, device=peaks.device)
    shuffled = [torch.from_numpy(order).to(peaks.device) for order in orders]
    for part in _parts(usable):
        columns = _unit(torch.from_numpy(words[:, part]).to(peaks.device))
        for number, order in enumerate(shuffled):
            best[number] = torch.maximum(best[number], (columns[order].T @ peaks).amax(0))
    return best.numpy(force=True)


def _orders(images: int, shuffles: int) -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [stream.permutation(images) for _ in range(shuffles)]


def _parts(usable: np.ndarray) -> list[np.ndarray]:
    return [usable[start : start + TOGETHER] for start in range(0, len(usable), TOGETHER)]


def _error(one: float, other: float, between: float, images: int) -> float:
    """Standard error of the difference of two variables' correlations with a third, where that ``between`` the two is
    known (Olkin and Siotani, "Asymptotic distribution of functions of a correlation matrix",
    1976)."""
    left, right = 1 - one**2, 1 - other**2
    rest = left + right - 1
    shared = between * rest - one * other * (rest - between**2) / 2
    return float(np.sqrt(max(left**2 + right**2 - 2 * shared, 0) / images))


@dataclass(frozen=True)
class _Scoring:
    """The images on which words are scored, those that did not choose them."""

    images: Int64[np.ndarray, "image"]
    peaks: Float32[np.ndarray, "image neuron"]
    words: Float32[np.ndarray, "image word"]


def _scored(
    word: np.ndarray,
    chosen: np.ndarray,
    bound: np.ndarray,
    scoring: _Scoring,
    orders: Sequence[np.ndarray],
    quantile: float,
) -> Names:
    """The chosen words on the images that score them, in their order and shuffled."""
    others, peaks, words = scoring.images, scoring.peaks, scoring.words
    shape, shuffled = word.shape, np.stack(orders)
    score, precision = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    precise = np.full(len(word), np.nan, np.float32)
    shown = min(EVIDENCE, len(others))
    evidence = np.argsort(-peaks, axis=0, kind="stable")[:shown].T
    for neuron in np.flatnonzero((word != NO_WORD).any(1)):
        strong = strongest(peaks[:, neuron])
        for rank in np.flatnonzero(word[neuron] != NO_WORD):
            column = words[:, word[neuron, rank]]
            score[neuron, rank] = np.corrcoef(peaks[:, neuron].astype(np.float64), column)[0, 1]
            precision[neuron, rank] = average_precision(strong, column)
            if rank == 0 and score[neuron, 0] > bound[neuron]:  # else there is no name anyhow
                by_chance = average_precisions(strong[shuffled], column)
                precise[neuron] = np.quantile(by_chance, quantile, method="higher")
    # a label is in more images than are strongest: then all of them found is what chance reaches now and then, too
    named = (score[:, 0] > bound) & (precision[:, 0] >= precise)
    for neuron in np.flatnonzero(named):
        first, own = float(score[neuron, 0]), words[:, word[neuron, 0]]
        for rival, other in zip(score[neuron, 1:RIVALS].tolist(), word[neuron, 1:RIVALS], strict=True):
            if rival > first:  # not where there is none
                error = _error(first, rival, float(np.corrcoef(own, words[:, other])[0, 1]), len(others))
                named[neuron] &= rival - first <= error
    best = word[:, :1]
    seen = np.where(best == NO_WORD, np.nan, words[evidence, best])
    return Names(
        word.astype(np.int64),
        np.where(word == NO_WORD, np.nan, chosen).astype(np.float32),
        score,
        precision,
        bound.astype(np.float32),
        precise,
        named,
        others[evidence].astype(np.int64),
        seen.astype(np.float32),
    )
