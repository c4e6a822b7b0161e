"""How far pictures activate their own channel, where the network gives no number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vital.judging.metrics import peak_ranks
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.preprocessing import Preprocessing


class RootOf(nn.Module):
    """Not a number where an input is negative."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Root of each value."""
        return inputs.sqrt()


def test_a_picture_whose_activation_is_not_a_number_is_no_ones_best() -> None:
    first = nn.Conv2d(3, 3, 1, bias=False).requires_grad_(False)
    first.weight.copy_(torch.diag(torch.tensor([-1.0, 1.0, 2.0])).view(3, 3, 1, 1))
    model = Model("roots", nn.Sequential(first, RootOf()), Preprocessing(16, (0.0,) * 3, (1.0,) * 3))
    pixels = np.full((2, 16, 16, 3), 200, np.uint8)
    found = peak_ranks(model, Readout("1"), [0, 2], pixels, {}, (np.zeros(3), np.ones(3)))
    assert np.isnan(found.peak[0])
    assert found.rank.tolist() == [2, 0]
