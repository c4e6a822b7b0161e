"""Directions and dictionaries: matrices that are large, and read by whom they concern alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import open_statistics
from stores.arrays.provenance import JSON
from stores.dataset.directions import StoredDictionary
from stores.dataset.fits import DictionaryFit
from stores.errors import SchemaMismatch


def test_a_matrix_is_read_when_it_is_asked_for_and_then_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 3)).astype(np.float32) for _ in "ab")
    store = tmp_path / "s.zarr"
    made = open_statistics(str(store), "a")
    made.write_directions("first", first)
    made.write_directions("model/second", second)
    shutil.rmtree(store / "directions/model=2Fsecond")
    kept = open_statistics(str(store)).directions()
    assert sorted(kept) == ["first", "model/second"]
    assert len(kept) == 2
    assert "model/second" in kept
    assert "third" not in kept
    np.testing.assert_array_equal(kept["first"], first)
    shutil.rmtree(store / "directions/first")
    np.testing.assert_array_equal(open_statistics(str(store)).directions()["first"], first)
    with pytest.raises(SchemaMismatch, match="directions/model=2Fsecond"):
        kept["model/second"]


def test_another_dictionary_of_the_same_name_is_refused(tmp_path: Path) -> None:
    store = open_statistics(str(tmp_path / "s.zarr"), "a")
    weight, zeros = np.eye(3, 5, dtype=np.float32), np.zeros(3, np.float32)
    settings: dict[str, JSON] = {"k": 2, "normalisation": "none", "source": "npz"}
    store.write_dictionary("sae", StoredDictionary(weight, zeros, zeros, settings))
    turned = {name: settings[name] for name in sorted(settings, reverse=True)}
    store.write_dictionary("sae", StoredDictionary(weight, zeros, zeros, turned))
    for other in (
        StoredDictionary(weight + 1, zeros, zeros, settings),
        StoredDictionary(weight, zeros, zeros + 1, settings),
        StoredDictionary(weight, zeros, zeros, {**settings, "k": 3}),
    ):
        with pytest.raises(SchemaMismatch, match=r"other dictionaries 'sae' \(digest .* give the file another name"):
            store.write_dictionary("sae", other)
    with pytest.raises(SchemaMismatch, match="the store has dictionaries 'sae'"):
        store.write_directions("sae", weight)
    kept = open_statistics(str(tmp_path / "s.zarr")).dictionaries()
    assert list(kept) == ["sae"]
    assert len(kept) == 1
    assert "other" not in kept
    assert kept["sae"].settings == settings
    np.testing.assert_array_equal(kept["sae"].weight, weight)


def test_how_well_a_dictionary_goes_with_each_layer_is_kept(tmp_path: Path) -> None:
    store = open_statistics(str(tmp_path / "s.zarr"), "a")
    weight, zeros = np.eye(3, 5, dtype=np.float32), np.zeros(3, np.float32)
    store.write_dictionary("sae", StoredDictionary(weight, zeros, zeros, {"k": None}))
    good = DictionaryFit("layer4.2", 64, 16.0, 0.25, 0.8)
    other = DictionaryFit("layer4.1", 64, 20.0, 0.5, 0.4, "layer4.2", 0.8)
    worse, unknown = DictionaryFit("a@b", 64, 3.0, 0.0, -0.5), DictionaryFit("b", 1, 3.0, 0.0, None, trained_on="h.1")
    for found in (good, other, worse, unknown):
        store.write_fit("sae", found)
        assert open_statistics(str(tmp_path / "s.zarr")).fit(f"{found.layer}~sae") == found
    assert store.fit("layer4.2") is None
    assert store.fit("layer4.2~other") is None
    assert store.fit("layer3~sae") is None
    said = "16 features at a site, 25% on none of 64 images; gives back 80% of the variance of layer4.2"
    assert (good.line(), good.doubts()) == (said, [])
    assert "40% of layer4.1: it was probably trained on another layer" in "".join(other.doubts())
    assert "of a@b is worse than the mean" in "".join(worse.doubts())
    assert "has no decoder" in unknown.line()
    assert "trained on 'h.1', which is no layer of this network" in "".join(unknown.doubts())
