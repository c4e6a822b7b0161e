"""The demo: embedded photographs through the embedded model to an atlas and its pages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from flows.jobs import AtlasJob, ReferencesJob, Running, TargetsJob
from flows.pages.atlas import Showing, read_credits, write_gallery
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import open_atlas
from vital.network.models import load_model
from vital.network.probe import CLASSES, probe
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

LAYER = "_blocks.13"
REFERENCES = 12
"""Of a channel: what so few have in common is little more than chance, and more hardly excite it."""
PICTURES: Mapping[str, Mapping[str, Any]] = {
    # Small pictures are quick, and a pixel of theirs is worth more: they are blurred less.
    CLASSES: {"side": 144, "steps": 400, "softness": 0.3},
    # A channel is readable at the side that the network knows things at (docs/trials.md).
    LAYER: {"side": 224, "steps": 300},
}
FEWEST = 2
"""A class is shown when it has at least this many photographs."""


def run_demo(out: Path, steps: int | None, neurons: int) -> Iterator[str]:
    """Run it all; yields lines for the user, the atlas's path last."""
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    store, atlas = str(out / "statistics.zarr"), str(out / "atlas.zarr")
    shards = str(resources.files("flows.demo"))
    select_references(
        ReferencesJob(
            shards=(shards,), store=store, layers=(CLASSES, LAYER), statistics=StatisticsSettings(references=REFERENCES)
        )
    )
    for layer, asked, variant in (
        (CLASSES, "", VariantSettings(fewest=FEWEST)),
        (LAYER, f"0:{neurons}", VariantSettings()),
    ):
        picture = PictureSettings.model_validate({**PICTURES[layer], **({"steps": steps} if steps else {})})
        measure_targets(TargetsJob(store=store, layer=layer, neurons=asked, variant=variant))
        build_atlas(AtlasJob(store=store, layer=layer, neurons=asked, out=atlas, variant=variant, picture=picture))
    index = write_gallery(atlas, out / "pages", Showing(store=store, credits=read_credits(None), maps=Running()))
    yield _own_verdict(atlas)
    yield f"pages: {index}"
    yield f"contact sheet: {out / 'pages' / 'contact-sheet.png'}"
    yield f"took {time.monotonic() - begun:.0f} s"
    yield f"atlas: {atlas}"


def _own_verdict(atlas: str) -> str:
    """What the network itself says of its class pictures, as stored."""
    import torch

    pictures = open_atlas(atlas).layer(CLASSES)
    classes = np.flatnonzero(pictures.made())
    model = load_model(ModelSettings())
    pixels = torch.from_numpy(pictures.pixels(classes.tolist())).permute(0, 3, 1, 2)
    with torch.inference_mode(), probe(model.network, [CLASSES]) as run:
        order = run(model.preprocessing.normalise(pixels))[CLASSES][..., 0].argsort(1, descending=True).numpy()
    first, five = (int((order[:, :count] == classes[:, None]).any(1).sum()) for count in (1, 5))
    return f"the network recognises {first} of its {len(classes)} class pictures, {five} within its first five guesses"
