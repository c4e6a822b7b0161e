"""What a statistics store holds, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import zarr

from stores.arrays.display import counted
from stores.arrays.names import unplaced
from stores.arrays.provenance import dataset_fingerprint
from stores.arrays.schema import group_at
from stores.dataset.references import LOWEST
from stores.dataset.targets import TARGETS
from stores.errors import PICTURE_STATUS_MEANINGS, STATUS_MEANINGS
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
    ranked = statistics.ranked()
    for layer in _layers_begun(statistics.root):
        if layer not in ranked:
            yield f"  references/{layer}: not finished, run `vital references` again"
            continue
        references = statistics.references(layer)
        live, (neurons, ranks) = int(references.live().sum()), references.image.shape
        yield f"  references/{layer}: {live} of {neurons} neurons have references, up to {ranks} each"
    for targets in statistics.all_targets():
        done = targets.done()
        counts = counted(targets.status(), PICTURE_STATUS_MEANINGS)
        yield f"  {TARGETS}/{targets.layer}/{targets.variant}: {int(done.sum())} of {len(done)} blocks, {counts}"


def _layers_begun(root: zarr.Group) -> list[str]:
    """Layers whose references a run has at least begun to write."""
    if "references" not in root:
        return []
    present = group_at(root, "references")
    parts = [part for part, _ in present.groups()]
    lowest = [part for part in parts if f"{part}{LOWEST}" in present]
    return sorted([*map(unplaced, parts), *(f"{unplaced(part)}{LOWEST}" for part in lowest)])
