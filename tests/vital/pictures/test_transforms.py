"""What moves a picture before the network sees it, against operations on one picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vital.pictures.transforms import shift


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_shift_is_a_roll_of_each_picture_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    """To the bit, signs of zeros included, and in the order of bytes that convolutions want."""
    stream = torch.Generator().manual_seed(3)
    pictures = torch.randn(4, 3, 11, 11, generator=stream).to(dtype)
    pictures[0, 0, :4] = -0.0
    upstream = torch.randn(4, 3, 11, 11, generator=stream).to(dtype)
    upstream[:, 1, 2] = -0.0
    by = torch.tensor([[0, 0], [3, -2], [-11, 5], [10, 22]])
    found = shift(leaf := pictures.clone().requires_grad_(), by)
    (gradient,) = torch.autograd.grad(found, leaf, upstream)
    rolled = torch.stack([one.roll(tuple(move.tolist()), (1, 2)) for one, move in zip(pictures, by, strict=True)])
    back = torch.stack([one.roll(tuple((-move).tolist()), (1, 2)) for one, move in zip(upstream, by, strict=True)])
    for mine, expected in ((found, rolled), (gradient, back)):
        assert torch.equal(mine, expected)
        assert torch.equal(mine.detach().signbit(), expected.signbit())
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_of_a_shift_is_its_finite_difference() -> None:
    by = torch.tensor([[1, -2]])
    assert torch.autograd.gradcheck(
        lambda x: shift(x, by), torch.randn(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    )


def test_pictures_shift_as_far_as_they_are_told() -> None:
    picture = torch.zeros(1, 3, 5, 5)
    picture[..., 1, 2] = 1
    moved = shift(picture, torch.tensor([[2, -1]]))
    assert np.argwhere(moved[0, 0].numpy()).tolist() == [[3, 1]]
