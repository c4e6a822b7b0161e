"""The statistics store as one object: what one pass over shards knows of a network on a data set.

Its attributes, completion marks and array paths are spelled here and in the files beside, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from jaxtyping import Float, Float32, Int32, Shaped, UInt8

from stores.arrays.display import in_line, lines_html
from stores.arrays.names import placed, unplaced
from stores.arrays.opening import Mode, open_store
from stores.arrays.provenance import JSON, claim, claimed, dataset_fingerprint, fingerprint
from stores.arrays.schema import array_at, declare, group_at
from stores.dataset.directions import Dictionaries, Directions, StoredDictionary, write_dictionary, write_directions
from stores.dataset.fits import DictionaryFit, read_fit, write_fit
from stores.dataset.images import (
    read_colour_rows,
    read_colours,
    read_image_sums,
    read_spectrum,
    write_image_sums,
    write_images,
)
from stores.dataset.index import (
    SampleRows,
    ShardRows,
    append_parts,
    image_count,
    index_specs,
    read_columns,
    read_index,
    read_shards,
    shard_count,
)
from stores.dataset.kept.neurons import KeptOfNeurons
from stores.dataset.kept.places import Places, read_places
from stores.dataset.kept.references import REFERENCES
from stores.dataset.layers import SUMS, layer_specs, read_layer, write_layer
from stores.dataset.summary import statistics_lines
from stores.dataset.targets import TARGETS, Targets
from stores.files import safe_url

if TYPE_CHECKING:
    import xarray

LAYERS = "layers"


@dataclass(frozen=True, eq=False)
class Statistics(KeptOfNeurons):
    """An open statistics store. Arrays are read anew at each call; attributes are those of when it was opened.

    >>> s = open_statistics("stats.zarr")                            # doctest: +SKIP
    >>> s.references("layer4.2").image[7]                            # doctest: +SKIP
    """

    url: str
    root: zarr.Group

    def __repr__(self) -> str:
        return f"<statistics at {safe_url(self.url)}>"

    def again(self, mode: Mode = "r") -> Statistics:
        """The same store opened anew, with the attributes that others have written since."""
        return open_statistics(self.url, mode)

    # What it was made from

    @property
    def base(self) -> dict[str, Any]:
        """Network, weights, preprocessing, levels and precision by name; empty before the first pass."""
        return claimed(self.root, "base") or {}

    @property
    def base_fingerprint(self) -> str:
        """Digest of `base`: stores with the same were measured in the same way."""
        return fingerprint(self.base)

    @property
    def dataset_fingerprint(self) -> str:
        """Of the shards that were read, in their order."""
        return dataset_fingerprint(self.shards().identities())

    @property
    def provenance(self) -> dict[str, str]:
        """Both fingerprints, as an atlas records them."""
        return {"base": self.base_fingerprint, "dataset": self.dataset_fingerprint}

    @property
    def levels(self) -> int:
        """Levels kept of a sorted row."""
        return int(self.base["levels"])

    @property
    def model(self) -> dict[str, Any]:
        """Settings of the network as they were given, for commands that load it again."""
        kept: Any = self.root.attrs["model"]
        return dict(kept)

    def claim(self, base: Mapping[str, JSON], model: Mapping[str, JSON]) -> None:
        """Record what the store is made from, or refuse another base by the field that differs. Once, before tasks.

        Raises:
            ForeignStore: the store is of another base.
        """
        claim(self.root, "base", base)
        if "model" not in self.root.attrs:
            self.root.attrs["model"] = dict(model)
        declare(self.root, index_specs(), sealed=True)

    def check(self, identity: Mapping[str, JSON]) -> None:
        """Refuse a network whose weights or preprocessing are no longer those of the statistics."""
        claim(self.root, "base", {**self.base, **identity})

    # Labels: how they are read, and which class of the network each is

    @property
    def labels(self) -> dict[str, Any]:
        """How labels were read and matched with the network's classes, by field; empty before the first pass."""
        return claimed(self.root, "labels") or {}

    def claim_labels(self, fields: Mapping[str, JSON], anew: bool = False) -> None:
        """Record how labels are read and matched, or refuse another way by the field that differs. ``anew`` replaces
        what is recorded: only where no reference was chosen by it."""
        if anew and "labels" in self.root.attrs:
            del self.root.attrs["labels"]
        claim(self.root, "labels", fields)

    # Images and their shards

    def shards(self) -> ShardRows:
        """The shards that were read."""
        return read_shards(self.root)

    def shard_count(self) -> int:
        """Shards that were read."""
        return shard_count(self.root)

    def index(self) -> SampleRows:
        """Every image that was seen; an image id is a row of it."""
        return read_index(self.root)

    def image_count(self) -> int:
        """Images that were seen: rows of the index."""
        return image_count(self.root)

    def image_status(self) -> UInt8[np.ndarray, "image"]:
        """What became of every image: the one column of the index that a summary needs."""
        return np.asarray(array_at(self.root, "index/status")[: self.image_count()])

    def image_labels(self) -> Int32[np.ndarray, "image"]:
        """The label of every image, −1 where it has none."""
        return np.asarray(array_at(self.root, "index/label")[: self.image_count()])

    def keys(self, images: Sequence[int]) -> list[str]:
        """The keys of some images, in that order; raises SchemaMismatch where there is no such image."""
        return [str(key) for key in read_columns(self.root, np.asarray(images, np.int64), ["key"])["key"]]

    def places(self, images: Sequence[int]) -> Places:
        """Where some images lie, each once in ascending order; raises SchemaMismatch where there is no such image."""
        return read_places(self.root, np.asarray(images, np.int64))

    def append(self, rows: SampleRows, shards: ShardRows) -> None:
        """Add shards and their images at the end; a single writer."""
        self.append_parts([(rows, shards)])

    def append_parts(self, parts: Iterable[tuple[SampleRows, ShardRows]]) -> None:
        """The same of many parts in their order, of which a few are in memory together."""
        append_parts(self.root, parts)

    # Statistics of layers, and of the images themselves

    def measured(self) -> list[str]:
        """Layers with statistics over all shards that were read."""
        now = self.dataset_fingerprint
        return [name for name, mark in self._marks(LAYERS).items() if mark == now]

    def was_measured(self, name: str) -> bool:
        """Whether a layer is marked as complete, by what is known since the store was opened: it costs no request."""
        return f"{LAYERS}/{name}" in self.root.attrs

    def lacks_layer(self, name: str) -> bool:
        """Whether there are none of a layer, as where they were removed after they were marked as complete."""
        return f"{LAYERS}/{placed(name)}" not in self.root

    def layer(self, name: str) -> dict[str, Shaped[np.ndarray, "..."]]:
        """All statistics of a layer by name, such as ``mean`` (channel); raises SchemaMismatch where there are none."""
        return read_layer(self.root, name)

    def statistic(self, layer: str, name: str) -> Shaped[np.ndarray, "..."]:
        """One statistic of a layer; raises SchemaMismatch where it was not measured."""
        return np.asarray(array_at(self.root, f"{LAYERS}/{placed(layer)}/{name}")[...])

    def meaning(self, layer: str, name: str) -> str:
        """What a statistic says, in words."""
        return str(array_at(self.root, f"{LAYERS}/{placed(layer)}/{name}").attrs.get("meaning", name))

    def write_layer(
        self,
        name: str,
        level: Float[np.ndarray, "level"],
        arrays: Mapping[str, Shaped[np.ndarray, "..."]],
        meanings: Mapping[str, str],
    ) -> None:
        """Declare and write a layer's statistics, whose meanings are given by path; a single writer. Without levels
        there are no rows."""
        given = {path: meaning for path, meaning in meanings.items() if path in arrays}
        declared = declare(self.root, layer_specs(name, len(arrays["mean"]), len(level), given))
        write_layer(self.root, name, {**({"level": level} if len(level) else {}), **arrays}, declared)

    def colours(self) -> tuple[Float[np.ndarray, "colour"], Float[np.ndarray, "colour colour"]]:
        """Mean and covariance of the images' colour logits."""
        return read_colours(self.root)

    def colour_rows(self) -> Float[np.ndarray, "colour level"]:
        """Mean over the images of each colour's sorted bytes."""
        return read_colour_rows(self.root)

    def spectrum(self) -> Float[np.ndarray, "colour row column"]:
        """Mean amplitude spectrum of the images, half of it."""
        return read_spectrum(self.root)

    def image_sums(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """What colours and spectrum are made of, by name."""
        return read_image_sums(self.root)

    def write_images(
        self,
        spectrum: Float[np.ndarray, "colour row column"],
        mean: Float[np.ndarray, "colour"],
        covariance: Float[np.ndarray, "colour colour"],
        sums: Mapping[str, Shaped[np.ndarray, "..."]],
    ) -> None:
        """Write spectrum and colours, and the sums that later images are added to; a single writer."""
        write_images(self.root, spectrum, mean, covariance)
        write_image_sums(self.root, sums)

    # Directions; references, queries and samples are in `KeptOfNeurons`

    def directions(self) -> Directions:
        """Matrices whose rows are neurons of a layer's channels, by name; each is read when it is asked for."""
        return Directions(self.root)

    def write_directions(self, name: str, matrix: Float32[np.ndarray, "direction channel"]) -> None:
        """Keep such a matrix; another one of this name is refused."""
        write_directions(self.root, name, matrix)

    def dictionaries(self) -> Dictionaries:
        """Dictionaries whose features are neurons of a layer's channels, by name; each is read when it is asked for."""
        return Dictionaries(self.root)

    def write_dictionary(self, name: str, dictionary: StoredDictionary) -> None:
        """Keep such a dictionary; another one of this name is refused."""
        write_dictionary(self.root, name, dictionary)

    def write_fit(self, name: str, fit: DictionaryFit) -> None:
        """Keep how well the dictionary of this name goes with a layer."""
        write_fit(self.root, name, fit)

    def fit(self, layer: str) -> DictionaryFit | None:
        """How well the dictionary that ``layer``, ``MODULE~NAME``, is of goes with the module; None where there is no
        dictionary, or nothing was measured."""
        read, _, name = layer.rpartition("~")
        return read_fit(self.root, name, read) if name in self.dictionaries() else None

    # Completion marks: of layers the data set's fingerprint, of references that and their number

    def mark(self, layers: Sequence[str], references: Mapping[str, int]) -> None:
        """Note what is complete for all shards that are in the index; last, when everything else is written."""
        now = self.dataset_fingerprint
        marks = {f"{LAYERS}/{name}": now for name in layers}
        marks |= {f"{REFERENCES}/{name}": f"{now}/{ranks}" for name, ranks in references.items()}
        # Sorted behind the rest: the bytes do not tell in which order layers came to the store.
        kept = self._attributes_now()
        all_marks = {name: value for name, value in kept.items() if name.startswith((f"{LAYERS}/", f"{REFERENCES}/"))}
        rest = {name: value for name, value in kept.items() if name not in all_marks}
        self.root.attrs.put(rest | dict(sorted((all_marks | marks).items())))

    def unmark(self, layers: Sequence[str], references: Sequence[str]) -> None:
        """Take the marks away: what is being rewritten is not for readers."""
        marks = {f"{LAYERS}/{name}" for name in layers} | {f"{REFERENCES}/{name}" for name in references}
        now = self._attributes_now()
        if marks & set(now):
            self.root.attrs.put({name: value for name, value in now.items() if name not in marks})

    def _attributes_now(self) -> dict[str, Any]:
        """Those that others have written since this was opened with them: all are written together, and a run on other
        layers may have marked its own meanwhile."""
        return dict(self.again().root.attrs)

    def _marks(self, folder: str) -> dict[str, object]:
        return {
            name.removeprefix(f"{folder}/"): mark
            for name, mark in self.root.attrs.items()
            if name.startswith(f"{folder}/")
        }

    # Targets

    def targets(self, layer: str, variant: str) -> Targets:
        """A layer's targets in one variant, whether they are there or not."""
        return Targets.of(self.root, layer, variant)

    def all_targets(self, layer: str | None = None) -> Iterator[Targets]:
        """Every variant that is declared, of all layers or of one; sorted."""
        if TARGETS not in self.root:
            return
        for part, variants in sorted(group_at(self.root, TARGETS).groups()):
            name = unplaced(part)
            if layer in (None, name):
                every = (self.targets(name, variant) for variant, _ in sorted(variants.groups()))
                yield from (targets for targets in every if targets.declared)

    # For people

    def summary(self) -> list[str]:
        """What the store holds and how complete it is, in lines; what it was made from first."""
        return list(map(in_line, statistics_lines(self)))

    def _repr_html_(self) -> str:
        return lines_html(self.summary())

    def dataset(self, layer: str) -> xarray.Dataset:
        """The statistics of a layer with named axes: channels and levels."""
        import xarray

        arrays = read_layer(self.root, layer)
        folder = f"{LAYERS}/{placed(layer)}"
        axes = {name: array_at(self.root, f"{folder}/{name}").metadata.dimension_names for name in arrays}  # type: ignore[union-attr]
        shown = {name: (axes[name], values) for name, values in arrays.items() if not name.startswith(SUMS)}
        coordinates = {name: shown.pop(name) for name in ("level",) if name in shown}
        return xarray.Dataset(shown, coords=coordinates)


def open_statistics(url: str, mode: Mode = "r") -> Statistics:
    """The statistics store at a path or fsspec URL: to read it ("r"), to write into one that exists ("r+"), or to
    write and make it where it is missing ("a").

    Raises:
        MissingStore: nothing is there.
        SchemaMismatch: it is no statistics store, or of another version.
    """
    return Statistics(url, open_store(url, "statistics", mode))
