"""Dictionaries through all flows: features are neurons with references, targets, pictures and a record of the dead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flows.pages.again import commands
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.dataset import given_directions
from stores import open_atlas, open_statistics
from stores.errors import PictureStatus, SchemaMismatch
from tests.flows import tiny
from tests.flows.conftest import LAYER, Made, atlas_job, references_job, targets_job
from vital.errors import UnknownLayer, UnsuitableInput
from vital.network.neurons import Dictionary

NAMED = f"{LAYER}~sae"
PLANTED = np.eye(tiny.CHANNELS, dtype=np.float32)[[4, 9, 11]]
"""Features that are channels."""


def written(folder: Path, weight: np.ndarray, **more: object) -> str:
    np.savez(folder / "sae.npz", weight=weight, **more)  # type: ignore[arg-type]
    return str(folder / "sae.npz")


@pytest.mark.slow
def test_a_planted_feature_goes_as_its_channel_through_references_targets_and_pictures(
    made: Made, tmp_path: Path
) -> None:
    """Feature 1 is dead: no image is above its threshold. The others are the channels 4 and 11, as far as these are
    among the two greatest features of a site."""
    file = written(tmp_path, PLANTED, threshold=np.array([0, 1e6, 0], np.float32), k=2)
    store, atlas = tmp_path / "stats.zarr", tmp_path / "atlas.zarr"
    select_references(references_job(made.shards, store, layers=(NAMED,), dictionaries=(file,)))
    statistics, channels = open_statistics(str(store)), open_statistics(str(made.store)).references(LAYER, 3, [4, 11])
    found = statistics.references(NAMED, 3)
    live = channels.score[:, 0] > 0
    assert live.all()
    np.testing.assert_array_equal(found.image[[0, 2], 0], channels.image[:, 0])
    np.testing.assert_allclose(found.score[[0, 2], 0], channels.score[:, 0], rtol=1e-5)
    assert (found.image[1] == -1).all()
    said = "\n".join(statistics.summary())
    assert f"references/{NAMED}: 2 of 3 neurons have references, up to 3 each, the others are never active" in said
    # Later commands know the dictionary from the store.
    Path(file).unlink()
    label = measure_targets(targets_job(store, NAMED))
    status = open_statistics(str(store)).targets(NAMED, label).status()
    assert status.tolist() == [PictureStatus.MADE, PictureStatus.DEAD, PictureStatus.MADE]
    build_atlas(atlas_job(store, atlas, NAMED))
    pictures = open_atlas(str(atlas)).layer(NAMED)
    assert pictures.made().tolist() == [True, False, True]
    first = commands(str(atlas), pictures, str(store), open_statistics(str(store)))[0].split()
    [(name, again)] = given_directions((), (first[first.index("--dictionary") + 1],)).items()
    assert name == "sae"
    assert isinstance(again, Dictionary)
    assert (again.k, again.source) == (2, "npz")
    np.testing.assert_array_equal(again.weight, PLANTED)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize("kind", ["width", "code", "name", "twice", "unread"])
def test_a_wrong_dictionary_stops_before_anything_is_written(made: Made, tmp_path: Path, kind: str) -> None:
    store, layer = tmp_path / "stats.zarr", NAMED
    file = written(tmp_path, np.ones((2, 7)) if kind == "width" else PLANTED)
    files: tuple[str, ...] = (file,)
    error: type[Exception] = UnknownLayer
    if kind == "width":
        words = r"the dictionary 'sae' \(npz, 2 features\) is of 7 channels but '2' has 40: name the layer"
    elif kind == "name":
        layer, words = (
            f"{LAYER}~other",
            r"no directions 'other' .*\(known: sae\): .* or a dictionary's with --dictionary",
        )
    elif kind == "unread":
        layer, error, words = LAYER, SchemaMismatch, rf"reads the directions .* 'sae': .* --layer {LAYER}~sae"
    elif kind == "twice":
        files, error, words = (file, file), SchemaMismatch, "two files of directions bear the name 'sae'"
    else:
        torch.save({"W_enc": Code()}, tmp_path / "sae.pt")
        files, error, words = (str(tmp_path / "sae.pt"),), UnsuitableInput, "an object of exec, which reading would"
    with pytest.raises(error, match=words):
        select_references(references_job(made.shards, store, layers=(layer,), dictionaries=files))
    assert not store.exists()
