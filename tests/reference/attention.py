"""Relevance through attention, one number at a time: slow, literal, without torch."""

from __future__ import annotations

import itertools
import math

import numpy as np

EPSILON = 1e-5

Array = np.ndarray


def attention_weights(queries: Array, keys: Array, added: Array | None = None) -> Array:
    """softmax over keys of q·k / √d + added, for one head: (query, channel), (key, channel) to (query, key)."""
    weights = np.zeros((len(queries), len(keys)))
    for query in range(len(queries)):
        scores = []
        for key in range(len(keys)):
            score = sum(a * b for a, b in zip(queries[query], keys[key], strict=True)) / math.sqrt(len(queries[query]))
            scores.append(score + (0.0 if added is None else float(added[query, key])))
        powers = [math.exp(score - max(scores)) for score in scores]
        weights[query] = [power / sum(powers) for power in powers]
    return weights


def weighted_sum(relevance: Array, weights: Array, values: Array) -> Array:
    """To each value its share of every output's relevance, among the terms of the output's sign."""
    result = np.zeros_like(values)
    for query, channel in np.ndindex(*relevance.shape):
        terms = [weights[query, key] * values[key, channel] for key in range(len(values))]
        sign = 1.0 if sum(terms) > 0 else -1.0
        kept = [max(sign * term, 0.0) for term in terms]
        for key, term in enumerate(kept):
            result[key, channel] += term / (sum(kept) + EPSILON) * relevance[query, channel]
    return result


def projection(relevance: Array, inputs: Array, weight: Array) -> Array:
    """Signed z⁺ of inputs (site, in) through a weight (out, in)."""
    result = np.zeros_like(inputs)
    for site, out in np.ndindex(*relevance.shape):
        terms = [max(inputs[site, place] * weight[out, place], 0.0) for place in range(inputs.shape[1])]
        for place, term in enumerate(terms):
            result[site, place] += term / (sum(terms) + EPSILON) * relevance[site, out]
    return result


def multi_head(
    relevance: Array,
    inputs: Array,
    projections: tuple[Array, Array, Array],
    biases: tuple[Array, Array, Array],
    out: Array,
    heads: int,
    added: Array | None = None,
) -> Array:
    """Relevance of the input (site, channel) of one image's self-attention: all through the values."""
    queries, keys, values = (
        np.stack([weight @ site + bias for site in inputs]) for weight, bias in zip(projections, biases, strict=True)
    )
    width = values.shape[1] // heads
    parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
    weights = [attention_weights(queries[:, part], keys[:, part], added) for part in parts]
    mixed = np.concatenate([weight @ values[:, part] for weight, part in zip(weights, parts, strict=True)], 1)
    at_heads = projection(relevance, mixed, out)
    at_values = np.concatenate(
        [weighted_sum(at_heads[:, part], weight, values[:, part]) for weight, part in zip(weights, parts, strict=True)],
        1,
    )
    return projection(at_values, inputs, projections[2])


def matrix_product(relevance: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Half of every term's share to each of its two factors; (row, inner) times (inner, column)."""
    to_first, to_second = np.zeros_like(first), np.zeros_like(second)
    for row, column in np.ndindex(*relevance.shape):
        terms = [max(first[row, inner] * second[inner, column], 0.0) for inner in range(first.shape[1])]
        for inner, term in itertools.compress(enumerate(terms), terms):
            part = term / (sum(terms) + EPSILON) * relevance[row, column] / 2
            to_first[row, inner] += part
            to_second[inner, column] += part
    return to_first, to_second
