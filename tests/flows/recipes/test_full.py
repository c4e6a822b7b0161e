"""One settings file for everything: what it runs, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.cli.job_files import JOBS, read_job
from flows.jobs import FullJob, LayerJob
from stores import AtlasLayer
from stores.arrays.opening import open_store
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.conftest import LAYER, MODEL, PICTURE, VARIANT, Made
from tests.flows.recipes.test_pipeline import digests

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[3] / "docs" / "job.yaml"


def fields(made: Made, folder: Path) -> dict[str, object]:
    def plain(settings: object) -> object:
        return settings.model_dump(mode="json", exclude_unset=True)  # type: ignore[attr-defined]

    layers = [{"layer": name, "variant": plain(VARIANT), "picture": plain(PICTURE)} for name in (LAYER, "classes")]
    return {
        "shards": [str(made.shards)], "store": str(folder / "stats.zarr"), "out": str(folder / "atlas.zarr"),
        "model": plain(MODEL), "statistics": {"references": 3, "levels": 16}, "layers": layers, "batch": 4,
    }  # fmt: skip


def written(folder: Path, content: object) -> Path:
    file = folder / "job.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def vital_run(file: Path) -> Result:
    return vital("run", file)


def test_a_full_run_makes_what_its_parts_make_and_runs_again(made: Made, tmp_path: Path) -> None:
    file = written(tmp_path, {"full-run": fields(made, tmp_path)})
    first = vital_run(file)
    assert first.exit_code == 0, first.output
    assert digests(tmp_path / "stats.zarr") == digests(made.store)
    one, other = digests(tmp_path / "atlas.zarr"), digests(made.atlas)
    assert one.pop("zarr.json") != other.pop("zarr.json")  # which says where the statistics lie
    assert one == other
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "atlas.zarr").rglob("c/*")}
    again = vital_run(file)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "atlas.zarr").rglob("c/*")} == before


def test_one_part_can_be_run_alone(made: Made, tmp_path: Path) -> None:
    job = {"store": str(made.store), "layer": LAYER, "out": str(tmp_path / "atlas.zarr"), "neurons": "0:1"}
    picture = {"variant": VARIANT.model_dump(mode="json"), "picture": {"side": 24, "steps": 2}}
    result = vital_run(written(tmp_path, {"atlas": {**job, **picture}}))
    assert result.exit_code == 0, result.output
    found = AtlasLayer(open_store(str(tmp_path / "atlas.zarr"), "atlas", "r"), LAYER).made()
    assert found[:32].any()
    assert not found[32 : tiny.CHANNELS].any()


def test_each_part_of_a_full_run_has_its_own_batch() -> None:
    asked = FullJob(
        shards=("a",), store="b", out="c", layers=(LayerJob(layer="d"),), label_key="txt",
        pass_batch=16, target_batch=4, batch=2,
    )  # fmt: skip
    [part] = asked.layers
    assert [asked.references().batch, asked.targets(part).batch, asked.atlas(part).batch] == [16, 4, 2]
    assert asked.references().label_key == "txt"
    assert asked.references().layers == ("d",)


def test_the_example_is_a_job() -> None:
    asked = read_job(EXAMPLE)
    assert asked.flow == "full-run"
    assert isinstance(asked.job, FullJob)
    assert [part.layer for part in asked.job.layers] == ["classes", "_blocks.13"]
    assert {"full-run", "references", "targets", "atlas", "evaluate", "names", "report"} == set(JOBS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("full-run: [", "is no YAML file"),
        (f"full-run: {'[' * 20_000}{']' * 20_000}", "is nested too deep"),
        ("", "one key was expected, full-run, references, targets, atlas"),
        ({"pages": {}}, "holds pages at its top: one key was expected"),
        ({"atlas": {}, "targets": {}}, "holds atlas, targets at its top"),
        ({"moments": {"store": "a", "layer": "b"}}, "moments is called targets now: rename it in the file"),
        (
            {"targets": {"store": "a", "layer": "b", "place": {"workers": 2}}},
            "targets.place is called running now: rename it in the file",
        ),
        ({"atlas": {"store": "a", "layer": "b"}}, "atlas.out: Field required"),
        (
            {"atlas": {"store": "a", "layer": "b", "out": "c", "picture": {"steps": 0}}},
            "atlas.picture.steps: Input should be greater than or equal to 1, but 0 was given",
        ),
        ({"targets": {"store": "a", "layer": "b", "nodes": 3}}, "targets.nodes: Extra inputs are not permitted"),
        ({"full-run": {"shards": ["a"], "store": "b", "out": "c", "layers": []}}, "full-run.layers: Tuple should have"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_field(tmp_path: Path, content: object, words: str) -> None:
    result = vital_run(written(tmp_path, content))
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
