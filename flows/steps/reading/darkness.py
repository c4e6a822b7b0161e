"""Images whose values end far below what their kind of numbers could hold, as those of 12 bits in 16: a network would
see them dark, and nothing else would say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from flows.steps.images import bands_of
from stores.errors import UnreadableImage
from stores.shards.bands import is_array, is_tiff
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile
from stores.shards.reading import first_images
from vital.network.preprocessing import Preprocessing

LOOKED_AT = 16
DARK = 0.26
"""Share of white below which the brightest value of several images is doubtful: 14 bits in 16 reach a quarter."""


def doubts(shard: ShardFile, preprocessing: Preprocessing) -> Iterator[str]:
    """A sentence where the first images of a shard are arrays or TIFF, nobody said what their values mean, and the
    brightest of them is far from white."""
    bands = bands_of(preprocessing)
    if bands.black:
        return
    levels = []
    for image in first_images(shard, LOOKED_AT, bands.photographs):
        if is_array(image) or (not bands.photographs and is_tiff(image)):
            with suppress(UnreadableImage):
                levels.append(float(np.max(decode(image, bands=bands))))
    if levels and max(levels) <= DARK * 255:
        yield (
            f"the brightest value of the first {len(levels)} images of {shard.name} is {max(levels) / 255:.1%} of "
            "white, which is 65535 of 16 bits, 255 of bytes and 1 of floats: where it should be brighter, say what is "
            "white in a new store, such as --black 0 --white 4095 of 12 bits"
        )
