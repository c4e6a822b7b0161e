"""Nodes that the pass over the shards did not measure: pictures would match the references' plain means in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import flows
from stores import Atlas, open_atlas, open_statistics
from stores.errors import SchemaMismatch
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.conftest import LAYER, MODEL, Made
from tests.flows.recipes.test_pipeline import digests

pytestmark = pytest.mark.slow

OTHER = "1.0"
"""No default node of any layer."""
NODES = ("--node", "0", "--node", OTHER)
NETWORK = ("--model", MODEL.name, "--input-size", MODEL.input_size, "--references", 3, "--levels", 16)
PICTURE = ("--side", 24, "--steps", 3)
SENTENCE = (
    f"the store has no statistics of node '{OTHER}', from which pictures with emphasis push what they match: run "
    f"`vital references … --node {OTHER}` on the same shards before `vital atlas`, or give that --emphasis 0"
)


def done(*words: object) -> str:
    ran = vital(*words)
    assert ran.exit_code == 0, ran.output
    return ran.output


def atlas(made: Made, out: Path, *words: object, layer: str = LAYER, neuron: int = 0) -> Result:
    return vital("atlas", made.store, "--layer", layer, "--neurons", neuron, "--out", out, *PICTURE, *NODES, *words)


def pixels(out: Path) -> np.ndarray:
    return open_atlas(str(out)).layer(LAYER).pixels(range(32))


def test_it_is_said_before_targets_and_refused_before_pictures_until_the_node_is_measured(
    made: Made, bare: Made, tmp_path: Path
) -> None:
    for layer in (LAYER, "classes"):
        assert SENTENCE in done("targets", bare.store, "--layer", layer, *NODES).splitlines()
        ran = atlas(bare, tmp_path / "a.zarr", layer=layer)
        assert (ran.exit_code, ran.output.splitlines()[-1]) == (1, f"Error: {SENTENCE}")
        assert not (tmp_path / "a.zarr").exists()
    before = digests(bare.store)
    ran = atlas(bare, tmp_path / "a.zarr", "--references", 2, "--targets", "fly")
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (1, f"Error: {SENTENCE}")
    assert digests(bare.store) == before  # others may be measured instead
    for number, words in enumerate([("--emphasis", 0), ("--preset", "paper"), ("--method", "pixel")]):
        assert atlas(bare, tmp_path / f"{number}.zarr", *words, "--steps", 3).exit_code == 0
    done("references", made.shards, "--store", bare.store, *NETWORK, "--layer", LAYER, "--node", OTHER)
    statistics = open_statistics(str(bare.store))
    assert OTHER in statistics.measured()
    assert OTHER not in statistics.ranked()
    assert "no statistics" not in done("targets", bare.store, "--layer", LAYER, *NODES)
    for layer in (LAYER, "classes"):
        assert atlas(bare, tmp_path / "a.zarr", layer=layer).exit_code == 0
    assert not np.array_equal(pixels(tmp_path / "a.zarr"), pixels(tmp_path / "0.zarr"))


def test_patches_and_default_nodes_need_nothing(bare: Made, tmp_path: Path) -> None:
    for words in ((*NODES, "--crop", "patch"), ("--node", "0", "--node", "1")):
        said = done("targets", bare.store, "--layer", LAYER, *words)
        assert "no statistics" not in said
    assert atlas(bare, tmp_path / "a.zarr", "--crop", "patch").exit_code == 0


def test_pictures_that_are_made_stay_when_what_was_measured_is_removed(made: Made, bare: Made, tmp_path: Path) -> None:
    again = ("references", made.shards, "--store", bare.store, *NETWORK, "--layer", LAYER, *NODES)
    done(*again)
    measured, out = digests(bare.store), tmp_path / "a.zarr"
    for words in ((tmp_path / "b.zarr", "--targets", "fly"), (out,)):
        if words == (out,):
            done("targets", bare.store, "--layer", LAYER, *NODES)
        assert atlas(bare, *words).exit_code == 0
        shutil.rmtree(bare.store / "layers" / OTHER)
        assert atlas(bare, *words).exit_code == 0  # nothing is left to do
        for ran in (atlas(bare, *words, neuron=32), atlas(bare, tmp_path / "c.zarr", *words[1:])):
            assert (ran.exit_code, ran.output.splitlines()[-1]) == (1, f"Error: {SENTENCE}")
        done(*again)
        shutil.rmtree(bare.store / "targets")
        assert digests(bare.store) == measured
    assert np.array_equal(pixels(out), pixels(tmp_path / "b.zarr"))


def test_a_node_is_added_together_with_new_shards(tmp_path: Path) -> None:
    first, second = tiny.shards(tmp_path / "shards")
    network, node = (*NETWORK, "--layer", LAYER), ("--node", OTHER)
    done("references", first, "--store", tmp_path / "s.zarr", *network)
    done("references", first, second, "--store", tmp_path / "s.zarr", *network, *node, "--extend")
    done("references", first, second, "--store", tmp_path / "whole.zarr", *network, *node)
    assert digests(tmp_path / "s.zarr") == digests(tmp_path / "whole.zarr")


def test_a_full_run_measures_the_nodes_of_all_its_layers(made: Made, tmp_path: Path) -> None:
    plain = {"layer": LAYER, "neurons": "0:32", "variant": {"nodes": ["0", OTHER]}, "picture": {"side": 24, "steps": 2}}
    job = {
        "shards": [str(made.shards)], "store": str(tmp_path / "s.zarr"), "out": str(tmp_path / "a.zarr"),
        "model": MODEL.model_dump(mode="json", exclude_unset=True), "statistics": {"references": 3, "levels": 16},
        "layers": [{"layer": "classes", "neurons": "0", "picture": plain["picture"]}, plain],
    }  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"full-run": job}))
    assert "no statistics" not in done("run", file)
    assert OTHER in open_statistics(str(tmp_path / "s.zarr")).measured()
    assert open_atlas(str(tmp_path / "a.zarr")).layer(LAYER).made()[:32].any()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("5", "node '5' does not come before '2' or '1', so no neuron there can depend on it: leave it out"),
        ("9", "no layer '9'; the nearest are"),
    ],
)
def test_a_node_of_no_use_is_refused_before_the_pass(made: Made, tmp_path: Path, node: str, words: str) -> None:
    asked = ("--layer", LAYER, "--layer", "1", "--node", "input", "--node", node)
    ran = vital("references", made.shards, "--store", tmp_path / "s.zarr", *NETWORK, *asked)
    assert ran.exit_code == 1
    assert words in ran.output
    assert not (tmp_path / "s.zarr").exists()


def test_a_program_is_told_the_same(made: Made, bare: Made, tmp_path: Path) -> None:
    def pictures() -> Atlas:
        return flows.atlas(bare.store, LAYER, tmp_path / "a.zarr", neurons=0, nodes=["0", OTHER], side=24, steps=3)

    flows.targets(bare.store, LAYER, neurons=0, nodes=["0", OTHER])
    with pytest.raises(SchemaMismatch, match=SENTENCE):
        pictures()
    flows.references(made.shards, bare.store, model=MODEL, layers=[LAYER], nodes=[OTHER], references=3, levels=16)
    assert pictures().layer(LAYER).made()[:32].any()
