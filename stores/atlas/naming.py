"""What the neurons of a layer of an atlas may be called: words from a vocabulary, and what speaks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float32, Int64, Shaped

from stores.arrays.provenance import JSON, claim, claimed
from stores.arrays.schema import ArraySpec, array_at, declare, group_at
from stores.arrays.writing import write_whole

NAMES = "names"
_MEANINGS = {
    "word": "words whose scores on images go along with the neuron's peaks, the best first; empty where there is none",
    "chosen": "correlation of the word's scores with the neuron's peaks, over the images that chose it",
    "score": "the same over images that had no part in the choice",
    "precision": "how well the word's scores find the strongest twentieth of these images: average precision",
    "precise": "precision that the first word reaches by chance, as shuffled images tell; below it there is no name",
    "named": "1 where the neuron has a name: its first word reaches both bounds, and outdone by none of its words",
    "bound": "score that the best of all words reaches by chance, as shuffled images tell; below it there is no name",
    "evidence": "image ids: of the images that had no part in the choice, those with the neuron's greatest peaks",
    "shown": "the first word's score on each of these images",
}


@dataclass(frozen=True, eq=False)
class Naming:
    """Words for the neurons of a layer, the best first, as `vital names` found them.

    ``score`` is the correlation of a word's scores with the neuron's peaks over images that had no part in its choice
    (``chosen`` is that over those that had), ``precision`` how well they find the neuron's strongest images. ``bound``
    is what the best word reaches by chance, and ``precise`` what precision the first word does. Neurons are ``named``
    whose first word is above the one, not below the other, and outdone by none of its words. ``evidence`` are image
    ids, and ``shown`` the first word's scores there. ``made_from`` says of which words, images and network.
    """

    word: Shaped[np.ndarray, "neuron rank"]
    chosen: Float32[np.ndarray, "neuron rank"]
    score: Float32[np.ndarray, "neuron rank"]
    precision: Float32[np.ndarray, "neuron rank"]
    bound: Float32[np.ndarray, "neuron"]
    precise: Float32[np.ndarray, "neuron"]
    named: Bool[np.ndarray, "neuron"]
    evidence: Int64[np.ndarray, "neuron image"]
    shown: Float32[np.ndarray, "neuron image"]
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The neurons' names, empty for those without one."""
        return [str(word) if named else "" for word, named in zip(self.word[:, 0], self.named, strict=True)]

    def in_words(self) -> str:
        """How many neurons have a name, and what they were named by."""
        said = self.made_from
        return (
            f"{int(self.named.sum())} of {len(self.word)} neurons have a name, of {said.get('words', '?')} words by "
            f"{said.get('source', '?')}: {said.get('images_that_chose', '?')} images chose, "
            f"{said.get('images_that_scored', '?')} others scored"
        )


def read_naming(group: zarr.Group, layer: str) -> Naming | None:
    """The names of the layer at a path of an atlas; None where there are none, or a run that wrote them was killed."""
    kept = group.get(f"{layer}/{NAMES}")
    made_from = claimed(kept, "names") if isinstance(kept, zarr.Group) else None
    if made_from is None:
        return None
    paths = {name: f"{layer}/{NAMES}/{name}" for name in _MEANINGS}
    later = ("precise", "named")  # names of a version that asked for the score alone lack them
    read = {name: path for name, path in paths.items() if name not in later or path in group}
    arrays = {name: np.asarray(array_at(group, path)[:]) for name, path in read.items()}
    arrays.setdefault("precise", np.full(len(arrays["bound"]), np.nan, np.float32))
    arrays.setdefault("named", arrays["score"][:, 0] > arrays["bound"])
    return Naming(**arrays, made_from=made_from)


def write_naming(group: zarr.Group, layer: str, naming: Naming) -> None:
    """Write the names of a layer in place of earlier ones; a single writer. What they are made from comes last: without
    it they count for nothing."""
    parent = group_at(group, layer)
    if NAMES in parent:
        del parent[NAMES]  # of other words: other numbers of ranks
    arrays = {part.name: getattr(naming, part.name) for part in fields(naming) if part.name in _MEANINGS}
    for name, values in arrays.items():
        axes = ("neuron", {"evidence": "image", "shown": "image"}.get(name, "rank"))[: values.ndim]
        text = values.dtype.kind in "TUO"
        kind = "str" if text else str(values.dtype)
        path = f"{layer}/{NAMES}/{name}"
        declare(group, [ArraySpec(path, axes, values.shape, kind, _MEANINGS[name])])
        write_whole(array_at(group, path), values.astype(np.dtypes.StringDType()) if text else values)
    fields_: dict[str, JSON] = dict(naming.made_from)
    claim(group_at(group, f"{layer}/{NAMES}"), "names", fields_)
