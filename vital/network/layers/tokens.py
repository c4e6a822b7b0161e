"""Which sites of a layer of tokens come before the image's own: a token for the class, registers, distillation. And
which come after, such as those for objects to detect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vital.network.layers.layer import Layer

Constant = tuple[bool, ...]
"""Of each site of tokens, whether it is the same for all images; empty where that was not seen."""


def other_tokens(seen: Mapping[str, tuple[Constant, Constant]], layers: Sequence[Layer]) -> dict[str, tuple[int, int]]:
    """How many leading and trailing tokens each layer has.

    Before the first attention such tokens are the same for every image, and the image's own are not: they are counted
    where the network first has so many tokens, and later layers of as many have them, too. Where that cannot be seen,
    tokens beyond those of the last map before are leading, or one beyond a square.
    """
    known: dict[int, tuple[int, int]] = {}
    counted: dict[str, tuple[int, int]] = {}
    grid = 0
    for layer in sorted(layers, key=lambda one: one.begun):
        output, inputs = seen.get(layer.name, ((), ()))
        for constant in (inputs, output):
            sites = len(constant)
            if sites > 1 and sites not in known and any(constant) and not all(constant):
                known[sites] = constant.index(False), constant[::-1].index(False)
    for layer in layers:
        if layer.layout == "channels-first" and layer.sites > 1:
            grid = layer.sites
        if layer.layout != "channels-last" or layer.sites < 2:
            counted[layer.name] = 0, 0
            continue
        counted[layer.name] = known.get(layer.sites) or (_beyond(layer.sites, grid, known), 0)
    return counted


def _beyond(sites: int, grid: int, known: Mapping[int, tuple[int, int]]) -> int:
    if math.isqrt(sites) ** 2 == sites or sites == grid:
        return 0
    usual = {leading for leading, _ in known.values()} - {0}
    for extra in sorted(usual | {1}, reverse=True):
        if math.isqrt(max(sites - extra, 0)) ** 2 == sites - extra > 0:
            return extra
    return sites - grid if 0 < sites - grid <= 16 else 0
