"""What a statistics store holds, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from jaxtyping import Int32

from stores.arrays.display import counted
from stores.arrays.names import unplaced
from stores.arrays.provenance import dataset_fingerprint
from stores.arrays.schema import group_at
from stores.dataset.index import NO_LABEL
from stores.dataset.kept.references import LOWEST, live_of
from stores.dataset.targets import TARGETS
from stores.errors import PICTURE_STATUS_MEANINGS, STATUS_MEANINGS, USED
from stores.files import safe_url

if TYPE_CHECKING:
    from stores.dataset.store import Statistics


def statistics_lines(statistics: Statistics) -> Iterator[str]:
    """Lines for a terminal: what it was made from, its shards and images, references and targets of every layer."""
    base, shards, status = statistics.base, statistics.shards(), statistics.image_status()
    dataset = dataset_fingerprint(shards.identities())
    yield f"{safe_url(statistics.url)}: statistics of {base.get('model', '?')}, weights {base.get('weights', '?')}"
    yield f"  fingerprints: base {statistics.base_fingerprint}, dataset {dataset}"
    yield f"  shards: {len(shards)}, images: {len(status)}, {counted(status, STATUS_MEANINGS)}"
    yield from (f"  short shard {name}: {why}" for name, why in zip(shards.name, shards.short, strict=True) if why)
    if labels := statistics.labels:
        yield f"  labels: {_in_words(labels, statistics.image_labels()[np.isin(status, USED)])}"
    ranked = statistics.ranked()
    for layer in _layers_begun(statistics.root):
        if layer not in ranked:
            yield f"  references/{layer}: not finished, run `vital references` again"
            continue
        image = statistics.reference(layer, "image")
        live, (neurons, ranks) = int(live_of(image).sum()), image.shape
        none = ", as no image has one of these labels" if layer == "classes" and not live else ""
        if layer.partition("~")[2] in statistics.dictionaries() and live < neurons:
            none = ", the others are never active"
        yield f"  references/{layer}: {live} of {neurons} neurons have references, up to {ranks} each{none}"
        if (fit := statistics.fit(layer)) is not None:
            yield from (f"    {words}" for words in (fit.line(), *fit.doubts()))
    for targets in statistics.all_targets():
        done = targets.done()
        counts = counted(targets.status(), PICTURE_STATUS_MEANINGS)
        line = f"  {TARGETS}/{targets.layer}/{targets.variant}: {int(done.sum())} of {len(done)} blocks, {counts}"
        yield f"{line}{targets.facets_in_words()}"


def _in_words(labels: Mapping[str, Any], of_images: Int32[np.ndarray, "image"]) -> str:
    """How labels were matched with the network's classes, and the first of them; how many used images have none."""
    names, numbers, by = labels["classes"], labels["numbers"], labels["by"]
    key = "" if labels["key"] == "cls" else f" of {labels['key']}"
    without = int((of_images == NO_LABEL).sum()) if not by.startswith("nothing") else 0
    if 0 < without == len(of_images):
        return f"no image has one under {labels['key']!r}; where others count, start a new store with --label-key"
    key += f", and {without} of {len(of_images)} images have none" * bool(without)
    if not numbers:
        return f"matched by {by}{key}" if by == "number" else f"matched with no class of the network{key}"
    used = [number for number in range(len(numbers)) if number >= len(names) or names[number]]
    shown = [f"{names[one] if one < len(names) else one} is class {numbers[one]}" for one in used if numbers[one] >= 0]
    missing = [str(names[one]) for one in used if numbers[one] < 0 and one < len(names)]
    text = f"{len(shown)} of {len(used)} classes are the network's, matched by {by}{key}: {', '.join(shown[:3])}"
    text += ", …" if len(shown) > 3 else ""
    others = f"; none of its classes: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
    return text + others * bool(missing)


def _layers_begun(root: zarr.Group) -> list[str]:
    """Layers whose references a run has at least begun to write."""
    if "references" not in root:
        return []
    present = group_at(root, "references")
    parts = [part for part, _ in present.groups()]
    lowest = [part for part in parts if f"{part}{LOWEST}" in present]
    return sorted([*map(unplaced, parts), *(f"{unplaced(part)}{LOWEST}" for part in lowest)])
