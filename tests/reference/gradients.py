"""The gradient of the paper's objective at one picture: the chain rule in NumPy and plain loops, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from tests.reference import formulas
from tests.reference.networks import Residual

Array = np.ndarray


@dataclass(frozen=True)
class NodeObjective:
    """What one node is to match: rows (channel, site), and for inner neurons what weighs and scales them."""

    weight: float
    quantiles: Array
    importance: Array | None = None
    relevance: Array | None = None


def objective(network: Residual, picture: Array, nodes: Mapping[str, NodeObjective], tv: float, l2: float) -> float:
    """Weighted sum over nodes of their sort-matching losses, and the two priors."""
    seen = forward(network, picture)
    total = tv * formulas.total_variation(picture) + l2 * formulas.frobenius(picture)
    for name, node in nodes.items():
        rows = seen[name].reshape(len(seen[name]), -1) * _scale(node)
        total += node.weight * formulas.sort_matching(rows, node.quantiles, node.importance)
    return total


def gradient(network: Residual, picture: Array, nodes: Mapping[str, NodeObjective], tv: float, l2: float) -> Array:
    """The derivative of `objective` with respect to the picture (3, row, column); relevance is a constant."""
    seen = forward(network, picture)
    at = {name: _sort_matching(seen[name], node) if node else 0.0 for name, node in _every(nodes).items()}
    summed = at["out"] * (seen["out"] > 0)
    middle = _convolution(_norm(summed, network.bn3), seen["middle"], _weight(network.conv3), 1, 1)
    middle = _norm(middle * (seen["middle"] > 0), network.bn2)
    pool = at["pool"] + _convolution(middle, seen["pool"], _weight(network.conv2), 2, 1)
    pool = pool + _convolution(_norm(summed, network.down[1]), seen["pool"], _weight(network.down[0]), 2, 0)
    stem = _max_pool(pool, seen["stem"]) * (seen["stem"] > 0)
    first = at["conv1"] + _norm(stem, network.bn1)
    result = _convolution(first, picture, _weight(network.conv1), 1, 1)
    return result + tv * _total_variation(picture) + l2 * picture / formulas.frobenius(picture)


def forward(network: Residual, picture: Array) -> dict[str, Array]:
    """Every map of the network (channel, row, column)."""
    conv1 = convolve(picture, _weight(network.conv1), 1, 1)
    stem = np.maximum(normalise(conv1, network.bn1), 0)
    pool = pooled(stem)
    middle = np.maximum(normalise(convolve(pool, _weight(network.conv2), 2, 1), network.bn2), 0)
    main = normalise(convolve(middle, _weight(network.conv3), 1, 1), network.bn3)
    skip = normalise(convolve(pool, _weight(network.down[0]), 2, 0), network.down[1])
    return {"conv1": conv1, "stem": stem, "pool": pool, "middle": middle, "out": np.maximum(main + skip, 0)}


def convolve(inputs: Array, weight: Array, stride: int, padding: int) -> Array:
    """Each output is the sum of its window times the weights."""
    outs, _, side, _ = weight.shape
    padded = np.pad(inputs, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((size - side) // stride + 1 for size in padded.shape[1:])
    result = np.zeros((outs, rows, columns))
    for out, row, column in np.ndindex(*result.shape):
        window = padded[:, row * stride : row * stride + side, column * stride : column * stride + side]
        result[out, row, column] = (window * weight[out]).sum()
    return result


def normalise(inputs: Array, norm: nn.Module) -> Array:
    """(x − mean) / √(variance + ε) · weight + bias of every channel, with the stored mean and variance."""
    mean, bias = _vector(norm, "running_mean"), _vector(norm, "bias")
    result: Array = (inputs - mean) * _slope(norm) + bias
    return result


def pooled(inputs: Array) -> Array:
    """The greatest of each 3 × 3 window, two apart; what lies outside counts as nothing."""
    channels, rows, columns = inputs.shape
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    result = np.zeros((channels, (rows - 1) // 2 + 1, (columns - 1) // 2 + 1))
    for channel, row, column in np.ndindex(*result.shape):
        result[channel, row, column] = padded[channel, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max()
    return result


def _every(nodes: Mapping[str, NodeObjective]) -> dict[str, NodeObjective | None]:
    return {name: nodes.get(name) for name in ("conv1", "pool", "out")}


def _scale(node: NodeObjective) -> Array | float:
    return 1.0 if node.relevance is None else formulas.relevance_map(node.relevance)


def _sort_matching(activations: Array, node: NodeObjective) -> Array:
    """2 w importance (sorted − quantile) / (channels × sites) at the site that each sorted value came from."""
    shape = activations.shape
    rows = activations.reshape(len(activations), -1)
    scale = np.broadcast_to(_scale(node), rows.shape)
    result = np.zeros_like(rows)
    for channel in range(len(rows)):
        matched = [float(a * s) for a, s in zip(rows[channel], scale[channel], strict=True)]
        weight = 1.0 if node.importance is None else float(node.importance[channel])
        for level, site in enumerate(sorted(range(len(matched)), key=matched.__getitem__)):
            difference = matched[site] - float(node.quantiles[channel, level])
            result[channel, site] = 2 * node.weight * weight * difference * scale[channel, site] / rows.size
    return result.reshape(shape)


def _convolution(upstream: Array, inputs: Array, weight: Array, stride: int, padding: int) -> Array:
    side = weight.shape[-1]
    padded = np.zeros((len(inputs), inputs.shape[1] + 2 * padding, inputs.shape[2] + 2 * padding))
    for out, row, column in np.ndindex(*upstream.shape):
        down, right = row * stride, column * stride
        padded[:, down : down + side, right : right + side] += upstream[out, row, column] * weight[out]
    return padded[:, padding : padding + inputs.shape[1], padding : padding + inputs.shape[2]]


def _norm(upstream: Array, norm: nn.Module) -> Array:
    result: Array = upstream * _slope(norm)
    return result


def _max_pool(upstream: Array, inputs: Array) -> Array:
    """All to the greatest of the window. Where several are equal they are zero, and the rectifier before stops it."""
    result = np.zeros_like(inputs)
    for channel, row, column in np.ndindex(*upstream.shape):
        window = [
            (y, x)
            for y in range(max(0, 2 * row - 1), min(inputs.shape[1], 2 * row + 2))
            for x in range(max(0, 2 * column - 1), min(inputs.shape[2], 2 * column + 2))
        ]
        y, x = max(window, key=lambda at: inputs[channel, at[0], at[1]])
        result[channel, y, x] += upstream[channel, row, column]
    return result


def _total_variation(picture: Array) -> Array:
    """Each norm's derivative is its differences over the norm."""
    _, rows, columns = picture.shape
    result = np.zeros_like(picture)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        pairs = [
            ((row + down, column + right), (row, column))
            for row in range(rows - down)
            for column in range(columns)
            if 0 <= column + right < columns
        ]
        differences = [picture[:, one[0], one[1]] - picture[:, two[0], two[1]] for one, two in pairs]
        norm = np.sqrt(sum((difference**2).sum() for difference in differences))
        for (one, two), difference in zip(pairs, differences, strict=True):
            result[:, one[0], one[1]] += difference / norm
            result[:, two[0], two[1]] -= difference / norm
    return result


def _weight(layer: nn.Module) -> Array:
    values: Array = layer.get_parameter("weight").detach().double().numpy()
    return values


def _vector(norm: nn.Module, name: str) -> Array:
    values: Array = norm.state_dict()[name].double().numpy()[:, None, None]
    return values


def _slope(norm: nn.Module) -> Array:
    assert isinstance(norm, nn.BatchNorm2d)
    result: Array = _vector(norm, "weight") / np.sqrt(_vector(norm, "running_var") + norm.eps)
    return result
