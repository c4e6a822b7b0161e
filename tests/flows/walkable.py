"""Two atlases of a tiny network for tests of the pages: of two layers, so that one can walk from neuron to neuron, one
of them half finished; with keys and class names that would like to be markup."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from flows.jobs import AtlasJob, ReferencesJob, TargetsJob
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import AtlasLayer
from stores.arrays.opening import open_store
from tests.flows import tiny
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

EARLIER, LATER = "1", "2"
WALL = f"#/0/{LATER}"
"""Address of the later layer's wall, after that of the pages."""
EVIL = "<img src=x onerror=alert(1)>"
CLASS_NAMES = ["<b>cat</b>", "dog & co", "bee", "owl", "newt"]
SIDE = 24


class Walkable:
    """Where everything lies."""

    def __init__(self, folder: Path) -> None:
        self.shards, self.store = folder / "shards", folder / "stats.zarr"
        self.atlas, self.other = folder / "atlas.zarr", folder / "other.zarr"


def make(folder: Path) -> Walkable:
    """Statistics of two layers and of the classes, pictures of the first block of the later layer alone."""
    made = Walkable(folder)
    _shards(made.shards)
    model = ModelSettings(name="tests.flows.tiny:network", input_size=tiny.SIDE)
    select_references(
        ReferencesJob(
            shards=(str(made.shards),),
            store=str(made.store),
            model=model,
            layers=(EARLIER, LATER, "classes"),
            statistics=StatisticsSettings(references=12, levels=16, lowest=True),
        )
    )
    for layer, nodes in ((EARLIER, ("0",)), (LATER, ("0", "1")), ("classes", ("0", "1"))):
        variant = VariantSettings(nodes=nodes, crop="patch")
        neurons = "0:32" if layer == LATER else ""
        measure_targets(TargetsJob(store=str(made.store), layer=layer, neurons=neurons, variant=variant))
        for out, seed in ((made.atlas, 0), (made.other, 1)):
            picture = PictureSettings(side=SIDE, steps=3, seed=seed)
            build_atlas(
                AtlasJob(
                    store=str(made.store), layer=layer, out=str(out), neurons=neurons, variant=variant,
                    picture=picture, batch=16,
                )
            )  # fmt: skip
    rising = np.linspace(0, 1, tiny.CHANNELS, dtype=np.float32)
    metrics = {"rise": rising, "readability_four_eye": rising, **trusted()}
    AtlasLayer(open_store(str(made.atlas), "atlas", "a"), LATER).write_metrics(
        metrics, dict.fromkeys(metrics, ("from 0 to 1", ""))
    )
    return made


def trusted() -> dict[str, Float32[np.ndarray, "neuron"]]:
    """Metrics by which the pictures of even neurons reach their references, those of every fourth are treated like
    photographs, too, and of neurons below 8 other networks were asked, who can read them."""
    neurons = np.arange(tiny.CHANNELS)
    asked = np.where(neurons < 8, 1, np.nan)
    rows = {
        "mean_peak_ratio": np.where(neurons % 2 == 0, 1.1, 0.5),
        "processing_gap": np.where(neurons % 4 == 0, 0.1, 0.9),
        "readability_eye": 0.7 * asked,
        "readability_references_eye": 0.75 * asked,
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


def _shards(folder: Path) -> None:
    tiny.shards(folder)
    # a key may hold anything but a dot, at which a tar's reader splits it, and a slash
    with tarfile.open(folder / "tiny-000002.tar", "w") as tar:
        for name, data in ((f"{EVIL}.jpg", tiny.jpeg(99)), (f"{EVIL}.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (folder / "classes.json").write_text(json.dumps(CLASS_NAMES))
