"""Words about stores: what they hold, how complete they are, what they were made from. Neither torch nor Prefect is
needed for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from flows.pages.facts import atlas_facts, atlas_layers
from stores.arrays.provenance import claimed, dataset_fingerprint, fingerprint
from stores.arrays.schema import array_at, group_at, open_store
from stores.atlas import read_layer_metrics, read_metrics
from stores.dataset.index import read_index, read_shards
from stores.dataset.references import read_references
from stores.errors import PICTURE_STATUS_MEANINGS, STATUS_MEANINGS, PictureStatus, SchemaMismatch, Status

if TYPE_CHECKING:
    from rich.console import Console


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
            images = read_references(group, layer).image
            filled = int((images >= 0).any(1).sum())
            total, ranks = images.shape
            yield f"  references/{layer}: {filled} of {total} neurons have references, up to {ranks} each"
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
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

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
