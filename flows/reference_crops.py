"""The crops of neurons' references: each image is read and decoded once, each crop of it is cut once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import zarr
from jaxtyping import UInt8
from torch import Tensor

from flows.statistics_store import load_images
from stores.references import References
from vital.preprocessing import Preprocessing
from vital.ranking import NOBODY

Box = tuple[int, ...]
"""Top, left, height, width, in pixels of the network's input."""


def reference_crops(
    group: zarr.Group,
    preprocessing: Preprocessing,
    references: References,
    whole: bool,
    neurons: Sequence[int],
    urls: Mapping[str, str],
) -> Iterator[tuple[UInt8[Tensor, "3 side side"], tuple[int, ...]]]:
    """Every distinct image and box once, in ascending order, with the places among ``neurons`` of those that share it;
    the box is the reference's patch, or the ``whole`` image."""
    edges = (0, 0, preprocessing.side, preprocessing.side)
    wanted: dict[int, dict[Box, list[int]]] = {}
    for place, neuron in enumerate(neurons):
        for image, patch in zip(references.image[neuron], references.box[neuron], strict=True):
            if image != NOBODY:
                box = edges if whole else tuple(map(int, patch))
                wanted.setdefault(int(image), {}).setdefault(box, []).append(place)
    for image, pixels in load_images(group, list(wanted), preprocessing, urls):
        for box, places in sorted(wanted[image].items()):
            yield preprocessing.cut(pixels, box), tuple(places)
