"""What a statistics store keeps of the neurons of a layer: their best images, and a sample of images with every
neuron's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Float32, Int64, Shaped

from stores.arrays.blocks import read_rows
from stores.arrays.names import placed
from stores.arrays.provenance import claim, claimed
from stores.arrays.schema import ArraySpec, array_at
from stores.arrays.writing import write_all
from stores.dataset.kept.places import Places, read_reference_places, write_reference_places
from stores.dataset.kept.references import (
    LOWEST,
    NOBODY,
    QUERIES,
    REFERENCES,
    References,
    read_reference,
    read_references,
    references_path,
    write_references,
)
from stores.errors import SchemaMismatch

SAMPLES = "samples"


@dataclass(frozen=True)
class Sample:
    """Images drawn by lot from the whole data set, in ascending order of their ids, and every neuron's greatest
    activation on each; of a class its logit."""

    image: Int64[np.ndarray, "image"]
    peak: Float32[np.ndarray, "image neuron"]

    def peaks_on(self, images: Int64[np.ndarray, "some"]) -> Float32[np.ndarray, "some neuron"]:
        """Every neuron's peak on some of these images, by their ids.

        >>> Sample(np.array([3, 8, 9]), np.float32([[0], [1], [2]])).peaks_on(np.array([9, 3])).tolist()
        [[2.0], [0.0]]
        """
        return self.peak[np.searchsorted(self.image, images)]


class KeptOfNeurons:
    """The part of an open statistics store that is about the neurons of its layers."""

    root: zarr.Group

    def ranked(self) -> dict[str, int]:
        """Layers with references, and how many a neuron has at most; ``LAYER/lowest`` are the most negative."""
        marks = {name: str(mark) for name, mark in self.root.attrs.items() if name.startswith(f"{REFERENCES}/")}
        return {name.removeprefix(f"{REFERENCES}/"): int(mark.rpartition("/")[2]) for name, mark in marks.items()}

    def lacks_references(self, layer: str) -> bool:
        """Whether there are none, as where they were removed after they were marked as complete."""
        return references_path(layer) not in self.root

    def claimed_kept(self, layer: str) -> dict[str, int] | None:
        """How many ``references``, ``queries`` and images of a ``sample`` were asked for of a layer, also where they
        are not finished; None where none were."""
        group = self.root.get(references_path(layer))
        return claimed(group, "references") if isinstance(group, zarr.Group) else None

    def references(self, layer: str, count: int | None = None, neurons: Sequence[int] | None = None) -> References:
        """A layer's references, the best ``count``, or all; of all its neurons, or of some in that order.

        Raises:
            SchemaMismatch: the layer has none, or fewer than ``count`` are kept.
        """
        count = self._ranks(layer, count)
        return read_references(self.root, layer, _ids(neurons)).best(count)

    def reference(
        self, layer: str, name: str, count: int | None = None, neurons: Sequence[int] | None = None
    ) -> Shaped[np.ndarray, "neuron rank ..."]:
        """One part of them, such as ``image``: the others, three quarters of the bytes, are not read."""
        count = self._ranks(layer, count)
        return read_reference(self.root, layer, name, _ids(neurons))[:, :count]

    def reference_places(self, layer: str, neurons: Sequence[int], count: int | None = None) -> Places:
        """Where the images of some neurons' references lie: what is read does not grow with the index.

        Raises:
            SchemaMismatch: the layer has no references, or fewer than ``count`` are kept.
        """
        return read_reference_places(self.root, layer, np.asarray(neurons, np.int64), self._ranks(layer, count))

    def queries(self, layer: str, neurons: Sequence[int] | None = None) -> References:
        """The images right beyond a layer's references, best first: none of them is one, so that they can ask what a
        picture tells. Of all its neurons, or of some in that order.

        Raises:
            SchemaMismatch: the layer has no references, or the store was made without queries.
        """
        self._require(layer, "queries", "queries")
        return read_references(self.root, layer, _ids(neurons), QUERIES)

    def query_places(self, layer: str, neurons: Sequence[int]) -> Places:
        """Where the images of some neurons' queries lie; raises SchemaMismatch as `queries` does."""
        kept = self._require(layer, "queries", "queries")
        return read_reference_places(self.root, layer, np.asarray(neurons, np.int64), kept, QUERIES)

    def keeps_sample(self, layer: str) -> bool:
        """Whether the store was made with a sample of images for a layer."""
        return layer in self.ranked() and bool((self.claimed_kept(layer) or {}).get("sample"))

    def sample(self, layer: str, neurons: Sequence[int] | None = None) -> Sample:
        """Images drawn by lot, the same for every layer that keeps as many, and every neuron's peak on each, or those
        of some neurons in that order.

        Raises:
            SchemaMismatch: the layer has no references, or the store was made without a sample.
        """
        self._require(layer, "sample", "sample of images")
        folder = f"{SAMPLES}/{placed(layer)}"
        image = np.asarray(array_at(self.root, f"{folder}/image")[:])
        kept, wanted = array_at(self.root, f"{folder}/peak"), _ids(neurons)
        peak = np.asarray(kept[:]) if wanted is None else read_rows(kept, wanted)
        taken = int((image != NOBODY).sum())
        return Sample(image[:taken], peak[:, :taken].T)

    def write_references(self, layer: str, references: References, queries: int = 0, sample: int = 0) -> None:
        """Claim, declare and write a layer's references and where their images lie, which the index must know; a single
        writer. The last ``queries`` ranks are kept apart. ``sample`` is how many images of one were asked for, which
        `write_sample` then writes."""
        ranks = references.image.shape[1] - queries
        # Claimed before the arrays are there: another number is refused by name, also after a killed run.
        kept = {"references": ranks, "queries": queries, "sample": sample}
        claim(self.root.require_group(references_path(layer)), "references", kept)
        parts: Mapping[str, References] = {REFERENCES: references.best(ranks), QUERIES: references.beyond(ranks)}
        for folder, part in parts.items():
            if part.image.shape[1] or folder == REFERENCES:
                write_reference_places(self.root, layer, part.image, folder)
                write_references(self.root, layer, part, folder)

    def write_sample(self, layer: str, sample: Sample, most: int) -> None:
        """Declare and write a layer's sample, with room for ``most`` images; a single writer."""
        folder, (images, neurons) = f"{SAMPLES}/{placed(layer)}", sample.peak.shape
        image = np.full(most, NOBODY, np.int64)
        peak = np.full((neurons, most), np.nan, np.float32)
        image[:images], peak[:, :images] = sample.image, sample.peak.T
        specs = sample_specs(folder, neurons, most)
        write_all(self.root, specs, {f"{folder}/peak": peak, f"{folder}/image": image})

    def _ranks(self, layer: str, count: int | None) -> int:
        ranks = self.ranked()
        if layer not in ranks or self.lacks_references(layer):  # marked last: a killed run leaves no mark
            asked = f"{layer.removesuffix(LOWEST)} --lowest" if layer.endswith(LOWEST) else layer
            others = ", ".join(name for name in ranks if name != layer) or "none"
            raise SchemaMismatch(
                f"the store has no references of layer {layer!r}, it has those of {others}: "
                f"run `vital references … --layer {asked}` on the same shards first"
            )
        if count is not None and count > ranks[layer]:
            raise SchemaMismatch(
                f"{count} references were asked for and the store keeps {ranks[layer]} of layer {layer!r}: "
                f"ask for fewer, or make the store with --references {count}"
            )
        return ranks[layer] if count is None else count

    def _require(self, layer: str, option: str, what: str) -> int:
        self._ranks(layer, None)
        kept = (self.claimed_kept(layer) or {}).get(option, 0)
        if not kept:
            raise SchemaMismatch(
                f"the store keeps no {what} of layer {layer!r}: make it anew with `vital references`, and without "
                f"--{option} 0"
            )
        return kept


def sample_specs(folder: str, neurons: int, most: int) -> list[ArraySpec]:
    """Arrays of ``samples/LAYER``; one writer. A few neurons' rows are read without the others'."""
    return [
        ArraySpec(
            f"{folder}/image",
            ("image",),
            (most,),
            "int64",
            "image id of an image drawn by lot, ascending, -1 behind the last",
            fill=NOBODY,
        ),
        ArraySpec(
            f"{folder}/peak",
            ("neuron", "image"),
            (neurons, most),
            "float32",
            "the neuron's greatest activation on the image; for a class its logit; NaN behind the last",
            fill=float("nan"),
        ),
    ]


def _ids(neurons: Sequence[int] | None) -> Int64[np.ndarray, "neuron"] | None:
    return None if neurons is None else np.asarray(neurons, np.int64)
