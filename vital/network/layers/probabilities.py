"""Whether a network's output is probabilities, which depend on the scores of every class and saturate."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

NORMALISED = "softmax"
LOGARITHMS = "log-softmax"
ROUNDING = 1e-4
"""By which a row's sum may miss 1, all networks computing in single precision or better."""
SAID = (
    "ends in a {kind}: neurons of 'classes' are {what}, each of which depends on the scores of all and changes little "
    "where it is certain; give the network without its {kind} for scores of their own"
)
"""What is said of a network whose classes are no scores of their own."""
WHAT = {NORMALISED: "probabilities", LOGARITHMS: "logarithms of probabilities"}


def said_of(given: Float[Tensor, "image class"]) -> tuple[str, ...]:
    """A sentence's end on an output that is `normalised`; nothing on others."""
    kind = normalised(given)
    return (SAID.format(kind=kind, what=WHAT[kind]),) if kind else ()


def normalised(given: Float[Tensor, "image class"]) -> str | None:
    """Which normalisation the output of two images or more bears, up to rounding: every row at least 0 with a sum of
    1, or the logarithm of such. None where there is none, or a single class.

    >>> import torch
    >>> scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 1.0]])
    >>> normalised(scores), normalised(scores.softmax(1)), normalised(scores.log_softmax(1))
    (None, 'softmax', 'log-softmax')
    """
    if given.is_meta or len(given) < 2 or given.shape[1] < 2:
        return None
    rows = given.detach().double()
    if bool((rows >= 0).all()) and _ones(rows):
        return NORMALISED
    if bool((rows <= 0).all()) and _ones(rows.exp()):
        return LOGARITHMS
    return None


def _ones(rows: Float[Tensor, "image class"]) -> bool:
    return bool(((rows.sum(1) - 1).abs() <= ROUNDING).all())
