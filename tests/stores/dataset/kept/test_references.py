from pathlib import Path

import numpy as np
import pytest
import xarray

from stores.arrays.opening import open_store
from stores.dataset.kept.references import References, read_references, write_references
from stores.errors import SchemaMismatch


def references(neurons: int, ranks: int) -> References:
    generator = np.random.default_rng(neurons)
    return References(
        image=generator.integers(-1, 9, (neurons, ranks)),
        score=generator.random((neurons, ranks), np.float32),
        site=generator.integers(0, 49, (neurons, ranks), np.int32),
        box=generator.integers(0, 224, (neurons, ranks, 4), np.int32),
    )


def test_references_come_back(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    best, lowest = references(5, 3), references(5, 2)
    write_references(group, "layer4.2", best)
    write_references(group, "layer4.2/lowest", lowest)
    for layer, expected in (("layer4.2", best), ("layer4.2/lowest", lowest)):
        found = read_references(group, layer)
        for name in ("image", "score", "site", "box"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    write_references(group, "layer4.2", best)
    with pytest.raises(SchemaMismatch, match="exists with shape"):
        write_references(group, "layer4.2", references(5, 4))
    with pytest.raises(SchemaMismatch, match="run the step"):
        read_references(group, "classes")
    with xarray.open_zarr(tmp_path / "s", group="references/layer4.2", consolidated=False) as data:
        assert data["box"].dims == ("neuron", "rank", "edge")
        assert data["box"].attrs["units"] == "pixel"
