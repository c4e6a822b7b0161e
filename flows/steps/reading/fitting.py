"""Whether the dictionaries of a pass go with the layers that they are read from, on some of its images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flows.running.process import LoadedModel
from flows.steps.images import bands_of
from stores import Statistics
from stores.dataset.fits import CLEARLY, DictionaryFit
from stores.errors import UnreadableImage, UnreadableShard
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile
from stores.shards.reading import first_images
from vital.network.layers import Layer
from vital.network.neurons import Dictionary
from vital.network.neurons.fit import fit
from vital.network.preprocessing import Preprocessing
from vital.network.probe import probe

SHARDS, IMAGES = 8, 64
"""So many images, of so many shards if there are: neighbours may be of one class."""
SITES, TOGETHER = 64, 8
"""Sites of an image at most, and images forwarded together."""
RIVALS = 24
"""Layers of as many channels that are tried, too, the nearest of the network's blocks."""


@dataclass(frozen=True)
class _Read:
    """A dictionary and the layer that it is read from."""

    name: str
    dictionary: Dictionary
    layer: Layer


def fits(statistics: Statistics, loaded: LoadedModel, layers: Sequence[str], shards: Sequence[ShardFile]) -> list[str]:
    """Measure how well the dictionaries that ``layers`` are of go with what they are read from, and keep it in the
    store; returns a sentence for each doubt."""
    asked = [one for layer in layers if (one := _read(loaded, layer)) is not None]
    some = shards[:: math.ceil(len(shards) / SHARDS)] if asked else ()
    images = [image for shard in some for image in _images(shard, loaded, math.ceil(IMAGES / len(some)))]
    if not images:
        return []
    rivals = [_rivals(loaded, one) for one in asked]
    names = list(dict.fromkeys(chain((one.layer.name for one in asked), *rivals)))
    sites, said = _sites(loaded, names, images), list[str]()
    for one, others in zip(asked, rivals, strict=True):
        own = fit(one.dictionary, sites[one.layer.name])
        shares = {name: fit(one.dictionary, sites[name]).explained or -math.inf for name in others}
        best = max(shares, key=shares.__getitem__, default="")
        clearly = own.explained is not None and shares.get(best, -math.inf) > max(own.explained, 0) + CLEARLY
        written = DictionaryFit(
            one.layer.name, len(images), own.active, own.silent, own.explained, best if clearly else "",
            shares[best] if clearly else 0.0,
            one.dictionary.trained_on if loaded.survey.called(one.dictionary.trained_on) is None else "",
        )  # fmt: skip
        statistics.write_fit(one.name, written)
        said += [f"the dictionary {one.name!r} read from {one.layer.name!r}: {doubt}" for doubt in written.doubts()]
    return said


def _read(loaded: LoadedModel, layer: str) -> _Read | None:
    dictionary = loaded.survey.layer(layer).reads.dictionary
    if dictionary is None:
        return None
    module, _, name = layer.rpartition("~")
    return _Read(name, dictionary, loaded.survey.layer(module))


def _rivals(loaded: LoadedModel, one: _Read) -> list[str]:
    """Blocks with maps of the same size as the layer's, the nearest first; none where nothing can be given back."""
    if one.dictionary.decoder is None:
        return []
    known = [layer for layer in loaded.survey.layers.values() if layer.block and layer.name != one.layer.name]
    size = one.layer.channels, one.layer.own_sites
    others = [layer for layer in known if (layer.channels, layer.own_sites) == size and not layer.classes]
    return [layer.name for layer in sorted(others, key=lambda layer: abs(layer.ended - one.layer.ended))][:RIVALS]


def _images(shard: ShardFile, loaded: LoadedModel, most: int) -> Iterator[UInt8[Tensor, "colour side side"]]:
    """The first usable images of a shard, as the network gets them. What cannot be read the pass will say."""
    preprocessing: Preprocessing = loaded.model.preprocessing
    bands = bands_of(preprocessing)
    with suppress(UnreadableShard):
        for image in first_images(shard, most, bands.photographs):
            with suppress(UnreadableImage):
                yield preprocessing.crop(decode(image, bands=bands))


@torch.no_grad()
def _sites(
    loaded: LoadedModel, names: Sequence[str], images: Sequence[UInt8[Tensor, "colour side side"]]
) -> dict[str, Float[Tensor, "site channel"]]:
    """Some sites of every image at each layer, the same share of each map."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    survey, device = loaded.survey, loaded.device
    with probe(loaded.model.network, names, survey.layouts()) as run:
        for start in range(0, len(images), TOGETHER):
            pixels = torch.stack(list(images[start : start + TOGETHER])).to(device)
            for name, maps in run(loaded.model.preprocessing.normalise(pixels)).items():
                own = maps[..., survey.layers[name].own]
                some = own[..., :: math.ceil(own.shape[-1] / SITES)]
                rows[name].append(some.movedim(1, 2).flatten(0, 1).float())
    return {name: torch.cat(parts) for name, parts in rows.items()}
