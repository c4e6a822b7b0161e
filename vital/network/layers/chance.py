"""Whether a network gives the same each time: where chance decides what it gives, statistics and targets are noise."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SAMPLED = 1024
"""Values of an activation that are compared, at most."""
ROUNDING = 1e-3
"""Share of the greatest value by which two runs may differ: kernels of a GPU add in any order."""

UNSTEADY = (
    "gives something else each time it runs on the same image, since its forward draws random numbers or changes what "
    "it keeps: let both depend on self.training, as F.dropout(x, p, self.training) does, or name a layer before it"
)
"""Why a module is no layer."""
DRAWS = "draws random numbers in its forward, and gave the same three times: see that they change nothing in evaluation"
"""What is said of a network that could give something else."""
MIXES = (
    "gives something else of an image when another is beside it, as normalisation by the batch does: statistics and "
    "pictures depend on --batch; have its forward look at each image by itself, as in evaluation"
)
"""What is said of the first module that looks at several images together."""


def sampled(activation: Tensor) -> Float[Tensor, "_value"]:
    """Some of its values, the same places each time, kept from what changes it in place."""
    values = activation.detach().flatten()
    return values[:: max(1, len(values) // SAMPLED)].to(torch.float32, copy=True)


def unsteady(first: Float[Tensor, "_value"], second: Float[Tensor, "_value"]) -> bool:
    """Whether two runs differ by more than rounding; what is infinite or undefined in one of them does not count.

    >>> unsteady(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001])), unsteady(torch.ones(2), torch.zeros(2))
    (False, True)
    """
    if first.shape != second.shape:
        return True
    if first.is_meta:  # a network without values, of which shapes alone are asked
        return False
    known = first.isfinite() & second.isfinite()
    first, second = first[known], second[known]
    return bool(first.numel()) and bool(
        (first - second).abs().max() > ROUNDING * max(first.abs().max(), second.abs().max())
    )


def streams(device: torch.device) -> tuple[object, ...]:
    """The state of what random numbers are commonly drawn from: after a draw it is another."""
    old = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 -- networks may draw from it
    states = (old["key"].tobytes(), old["pos"], torch.get_rng_state().numpy().tobytes())
    return (*states, torch.cuda.get_rng_state(device).numpy().tobytes()) if device.type == "cuda" else states
