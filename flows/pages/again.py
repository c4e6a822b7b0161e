"""How to make an atlas's pictures again: the commands and settings, from what the stores have recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import zarr

from flows.steps.targets import recorded_variant, target_nodes
from stores.arrays.provenance import claimed, fingerprint
from stores.arrays.schema import group_at
from stores.dataset.index import read_shards
from vital.network.probe import CLASSES, INPUT
from vital.settings import ModelSettings, PictureSettings, Settings

NEURON = "{neuron}"
"""Stands for the neuron's number in a command."""


def commands(atlas: zarr.Group, atlas_url: str, layer: str, store: str, statistics: zarr.Group | None) -> list[str]:
    """The ``vital`` commands that lead to a layer's pictures; without the statistics only the last one is known."""
    fields = claimed(group_at(atlas, layer), "atlas") or {}
    variant = str(fields.get("variant", ""))
    chosen = _variant_options(statistics, layer, variant)
    lines = []
    if statistics is not None:
        lines.append(_references(statistics, layer, store))
        lines.append(_line("targets", "--store", store, "--layer", layer, "--neurons", NEURON, *chosen))
    picture = _picture(fields)
    # the atlas finds its targets by crop, relevance and number of references; nodes are recorded with them
    named = _without(chosen, "--node", "--fewest")
    lines.append(
        _line(
            "atlas", "--store", store, "--layer", layer, "--neurons", NEURON, "--out", atlas_url, *named,
            *options(picture, PictureSettings(preset=picture.preset, method=picture.method), always=_said(picture)),
        )
    )  # fmt: skip
    return lines


def _said(picture: PictureSettings) -> tuple[str, ...]:
    """What a command says of a picture even where it is the default; baselines have no presets."""
    return ("preset", "seed") if picture.method == "vital" else ("method", "seed")


def facts(atlas: zarr.Group, layer: str) -> dict[str, str]:
    """Fingerprints and every setting of a layer's pictures, as recorded."""
    fields = claimed(group_at(atlas, layer), "atlas") or {}
    made_from = claimed(atlas, "statistics") or {}
    return {
        "model and statistics": str(made_from.get("base", "")),
        "data set": str(made_from.get("dataset", "")),
        "pictures": fingerprint(fields),
        "targets": str(fields.get("variant", "")),
        **{name.replace("_", " "): _text(value) for name, value in fields.items() if name != "variant"},
    }


def options(settings: Settings, usual: Settings, always: tuple[str, ...] = ()) -> list[str]:
    """Settings as options of the command: those that differ from ``usual``, and ``always``."""
    said: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or (name not in always and value == getattr(usual, name)):
            continue
        flag = f"--{name.replace('_', '-')}"
        said += (
            [flag]
            if value is True
            else [flag, *(str(one) for one in (value if isinstance(value, tuple) else (value,)))]
        )
    return said


def _references(statistics: zarr.Group, layer: str, store: str) -> str:
    model = ModelSettings.model_validate(statistics.attrs["model"])
    base = claimed(statistics, "base") or {}
    shards = read_shards(statistics)
    folders = sorted({str(url).rpartition("/")[0] or "." for url in shards.url})
    ranks = str(statistics.attrs.get(f"references/{layer}", "")).rpartition("/")[2]
    more = ["--references", ranks] if ranks else []
    if "levels" in base:
        more += ["--levels", str(base["levels"])]
    named = ["--model", model.name, *options(model.model_copy(update={"name": ""}), ModelSettings(name=""))]
    return _line("references", *folders, "--store", store, *named, "--layer", layer, *more)


def _variant_options(statistics: zarr.Group | None, layer: str, variant: str) -> list[str]:
    """Options that name a variant, read from its label; what the label does not say needs the statistics."""
    label = re.fullmatch(r"(patch|image)(?:-([a-z-]+[a-z]))?(?:-(\d+))?", variant)
    crop, kind, count = label.groups() if label else (None, None, None)
    said = ["--crop", crop, "--relevance", kind] if crop and kind and layer != CLASSES else []
    said += ["--references", count] if count else []
    if statistics is None:
        return said
    fewest = recorded_variant(statistics, layer, variant).fewest
    said += ["--fewest", str(fewest)] if fewest != 1 else []
    for node in target_nodes(statistics, layer, variant):
        said += ["--node", node] if node != INPUT else []
    return said


def _without(said: list[str], *flags: str) -> list[str]:
    kept, place = [], 0
    while place < len(said):
        if said[place] not in flags:
            kept += said[place : place + 2]
        place += 2
    return kept


def _picture(fields: Mapping[str, Any]) -> PictureSettings:
    return PictureSettings(**{name: value for name, value in fields.items() if name in PictureSettings.model_fields})


def _line(*words: str) -> str:
    quoted = [word if word == NEURON else shlex.quote(word) for word in words]
    return " ".join(["vital", *quoted])


def _text(value: Any) -> str:
    if value is None:
        return "as the preset has it"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
