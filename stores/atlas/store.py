"""The atlas store as one object: layers of pictures, and the statistics that they were made from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from stores.arrays.blocks import COUNT, FACET
from stores.arrays.display import as_shown, counted, image_html, in_line, lines_html
from stores.arrays.opening import Mode, open_store, stored_kind
from stores.arrays.provenance import claim, claimed
from stores.atlas.layer import AtlasLayer
from stores.atlas.picture import AtlasPicture
from stores.dataset.store import Statistics, open_statistics
from stores.errors import PICTURE_STATUS_MEANINGS, MissingStore, PictureStatus, SchemaMismatch, StoreError
from stores.files import safe_url
from stores.together import together

if TYPE_CHECKING:
    import xarray

SHOWN, SHOWN_SIDE = 24, 96
"""Pictures of an atlas that a notebook shows, and how large."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """An open atlas store; ``atlas["layer4.2", 7]`` is a picture, ``atlas["layer4.2", 7, 1]`` that of the neuron's
    second facet.

    Arrays are read anew at each call; attributes are those of when it was opened.
    """

    url: str
    root: zarr.Group

    def __repr__(self) -> str:
        return f"<atlas at {safe_url(self.url)}>"

    def again(self, mode: Mode = "r") -> Atlas:
        """The same store opened anew, with the attributes that others have written since."""
        return open_atlas(self.url, mode)

    # Layers and pictures

    @property
    def layers(self) -> list[str]:
        """Its layers, classes first; those whose arrays a killed run did not finish to create are left out."""
        with warnings.catch_warnings():
            # what another process is just writing lies there under a name of its own
            warnings.filterwarnings("ignore", r"Object at \S+\.partial is not recognized", ZarrUserWarning)
            parts = [AtlasLayer(self.root, name) for name, group in self.root.groups() if claimed(group, "atlas")]
        declared = together(lambda part: part.declared, parts)
        names = [part.name for part, there in zip(parts, declared, strict=True) if there]
        return sorted(names, key=lambda name: (name != "classes", _natural(name)))

    def layer(self, name: str) -> AtlasLayer:
        """One layer by its name, whether the atlas has it yet or not: `require_layer` asks."""
        return AtlasLayer.of(self.root, name)

    def require_layer(self, name: str) -> AtlasLayer:
        """One layer; raises SchemaMismatch that lists the layers where it is not there."""
        if name not in self.layers:
            raise SchemaMismatch(
                f"the atlas has no layer {name!r}, it has {', '.join(self.layers) or 'none'}: give one of these"
            )
        return self.layer(name)

    def __getitem__(self, neuron: tuple[str, int] | tuple[str, int, int]) -> AtlasPicture:
        """The picture of a neuron given as (layer, number), or of a facet of it as (layer, number, facet) from 0.

        Raises:
            SchemaMismatch: no such layer, neuron or facet, or it is written otherwise.
        """
        written = isinstance(neuron, tuple) and len(neuron) in (2, 3) and isinstance(neuron[0], str)
        if not written or not all(isinstance(one, Integral) for one in neuron[1:]):
            raise SchemaMismatch(
                f"{neuron!r} is no neuron of an atlas: give a layer and a number, such as atlas['layer4.2', 7]; "
                "atlas.dataset('layer4.2') has all of a layer"
            )
        layer, number = self.require_layer(neuron[0]), int(neuron[1])
        facet = int(neuron[2]) if len(neuron) == 3 else 0
        facets = layer.require_facet(number, facet)
        rows = layer.rows([number], ("pixels", "alpha", "loss"), [facet])
        status = PictureStatus(int(layer.status([number])[0]))
        name = layer.neuron_name(number)
        return AtlasPicture(
            layer.name,
            number,
            name,
            status,
            rows["pixels"][0],
            rows["alpha"][0],
            rows["loss"][0],
            facet,
            facets,
            layer.shown,
        )

    @property
    def empty(self) -> bool:
        """Whether it holds no finished picture yet."""
        return not any(self.layer(name).made().any() for name in self.layers)

    # What it was made from

    @property
    def provenance(self) -> dict[str, str]:
        """Fingerprints of the statistics: ``base`` and ``dataset``; empty where nothing was claimed."""
        return {name: str(value) for name, value in (claimed(self.root, "statistics") or {}).items()}

    @property
    def statistics_url(self) -> str:
        """Where its statistics were when it was made, without credentials."""
        return str(self.root.attrs.get("store", ""))

    def claim(self, statistics: Statistics) -> None:
        """Record which statistics it is made from, or refuse others. Once, before tasks."""
        claim(self.root, "statistics", statistics.provenance)
        # Where the statistics lie is a hint for later commands, not what the pictures depend on.
        self.root.attrs["store"] = safe_url(statistics.url)

    def statistics(self, given: str | None = None) -> Statistics:
        """Its statistics: at the URL given, or where the atlas remembers them, or of the same name beside it.

        Raises:
            SchemaMismatch: they are not there, are no statistics of this version, or are of another network than the
                atlas was made from.
        """
        recorded = self.statistics_url
        beside = "/".join((self.url.rstrip("/").rpartition("/")[0] or ".", recorded.rstrip("/").rpartition("/")[2]))
        asked, unsuitable = self.provenance.get("base"), None
        for url in (given,) if given else (recorded, beside):
            try:
                statistics = open_statistics(url)
            except MissingStore:
                continue
            except StoreError as error:  # such as a store of another version: others may be beside
                unsuitable = unsuitable or error
                continue
            if asked == statistics.base_fingerprint:
                return statistics
            if url != beside:
                raise SchemaMismatch(
                    f"the statistics at {safe_url(url)!r} have base {statistics.base_fingerprint} but "
                    f"{safe_url(self.url)} was made from base {asked}: give the store it was made from with --store "
                    "(store=)"
                )
        if unsuitable is not None:
            raise unsuitable
        raise SchemaMismatch(
            f"the atlas's statistics are not at {safe_url(given or recorded)!r}: say where they are with --store "
            "(store=), "
            "or leave the photos out with --no-references"
        )

    # For people

    def summary(self) -> list[str]:
        """What it holds, how complete it is and what it was made from, in lines."""
        return list(map(in_line, self._lines()))

    def _lines(self) -> Iterator[str]:
        made_from = self.provenance
        yield f"{safe_url(self.url)}: atlas"
        yield (
            f"  made from base {made_from.get('base', '?')}, dataset {made_from.get('dataset', '?')} "
            f"at {self.statistics_url or '?'}"
        )
        for name in self.layers:
            layer = self.layer(name)
            done = layer.done()
            yield f"  {name}: {_settings_in_words(layer.settings)}"
            counts = counted(layer.status(), PICTURE_STATUS_MEANINGS)
            yield f"    {int(done.sum())} of {len(done)} blocks, {counts}{layer.facets_in_words()}"
            if (naming := layer.naming()) is not None:
                yield f"    {naming.in_words()}"
            if names := layer.metric_names():
                yield f"    measured by `vital evaluate`: {', '.join(names)}"

    def metric_lines(self, layers: list[str] | None = None) -> Iterator[str]:
        """The metrics of every layer, or of ``layers``: its own, and the mean of each over its neurons."""
        yield f"{safe_url(self.url)}: metrics"
        for name in layers or self.layers:
            layer = self.layer(name)
            of_neurons, of_layer = sorted(layer.metrics().items()), sorted(layer.layer_metrics().items())
            width = max((len(metric) for metric, _ in (*of_neurons, *of_layer)), default=0)
            for metric, values in of_neurons:
                known = values[np.isfinite(values)]
                unit = " %" if layer.metric_meaning(metric)[1] == "percent" else ""
                mean = f"mean {known.mean():.4g}{unit} over {len(known)} neurons" if len(known) else "not measured"
                yield f"  {name}  {metric:<{width}}  {mean}"
            for metric, entry in of_layer:
                value = entry["value"]
                yield f"  {name}  {metric:<{width}}  {'not measured' if value is None else f'{value:.4g} of the layer'}"

    def name_lines(self, layers: list[str] | None = None, most: int = 10) -> Iterator[str]:
        """How many neurons of every layer, or of ``layers``, have a name, and the ``most`` whose names score best."""
        yield f"{safe_url(self.url)}: names"
        for name in layers or self.layers:
            layer = self.layer(name)
            if (naming := layer.naming()) is None:
                yield f"  {name}: none, as `vital names` did not run"
                continue
            yield f"  {name}: {naming.in_words()}"
            score = np.where(naming.named, naming.score[:, 0], -np.inf)
            for neuron in np.argsort(-score, kind="stable")[: min(most, int(naming.named.sum()))]:
                yield (
                    f"    {neuron:>6}  {naming.word[neuron, 0]:<32} score {score[neuron]:.2f}, by chance "
                    f"{naming.bound[neuron]:.2f}; average precision {naming.precision[neuron, 0]:.2f}, by chance "
                    f"{naming.precise[neuron]:.2f}"
                )

    def _repr_html_(self) -> str:
        layers = [self.layer(name) for name in self.layers]
        made = [(layer, int(neuron)) for layer in layers for neuron in np.flatnonzero(layer.made())]
        images = [
            image_html(
                as_shown(layer.pixels([neuron])[0], layer.shown),
                SHOWN_SIDE,
                f"{layer.name}:{neuron} {layer.neuron_name(neuron)}",
            )
            for layer, neuron in made[:: max(1, -(-len(made) // SHOWN))]
        ]
        return f"{lines_html(self.summary())}<div>{''.join(images)}</div>"

    def dataset(self, layer: str) -> xarray.Dataset:
        """A layer's pictures, losses and metrics with named axes, read when used; what was not made is NaN, and so are
        the facets that a neuron does not have. Metrics of each of several pictures are called ``NAME_by_facet``.

        Masking needs floats, so pixels and opacity are given as float32; ``status`` and ``seed`` keep their integers.
        """
        import xarray

        part = self.require_layer(layer)
        whole = xarray.open_zarr(self.root.store, group=part.path, consolidated=False, chunks={}, mask_and_scale=False)
        made = xarray.DataArray(part.made(), dims="neuron")
        if part.most_facets > 1:
            made = made & (whole[COUNT] > 0)
        masked = {
            name: array.astype(np.float32).where(made) if name in ("pixels", "alpha", "loss") else array
            for name, array in whole.data_vars.items()
            if "neuron" in array.dims
        }
        masked["status"] = whole["status"].copy(data=part.status())  # of blocks that are not done: not made
        metrics: dict[str, Any] = {name: ("neuron", values) for name, values in part.metrics().items()}
        of_facets = part.facet_metrics().items()
        metrics |= {f"{name}_by_facet": (("neuron", FACET), values) for name, values in of_facets}
        neurons: dict[str, Any] = {"neuron": np.arange(part.count)}
        if len(part.names) == part.count:
            neurons["name"] = ("neuron", part.names)
        attributes = {"layer": layer, "made_from": self.provenance}
        return xarray.Dataset({**masked, **metrics}, coords=neurons, attrs=attributes)


def open_atlas(url: str, mode: Mode = "r") -> Atlas:
    """The atlas at a path or fsspec URL: to read it ("r"), to write into one that exists ("r+"), or to write and make
    it where it is missing ("a").

    Raises:
        MissingStore: nothing is there.
        SchemaMismatch: it is no atlas, or of another version.
    """
    return Atlas(url, open_store(url, "atlas", mode))


def open_any(url: str) -> Statistics | Atlas:
    """Whichever of the two kinds of store lies at ``url``, to read it; raises MissingStore and SchemaMismatch."""
    kind = stored_kind(url)
    if kind is None:
        raise MissingStore(f"there is no store at {safe_url(url)}, statistics or atlas: check the path or URL")
    return open_atlas(url) if kind == "atlas" else open_statistics(url)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts block 4 before block 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _settings_in_words(settings: Mapping[str, object]) -> str:
    method = settings.get("method", "vital")
    way = f"preset {settings['preset']}" if method == "vital" else f"method {method}"
    return f"{settings['variant']}, {way}, {settings['steps']} steps, {settings['side']} px, seed {settings['seed']}"
