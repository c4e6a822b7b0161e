"""Whether a feature's picture reads better than a channel's: `python benchmarks/dictionary.py --pictures`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import flows
from flows.jobs import BLOCK
from vital.judging.names import metric_name
from vital.settings import EMBEDDED

JUDGES = ("squeezenet", "efficientnet_lite2")
"""Networks that the pictures were not made for."""
REFERENCES = 12
"""Of each neuron; one with fewer gets no picture."""
FEATURES, CHANNELS = 7, 2
"""Blocks of 32: features lie in no order, being begun at samples drawn by lot; channels 64 to 95 are those of
`benchmarks/readability.py`."""
SETTINGS: dict[str, Any] = {"steps": 75, "side": 224}


def compared(dictionary: Path, layer: str, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """By kind of neuron, the mean over 32 of both judges' readability and its standard error: of the neurons' pictures,
    and of as many natural references."""
    named = f"{layer}~{dictionary.stem}"
    with tempfile.TemporaryDirectory() as place:
        store = flows.references(
            str(resources.files("flows.demo")), Path(place) / "s.zarr", model=EMBEDDED, layers=[layer, named],
            dictionaries=[dictionary], references=REFERENCES,
        )  # fmt: skip
        found = {}
        for kind, name, block in (("features", named, FEATURES), ("channels", layer, CHANNELS)):
            neurons = f"{BLOCK * block}:{BLOCK * (block + 1)}"
            flows.targets(store, name, neurons=neurons, fewest=REFERENCES)
            out = Path(place) / f"{kind}.zarr"
            atlas = flows.atlas(store, name, out, neurons=neurons, batch=8, **(settings or SETTINGS))
            pictures = flows.evaluate(atlas, judges=JUDGES).layer(name)
            metrics, made = pictures.metrics(), pictures.made()
            found[kind] = {"pictures": int(made.sum())} | {
                metric: mean([metrics[metric_name(metric, judge)][made] for judge in JUDGES])
                for metric in ("readability", "readability_references")
            }
    return found


def mean(by_judge: Sequence[np.ndarray]) -> tuple[float, float]:
    """Over neurons of the mean over judges, and its standard error."""
    values = np.mean(by_judge, axis=0)
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 3), round(float(values.std(ddof=1) / len(values) ** 0.5), 3)
