"""How to make an atlas's pictures again: the commands and settings, from what the stores have recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from flows.running.process import LIVE, stored_model
from flows.steps.targets import variant_of
from stores import Atlas, AtlasLayer, Statistics
from stores.arrays.names import placed
from stores.dataset.directions import DICTIONARIES, DIRECTIONS
from stores.files import join
from vital.network.probe import CLASSES, INPUT
from vital.settings import ModelSettings, PictureSettings, Settings, StatisticsSettings

NEURON = "{neuron}"
"""Stands for the neuron's number in a command."""
JUDGES = ("squeezenet", "efficientnet_lite2")
"""Networks whose weights come with packages; a page names the first that made no pictures itself."""


def commands(atlas_url: str, pictures: AtlasLayer, store: str, statistics: Statistics | None) -> list[str]:
    """The ``vital`` commands that lead to a layer's pictures; without the statistics only the last one is known.

    There are none where a command could not say it: for a module of a Python program, and for settings that this
    version does not have.
    """
    layer = pictures.name
    live = statistics is not None and stored_model(statistics).name.startswith(LIVE)
    if live or set(pictures.settings) - set(PictureSettings.model_fields) - {"variant", "algorithm"}:
        return []
    variant = str(pictures.settings.get("variant", ""))
    chosen = _variant_options(statistics, layer, variant)
    nodes = _nodes(statistics, layer, variant)
    lines = []
    if statistics is not None:
        lines.append(_references(statistics, layer, store, nodes))
    picture = _picture(pictures.settings)
    if statistics is not None and not statistics.targets(layer, pictures.variant).declared:
        named = [*chosen, *nodes, "--targets", "fly"]
    else:
        if statistics is not None:
            lines.append(_line("targets", store, "--layer", layer, "--neurons", NEURON, *chosen, *nodes))
        # the atlas finds its targets by crop, relevance and number of references; nodes are recorded with them
        named = _without(chosen, "--fewest")
    lines.append(
        _line(
            "atlas", store, "--layer", layer, "--neurons", NEURON, "--out", atlas_url, *named,
            *options(picture, PictureSettings(preset=picture.preset, method=picture.method), always=_always(picture)),
        )
    )  # fmt: skip
    return lines


def _always(picture: PictureSettings) -> tuple[str, ...]:
    """What a command states of a picture even where it is the default; baselines have no presets."""
    return ("preset", "seed") if picture.method == "vital" else ("method", "seed")


def measuring(atlas_url: str, layer: str, statistics: Statistics | None) -> str:
    """The ``vital`` command that measures a layer's pictures, with a judge that is not their own network."""
    own = stored_model(statistics).name if statistics is not None else ""
    judge = next(name for name in JUDGES if name != own)
    return _line("evaluate", atlas_url, "--layer", layer, "--judge", judge)


def facts(atlas: Atlas, pictures: AtlasLayer) -> dict[str, str]:
    """Fingerprints and every setting of a layer's pictures, as recorded."""
    fields = pictures.settings
    return {
        "model and statistics": atlas.provenance.get("base", ""),
        "data set": atlas.provenance.get("dataset", ""),
        "pictures": pictures.fingerprint,
        "targets": str(fields.get("variant", "")),
        **{name.replace("_", " "): _text(value) for name, value in fields.items() if name != "variant"},
    }


def options(settings: Settings, usual: Settings, always: tuple[str, ...] = ()) -> list[str]:
    """Settings as options of the command: those that differ from ``usual``, and ``always``."""
    words: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or (name not in always and value == getattr(usual, name)):
            continue
        flag = f"--{name.replace('_', '-')}"
        words += (
            [flag]
            if value is True
            else [flag, *(str(one) for one in (value if isinstance(value, tuple) else (value,)))]
        )
    return words


def _references(statistics: Statistics, layer: str, store: str, nodes: list[str]) -> str:
    model = stored_model(statistics)
    base, shards = statistics.base, statistics.shards()
    folders = sorted({str(url).rpartition("/")[0] or "." for url in shards.url})
    ranks = statistics.ranked().get(layer)
    more = ["--references", str(ranks)] if ranks else []
    kept, usual = statistics.claimed_kept(layer) or {}, StatisticsSettings()
    for what in ("queries", "sample"):
        if what in kept and kept[what] != getattr(usual, what):
            more += [f"--{what}", str(kept[what])]
    if "levels" in base:
        more += ["--levels", str(base["levels"])]
    named = ["--model", model.name, *options(model.model_copy(update={"name": ""}), ModelSettings(name=""))]
    name = layer.partition("~")[2]  # the store keeps the matrix or dictionary that the neurons are of
    if name in statistics.dictionaries():
        more += ["--dictionary", join(store, DICTIONARIES, placed(name))]
    elif name:
        more += ["--directions", join(store, DIRECTIONS, name)]
    return _line("references", *folders, "--store", store, *named, "--layer", layer, *nodes, *more)


def _variant_options(statistics: Statistics | None, layer: str, variant: str) -> list[str]:
    """Options that name a variant, read from its label; what the label does not say needs the statistics."""
    label = re.fullmatch(r"(patch|image)(?:-([a-z-]+[a-z]))?(?:-(\d+))?(?:-(facets|split)(\d+))?", variant)
    crop, kind, count, divided, facets = label.groups() if label else (None, None, None, None, None)
    words = ["--crop", crop, "--relevance", kind] if crop and kind and layer != CLASSES else []
    words += ["--references", count] if count else []
    words += ["--facets", facets] if facets else []
    words += ["--split", "always"] if divided == "split" else []
    if statistics is None:
        return words
    targets = statistics.targets(layer, variant)
    fewest = variant_of(targets).fewest
    words += ["--fewest", str(fewest)] if fewest != 1 else []
    return words


def _nodes(statistics: Statistics | None, layer: str, variant: str) -> list[str]:
    """Options that name what a variant matches, for the pass that measures it and for targets."""
    nodes = statistics.targets(layer, variant).nodes if statistics is not None else ()
    return [word for node in nodes if node != INPUT for word in ("--node", node)]


def _without(words: list[str], *flags: str) -> list[str]:
    """Options and their values in turn, less some options."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for flag, value in pairs if flag not in flags for word in (flag, value)]


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
