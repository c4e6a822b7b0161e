"""The data set's mean sorted colours, from bytes, against sorting every image by itself."""

from __future__ import annotations

import numpy as np
import torch

from vital.measuring.exact import total_of
from vital.measuring.image_sums import LEVELS, ImageSums
from vital.measuring.rows import resample, site_levels, stored_levels


def test_the_mean_of_sorted_colours_is_that_of_each_image_s() -> None:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (11, 3, 20, 20), generator=stream, dtype=torch.uint8)
    sums = ImageSums.of(pixels[:4]) + ImageSums.of(pixels[4:])
    rows = np.sort(pixels.flatten(2).double().numpy(), axis=-1)
    kept = stored_levels(400, LEVELS)
    expected = resample(torch.from_numpy(rows), site_levels(400), kept).mean(0).numpy()
    np.testing.assert_allclose(total_of(sums.rows) / sums.count, expected, rtol=1e-6)
