"""What one step sees of a picture: turned, enlarged or shrunk, or a window of it, as one affine map.

The random transformations of Olah, Mordvintsev, Schubert, "Feature visualization" (Distill, 2017), and the random crops
of Fel et al., "Unlocking feature visualization for deeper networks with MAgnitude Constrained Optimization" (2023).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F  # noqa: N812  the usual name
from jaxtyping import Bool, Float
from torch import Tensor


def random_views(
    source: np.random.Generator,
    steps: int,
    rotation: float,
    zoom: float,
    window: tuple[float, float],
    whole: Bool[np.ndarray, "step"] | None = None,
) -> Float[np.ndarray, "step 2 3"]:
    """Affine maps from what is seen to the picture, both in -1..1: an angle up to ``rotation`` degrees, a scale
    within 1 ± ``zoom``, and a window of a random share of the side at a random place inside the picture; no window in
    steps that are ``whole``."""
    angle = np.deg2rad(source.uniform(-rotation, rotation, steps))
    share = source.uniform(*window, steps)
    if whole is not None:
        share[whole] = 1
    scale = share * source.uniform(1 - zoom, 1 + zoom, steps)
    centre = source.uniform(-1, 1, (steps, 2)) * (1 - share)[:, None]
    turned = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(steps, 2, 2)
    return np.concatenate([scale[:, None, None] * turned, centre[..., None]], -1)


def view(
    pictures: Float[Tensor, "picture 3 side side"], maps: Float[Tensor, "picture 2 3"]
) -> Float[Tensor, "picture 3 side side"]:
    """Each picture through its own affine map, bilinear; beyond the edge it is mirrored."""
    grid = F.affine_grid(maps.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
