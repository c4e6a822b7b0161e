"""Words about models and stores: what there is, how complete it is, what it was made from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.jobs import BLOCK, Running
from flows.pages.atlas import atlas_facts, atlas_layers
from flows.running.blocks import blocks_of, parse_neurons, rows_of
from flows.running.process import stored_worker
from flows.steps.dataset import references_of
from stores.arrays.provenance import claimed, dataset_fingerprint, fingerprint
from stores.arrays.schema import array_at, group_at, open_store
from stores.atlas import read_layer_metrics, read_metrics
from stores.dataset.index import read_index, read_shards
from stores.errors import PICTURE_STATUS_MEANINGS, STATUS_MEANINGS, PictureStatus, SchemaMismatch, Status
from vital.measuring.sums import NOBODY
from vital.network.layers import survey
from vital.network.models import load_model
from vital.network.nodes import default_nodes
from vital.network.probe import INPUT
from vital.network.sources import RANDOM
from vital.propagation.conservation import conservation, liveliest, noise
from vital.settings import EMBEDDED, ModelSettings


def layer_table(settings: ModelSettings, every: bool) -> Iterator[str]:
    """A line a layer: name, channels, sites, and the nodes that are matched by default for its neurons."""
    model = load_model(_weights_or_random(settings))
    found = survey(model)
    shown = [layer for layer in found.layers.values() if every or layer.block or layer.classes]
    width = max(len(layer.name) for layer in shown)
    yield f"{'layer':<{width}}  channels  sites  nodes matched by default"
    for layer in shown:
        nodes = ", ".join((INPUT, *default_nodes(found, layer.name, model.name)))
        yield f"{layer.name:<{width}}  {layer.channels:>8}  {layer.sites:>5}  {nodes}"


def _weights_or_random(settings: ModelSettings) -> ModelSettings:
    """What layers there are does not depend on weights, so none need to be fetched."""
    if settings.weights is None and settings.name != EMBEDDED and ":" not in settings.name:
        return settings.model_copy(update={"weights": RANDOM})
    return settings


def conservation_table(settings: ModelSettings, layer: str) -> Iterator[str]:
    """How much of a layer's relevance arrives at each of its default nodes, and what loses the rest: the most active
    neuron on each of four pictures of 1/f noise, relevance kind lrp."""
    settings = _weights_or_random(settings)
    model = load_model(settings)
    found = survey(model)
    nodes, images = default_nodes(found, found.layer(layer).name, model.name), noise(model, 4)
    shares = conservation(model, found, layer, nodes, liveliest(model, found, layer, images), images)
    weights = "random weights: " if settings.weights == RANDOM else ""
    yield f"{weights}relevance of the liveliest neurons of {layer} on 4 pictures of noise, 1 being all that was started"
    width = max(len(name) for name in (*nodes, *shares.lost))
    yield from (f"{node:<{width}}  arrives {share:8.5f}" for node, share in shares.arrived.items())
    lost = {name: share for name, share in shares.lost.items() if abs(share) >= 1e-5}
    yield from (f"{name:<{width}}  loses   {share:8.5f}" for name, share in lost.items())


def rounding(store: str, layer: str, neurons: str) -> Iterator[str]:
    """Says so when the asked neurons are rounded out to whole blocks."""
    group = open_store(store, "statistics", "r")
    try:
        count = len(references_of(group, layer, None).image)
    except SchemaMismatch:
        stored_worker(group, Running()).found.layer(layer)  # a misspelt layer is told the nearest names
        raise
    asked = parse_neurons(neurons, count, layer)
    blocks = blocks_of(asked, BLOCK)
    whole = sum(len(rows_of(block, BLOCK, count)) for block in blocks)
    if whole != len(asked):
        yield f"{len(asked)} neurons asked, rounded out to {len(blocks)} whole blocks of {BLOCK}: {whole} neurons"


def store_summary(url: str) -> Iterator[str]:
    """What a statistics store or an atlas holds."""
    try:
        group, atlas = open_store(url, "statistics", "r"), False
    except SchemaMismatch:
        group, atlas = open_store(url, "atlas", "r"), True
    yield from _atlas_lines(url, group) if atlas else _statistics_lines(url, group)


def metric_lines(url: str, layers: Sequence[str] = ()) -> Iterator[str]:
    """The metrics of an atlas: of every layer its own, and the mean of each over its neurons."""
    atlas = open_store(url, "atlas", "r")
    yield f"{url}: metrics"
    for layer in layers or atlas_layers(atlas):
        for name, values in sorted(read_metrics(atlas, layer).items()):
            known = values[np.isfinite(values)]
            said = f"mean {known.mean():.4g} of {len(known)} neurons" if len(known) else "not measured"
            yield f"  {layer}  {name:<28} {said}"
        for name, entry in sorted(read_layer_metrics(atlas, layer).items()):
            value = entry["value"]
            yield f"  {layer}  {name:<28} {'not measured' if value is None else f'{value:.4g} of the layer'}"


def _statistics_lines(url: str, group: zarr.Group) -> Iterator[str]:
    base = claimed(group, "base") or {}
    shards, index = read_shards(group), read_index(group)
    yield f"{url}: statistics of {base.get('model', '?')}, weights {base.get('weights', '?')}"
    yield f"  fingerprints: base {fingerprint(base)}, dataset {dataset_fingerprint(shards.identities())}"
    yield f"  shards: {len(shards)}, images: {len(index)}, {_counted(index.status, STATUS_MEANINGS, Status)}"
    yield from (f"  short shard {name}: {why}" for name, why in zip(shards.name, shards.short, strict=True) if why)
    if "references" in group:
        for layer in _with_references(group_at(group, "references")):
            if f"references/{layer}" not in group.attrs:
                yield f"  references/{layer}: not finished, run `vital references` again"
                continue
            found = references_of(group, layer, None)
            filled = int(((found.image != NOBODY).sum(1) > 0).sum())
            ranks = found.image.shape[1]
            yield f"  references/{layer}: {filled} of {len(found.image)} neurons have references, up to {ranks} each"
    if "targets" in group:
        for layer, variants in sorted(group_at(group, "targets").groups()):
            for variant, part in sorted(variants.groups()):
                if "done" not in part:  # a killed run had only begun to declare it
                    continue
                done = np.asarray(array_at(part, "done")[:])
                status = np.asarray(array_at(part, "status")[:])
                counted = _counted(status, PICTURE_STATUS_MEANINGS, PictureStatus)
                yield f"  targets/{layer}/{variant}: {int(done.sum())} of {len(done)} blocks, {counted}"


def _with_references(present: zarr.Group) -> list[str]:
    names = [name for name, _ in present.groups()]
    return sorted(names + [f"{name}/lowest" for name in names if f"{name}/lowest" in present])


def _atlas_lines(url: str, group: zarr.Group) -> Iterator[str]:
    yield f"{url}: atlas"
    facts = atlas_facts(group)
    yield f"  made from {facts['statistics']} at {group.attrs.get('store', '?')}"
    for layer in atlas_layers(group):
        status = np.asarray(array_at(group, f"{layer}/status")[:])
        done = np.asarray(array_at(group, f"{layer}/done")[:])
        yield f"  {layer}: {facts[layer]}"
        yield f"    {int(done.sum())} of {len(done)} blocks, {_counted(status, PICTURE_STATUS_MEANINGS, PictureStatus)}"


def _counted(status: np.ndarray, meanings: Mapping[Any, str], kinds: type[Any]) -> str:
    counts = Counter(int(one) for one in status)
    return ", ".join(f"{count} {meanings[kinds(value)]}" for value, count in sorted(counts.items())) or "none"


EVERY = 2.0
"""Seconds between two looks."""


def watch(url: str, console: Console | None = None, every: float = EVERY) -> None:
    """Show the summary until every block that is declared is written, or the user has seen enough (Ctrl-C)."""
    with Live(console=console or Console(), auto_refresh=False) as live:
        try:
            while True:
                waiting = open_blocks(url)
                live.update(Text("\n".join(store_summary(url))), refresh=True)
                if not waiting:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def open_blocks(url: str) -> int:
    """Blocks of targets or pictures that are declared and not written."""
    try:
        group = open_store(url, "statistics", "r")
        layers = group_at(group, "targets").groups() if "targets" in group else ()
        parts = [part for _, layer in layers for _, part in layer.groups() if "done" in part]
    except SchemaMismatch:
        group = open_store(url, "atlas", "r")
        parts = [group_at(group, layer) for layer in atlas_layers(group)]
    done = [np.asarray(array_at(part, "done")[:], bool) for part in parts]
    return sum(int((~flags).sum()) for flags in done)
