"""What stands in an atlas: its layers, its neurons' names, and what it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping

import zarr

from stores.arrays.provenance import claimed
from stores.arrays.schema import group_at

CLASSES = "classes"  # as in vital.settings, which would import pydantic for it


def atlas_layers(atlas: zarr.Group) -> list[str]:
    """The layers of an atlas, classes first; those whose arrays a killed run did not finish to create are left out."""
    found = [name for name, part in atlas.groups() if claimed(part, "atlas") is not None and "done" in part]
    return sorted(found, key=lambda name: (name != CLASSES, _natural(name)))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts block 4 before block 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def neuron_name(atlas: zarr.Group, layer: str, neuron: int) -> str:
    """The class's name, or the channel's number."""
    names = group_at(atlas, layer).attrs.get("names") or []
    assert isinstance(names, list)
    return (
        str(names[neuron]) if neuron < len(names) else (f"class {neuron}" if layer == CLASSES else f"channel {neuron}")
    )


def atlas_facts(atlas: zarr.Group) -> dict[str, str]:
    """What an atlas was made from, for people."""
    record = claimed(atlas, "statistics") or {}
    facts = {"statistics": f"base {record.get('base', '?')}, dataset {record.get('dataset', '?')}"}
    for layer in atlas_layers(atlas):
        fields = claimed(group_at(atlas, layer), "atlas") or {}
        facts[layer] = (
            f"{fields['variant']}, {_way(fields)}, {fields['steps']} steps, {fields['side']} px, seed {fields['seed']}"
        )
    return facts


def _way(fields: Mapping[str, object]) -> str:
    method = fields.get("method", "vital")
    return f"preset {fields['preset']}" if method == "vital" else f"method {method}"
