"""Jobs that make stores: what cannot become of them is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flows.jobs import FullJob, LayerJob
from vital.settings import ModelSettings, PictureSettings, VariantSettings


def full(**changes: Any) -> FullJob:
    return FullJob(**{"shards": ("a",), "store": "b", "out": "c", "layers": (LayerJob(layer="d"),), **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"out": "b/"}, "store and out are the same"),
        ({"layers": (LayerJob(layer="d"), LayerJob(layer="d", picture=PictureSettings(steps=5)))}, "'d' is asked for"),
        ({"layers": (LayerJob(layer="d"), LayerJob(layer="d", variant=VariantSettings(fewest=5)))}, "'d' is asked for"),
        ({"model": ModelSettings(weights="https://me:hunter2@host/w.pt")}, "https://host/w.pt was given with a pass"),
    ],
)
def test_what_would_be_refused_after_the_pass_is_refused_before_it(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        full(**changes)
    assert sentence in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_layer_may_be_asked_for_in_parts() -> None:
    parts = (LayerJob(layer="d", neurons="0:3"), LayerJob(layer="d", neurons="7", targets="fly"), LayerJob(layer="e"))
    assert full(layers=parts).references().layers == ("d", "e")
