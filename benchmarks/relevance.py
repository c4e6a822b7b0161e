"""What relevance is worth without a picture: where it lies, what arrives, and whether it finds a neuron's channels.

    python benchmarks/relevance.py            # Markdown tables: docs/relevance.md
    python benchmarks/relevance.py --json     # the same, node by node, as one JSON object
    python benchmarks/relevance.py --tiny     # what a test runs: a few images, one layer

Networks with weights of their own: EfficientNet-Lite0 and SqueezeNet 1.1. Images: the embedded photographs. Of the
composites in `evidence.composites` the object is known to the pixel. Ways: the library's kinds of relevance, and
candidates that treat the bias otherwise (`evidence.candidates`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch

from benchmarks.evidence import deletion, localisation
from benchmarks.evidence.composites import composites, photographs, squared
from benchmarks.evidence.subject import WAYS, Subject, subject
from vital.network.probe import CLASSES
from vital.settings import EMBEDDED

LAYERS = {
    EMBEDDED: ("_blocks.4", "_blocks.9", "_blocks.13", CLASSES),
    "squeezenet": ("features.4", "features.7", "features.11", CLASSES),
}
"""An early, a middle and a late one, and the classes."""
BASE = "lrp"
DELETING = tuple(way for way in WAYS if way.rule is None or way.name == "ε, bias takes")
Table = dict[str, dict[str, dict[str, float]]]
"""By node (or ``all``, the mean of the nodes) and way, figures."""


def summary(values: Mapping[str, Mapping[str, Any]], base: str) -> Table:
    """Means over composites or neurons, and the standard error of the difference to ``base`` on the same ones."""
    names = list(next(iter(values.values())))
    rows = {node: {name: np.asarray(ways[name], np.float64) for name in names} for node, ways in values.items()}
    rows["all"] = {name: np.mean([ways[name] for ways in rows.values()], 0) for name in names}
    return {
        node: {
            name: {"mean": float(row.mean()), "error": float((row - ways[base]).std(ddof=1) / len(row) ** 0.5)}
            for name, row in ways.items()
        }
        for node, ways in rows.items()
    }


def where(one: Subject, layer: str, side: int, count: int) -> dict[str, Any]:
    """Shares inside the object, and what arrives at the nodes."""
    found = localisation.located(one, layer, composites(side, count))
    return {
        "inside": summary({node: at.inside for node, at in found.items()}, BASE),
        "arrived": {node: dict(at.arrived) for node, at in found.items()},
    }


def which(one: Subject, layer: str, photos: torch.Tensor, count: int) -> Table:
    """What deletions leave of neurons' peaks, at the first node, one in the middle and the last."""
    nodes = one.nodes(layer)
    chosen = tuple(dict.fromkeys((nodes[0], nodes[len(nodes) // 2], nodes[-1])))
    of = deletion.references(one, layer, photos, count)
    found = deletion.curves(one, layer, chosen, of, DELETING)
    left = {node: {name: rows.mean(1) for name, rows in ways.items()} for node, ways in found.items()}
    return summary(left, deletion.PEAK.format(BASE))


def tables(found: Mapping[str, Any]) -> str:
    """A table of each kind for each network: a column for each layer, the mean of its nodes."""
    parts = []
    for name, layers in found["networks"].items():
        inside = {layer: at["inside"]["all"] for layer, at in layers.items()}
        parts.append(table(f"{name}: share inside the object", inside))
        first = {
            layer: {way: {"mean": share} for way, share in next(iter(at["arrived"].values())).items()}
            for layer, at in layers.items()
        }
        parts.append(table(f"{name}: arrives at the first node", first))
        parts.append(table(f"{name}: left of the peak", {layer: at["left"]["all"] for layer, at in layers.items()}))
    return "\n\n".join(parts)


def table(title: str, columns: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """One table; a figure with the standard error of its difference to the base where there is one."""
    rows = list(dict.fromkeys(way for ways in columns.values() for way in ways))

    def cell(figures: Mapping[str, float] | None) -> str:
        if figures is None:
            return "–"
        error = f" ± {figures['error']:.3f}" if figures.get("error") else ""
        return f"{figures['mean']:.3f}{error}"

    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(cell(ways.get(row)) for ways in columns.values())} |" for row in rows]
    return "\n".join(lines)


def measured(layers: Mapping[str, Sequence[str]], side: int, count: int, neurons: int, photos: int) -> dict[str, Any]:
    """Everything, of these layers of each network."""
    shown = torch.stack([squared(photo, side) for _, photo in photographs()][:photos])
    networks: dict[str, Any] = {}
    for name, asked in layers.items():
        one = subject(name, side)
        networks[name] = {
            layer: where(one, layer, side, count) | {"left": which(one, layer, shown, neurons)} for layer in asked
        }
        print(name, "measured", file=sys.stderr, flush=True)
    return {"side": side, "composites": count, "neurons": neurons, "photographs": len(shown), "networks": networks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--tiny", action="store_true", help="a few images of one layer: figures mean nothing")
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--side", type=int, default=128, help="of all images, in pixels")
    parser.add_argument("--composites", type=int, default=32, help="at most 48")
    parser.add_argument("--neurons", type=int, default=6, help="of each layer, for deletions")
    options = parser.parse_args()
    if options.tiny:
        found = measured({"squeezenet": ("features.4",)}, 64, 3, 2, 12)
    else:
        found = measured(
            {name: LAYERS[name] for name in options.networks}, options.side, options.composites, options.neurons, 232
        )
    print(json.dumps(found) if options.json else tables(found))


if __name__ == "__main__":
    main()
