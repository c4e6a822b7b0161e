"""What goes with a neuron's activation, from the formulas (docs/concepts/method.md#trend), a neuron at a time."""

from __future__ import annotations

import numpy as np

REFERENCE_COUNTS = 0.1


def common_by_hand(rows: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The mean over a layer's neurons of the slope of rows (image, channel, level) over each one's peak (image,
    neuron) in standard deviations, less one part in as many."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    vary = [peak for peak in crowd.T.astype(np.float64) if np.isfinite(peak).all() and peak.std() > 0]
    slopes = [np.polyfit((peak - peak.mean()) / peak.std(), flat, 1)[0] for peak in vary]
    found: np.ndarray = np.mean(slopes, axis=0) * (1 - 1 / len(slopes))
    return found.reshape(rows.shape[1:])


def trend_by_hand(
    rows: np.ndarray, peaks: np.ndarray, own: np.ndarray, score: float, count: int, common: np.ndarray
) -> np.ndarray:
    """Of one neuron: the weighted line through the rows and peaks of images that are no references of it, and ``count``
    references of these mean rows and this mean score; less what is common, as often as the score is above the mean."""
    x = np.concatenate([peaks.astype(np.float64), [score]])
    y = np.concatenate([rows, own[None]]).reshape(len(x), -1).astype(np.float64)
    weights = np.concatenate([np.ones(len(peaks)), [REFERENCE_COUNTS * count]])
    slope = np.polyfit(x, y, 1, w=np.sqrt(weights))[0]
    mean = np.average(x, weights=weights)
    deviation = np.sqrt(np.average((x - mean) ** 2, weights=weights))
    found: np.ndarray = (slope * (score - mean)).reshape(own.shape) - (score - mean) / deviation * common
    return found
