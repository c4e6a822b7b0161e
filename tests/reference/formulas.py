"""The formulas of the paper, slow and literal, in NumPy and plain loops: an oracle that shares nothing with vital."""

import itertools
from collections.abc import Callable

import numpy as np

Array = np.ndarray
EPSILON = 1e-5
GUARD = 1e-6


def sort_matching(activations: Array, quantiles: Array, importance: Array | None = None) -> float:
    """Mean over channels and sites of importance × (sorted activation − quantile)², of one picture."""
    channels, sites = activations.shape
    total = 0.0
    for channel in range(channels):
        row = [float(value) for value in sorted(activations[channel])]
        weight = 1.0 if importance is None else float(importance[channel])
        for site in range(sites):
            total += weight * (row[site] - float(quantiles[channel, site])) ** 2
    return float(total / (channels * sites))


def finite_differences(function: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """Central differences of ``function``, one entry after the other."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def relevance_map(relevance: Array) -> Array:
    """Min-max of each channel over its sites, of one image."""
    result = np.zeros_like(relevance)
    for channel, row in enumerate(relevance):
        for site, value in enumerate(row):
            result[channel, site] = (value - min(row)) / (max(row) - min(row) + GUARD)
    return result


def importance(relevances: list[Array]) -> Array:
    """Mean over references of the min-max over channels of the maximum over sites."""
    total = np.zeros(len(relevances[0]))
    for relevance in relevances:
        peaks = [max(row) for row in relevance]
        for channel, peak in enumerate(peaks):
            total[channel] += (peak - min(peaks)) / (max(peaks) - min(peaks) + GUARD)
    return total / len(relevances)


def restricted_site(activations: Array, channel: int) -> int:
    """The site whose feature vector is most aligned with the channel."""
    cosines = []
    for site in range(activations.shape[1]):
        vector = activations[:, site]
        cosines.append(vector[channel] / (np.sqrt((vector**2).sum()) + GUARD))
    return int(np.argmax(cosines))


def total_variation(picture: Array) -> float:
    """Sum of the norms of the horizontal, vertical and both diagonal differences of a (3, row, column) picture."""
    _, rows, columns = picture.shape
    total = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = 0.0
        for row in range(rows):
            for column in range(columns):
                if row + down < rows and 0 <= column + right < columns:
                    squares += ((picture[:, row + down, column + right] - picture[:, row, column]) ** 2).sum()
        total += np.sqrt(squares)
    return float(total)


def frobenius(picture: Array) -> float:
    """Root of the sum of squares."""
    total = 0.0
    for value in picture.ravel():
        total += float(value) ** 2
    return float(np.sqrt(total))


def split_sum(relevance: Array, main: Array, skip: Array) -> tuple[Array, Array]:
    """R by |main| / (|main| + |skip|) and the rest; nothing where both are zero."""
    to_main, to_skip = np.zeros_like(relevance), np.zeros_like(relevance)
    for index in np.ndindex(*relevance.shape):
        whole = abs(main[index]) + abs(skip[index])
        if whole > 0:
            to_main[index] = relevance[index] * abs(main[index]) / whole
            to_skip[index] = relevance[index] * abs(skip[index]) / whole
    return to_main, to_skip


def max_pool(relevance: Array, inputs: Array) -> Array:
    """A max-pool as a 2 × 2 average pool of (channel, row, column): R_in = a · ¼ · R / (mean + ε)."""
    result = np.zeros_like(inputs)
    for channel, row, column in np.ndindex(*relevance.shape):
        window = inputs[channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        ratio = relevance[channel, row, column] / (window.mean() + EPSILON)
        result[channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += window / 4 * ratio
    return result


def convolution(
    relevance: Array,
    inputs: Array,
    weight: Array,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """Each output's relevance, shared among its inputs by their positive contributions a·w.

    Of inputs that are not negative, those are the contributions of the positive weights: the published z⁺.
    """
    result = np.zeros_like(inputs)
    outs, per_group, height, width = weight.shape
    _, rows, columns = inputs.shape
    for out, row, column in np.ndindex(*relevance.shape):
        first = out // (outs // groups) * per_group
        contributions = {}
        for channel, down, right in itertools.product(range(per_group), range(height), range(width)):
            y, x = row * stride + down * dilation - padding, column * stride + right * dilation - padding
            if 0 <= y < rows and 0 <= x < columns:
                product = inputs[first + channel, y, x] * weight[out, channel, down, right]
                contributions[first + channel, y, x] = max(product, 0.0)
        whole = sum(contributions.values()) + EPSILON
        for index, contribution in contributions.items():
            result[index] += contribution / whole * relevance[out, row, column]
    return result


def linear(relevance: Array, inputs: Array, weight: Array) -> Array:
    """As `convolution`, for vectors."""
    return convolution(relevance[:, None, None], inputs[:, None, None], weight[:, :, None, None])[:, 0, 0]
