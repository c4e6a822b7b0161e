"""How near finished pictures came to their targets: one sorted row per node, averaged over channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from vital.models import Model
from vital.probe import Layout, probe
from vital.quantiles import resample, site_levels
from vital.sorting import sort_rows
from vital.targets import Target


@dataclass(frozen=True)
class Reached:
    """A node's own row of every picture and the target's, both averaged over channels by importance."""

    picture: Float[np.ndarray, "picture level"]
    target: Float[np.ndarray, "picture level"]


def reached(
    model: Model, target: Target, pixels: UInt8[np.ndarray, "picture side side 3"], layouts: dict[str, Layout]
) -> Mapping[str, Reached]:
    """The rows of the stored 8-bit pictures, at the target's levels."""
    device = next(model.network.parameters()).device
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode(), probe(model.network, list(target.nodes), layouts) as run:
        seen = run(model.preprocessing.normalise(images))
        rows = {}
        for name, node in target.nodes.items():
            ordered = sort_rows(seen[name].float())
            mine = resample(ordered, site_levels(ordered.shape[-1]), node.levels).numpy(force=True)
            weight = np.ones(mine.shape[:2]) if node.importance is None else node.importance
            share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
            rows[name] = Reached(
                *(np.einsum("pc,pcl->pl", share, part).astype(np.float32) for part in (mine, node.quantiles))
            )
    return rows
