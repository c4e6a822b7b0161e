"""The comparison of methods on a tiny network: figures that can be computed again, from one resumable command."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.jobs import BLOCK, EvaluateJob, Running
from flows.recipes import comparison
from flows.recipes.comparison import compare_methods
from flows.recipes.evaluation import evaluate_atlas
from flows.reports import plan
from flows.reports.kept import MEASURED
from flows.reports.plan import METHODS, Case, Comparison, ReportJob
from flows.running.neurons import blocks_of, parse_neurons
from stores import AtlasLayer
from stores.arrays.opening import open_store
from stores.errors import StoreError
from stores.shards.writing import hold_out, members
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import MODEL
from vital.errors import UnsuitableInput
from vital.settings import ModelSettings, PictureSettings

pytestmark = pytest.mark.slow

LAYER = "1"
JUDGE = "tests.flows.tiny:other_network"
ABLATIONS = ("vital, with relevance", "vital, no own activation", "vital, as published")
"""What classes do not have, a weight, and a preset; what each changes, tests of pictures try."""


def job(folder: Path, **changes: object) -> ReportJob:
    return ReportJob.model_validate(
        {
            "out": str(folder / "report"), "shards": (str(folder / "shards"),), "models": (MODEL,),
            "layers": ("classes", LAYER), "neurons": "0:12", "seeds": 2, "steps": 2, "side": 24, "references": 3,
            "methods": ("vital", "maco"), "judges": (JUDGE,), "batch": 32,
            "running": Running(threads=1), **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    tiny.shards(folder / "shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "ABLATIONS", {name: plan.ABLATIONS[name] for name in ABLATIONS})
        assert compare_methods(job(folder)) == str(folder / "report" / "index.html")
    return folder / "report"


def test_the_report_has_every_method_and_metric_with_its_interval(report: Path) -> None:
    found = json.loads((report / "report.json").read_text())
    assert set(found) == {"vital", "maco", *ABLATIONS, "photographs"}
    for label, metrics in found.items():
        for name, one in metrics.items():
            assert set(one) == {"mean", "low", "high"}, name
            if one["mean"] is not None:
                assert one["low"] <= one["mean"] <= one["high"], (label, name)
    assert {"classes/top1_own", f"{LAYER}/rank", f"{LAYER}/diversity"} <= found["vital"].keys()
    assert "classes/top1_own" in found["photographs"]
    assert "classes/top1_own" not in found["vital, with relevance"]


def test_the_figures_are_those_of_the_atlases(report: Path) -> None:
    """A mean computed again from what the stores hold, and the count of everything it rests on."""
    found = json.loads((report / "report.json").read_text())["maco"][f"{LAYER}/peak_ratio"]
    details = json.loads((report / "details.json").read_text())["layers"][LAYER]["methods"]["maco"]
    values = []
    for seed in range(2):
        atlas = open_store(str(report / "atlases" / f"maco-seed{seed}.zarr"), "atlas", "r")
        values.append(AtlasLayer(atlas, LAYER).metrics()["peak_ratio"][AtlasLayer(atlas, LAYER).made()])
    assert found["mean"] == pytest.approx(float(np.mean(values)), rel=1e-5)
    assert details["counts"]["peak_ratio"] == np.size(values)
    assert details["seeds"] == [0, 1]
    assert details["seconds_a_picture"] > 0
    assert details["settings"]["method"] == "maco"


def test_held_out_photographs_are_no_references(report: Path) -> None:
    held = {sample.key for sample in members(report / "photographs" / "held-out.tar")}
    kept = {sample.key for sample in members(report / "photographs" / "references.tar")}
    assert held
    assert not held & kept
    assert len(held | kept) == 20
    details = json.loads((report / "details.json").read_text())["layers"]["classes"]
    assert details["held_out_photographs"] == len(held)


def test_holding_out_depends_on_keys_alone(tmp_path: Path) -> None:
    tiny.shards(tmp_path / "two", count=2, images=10)
    tiny.shards(tmp_path / "four", count=4, images=5)
    parts = []
    for name in ("two", "four"):
        references, held = hold_out([str(tmp_path / name)], tmp_path / f"{name}-parted")
        assert len(members(references)) + len(members(held)) == 20
        parts.append((references.read_bytes(), held.read_bytes()))
    assert parts[0] == parts[1]


class Page(HTMLParser):
    """Images and what they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))


def test_the_page_shows_plots_and_strips_that_are_there(report: Path) -> None:
    text = (report / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert len(page.images) == 4
    for image in page.images:
        assert image["alt"]
        with Image.open(report / str(image["src"])) as shown:
            assert (str(shown.width), str(shown.height)) == (image["width"], image["height"])
    assert "best baseline" in text
    assert "http" not in text
    assert "<script" not in text


def test_a_stopped_comparison_goes_on_and_says_the_same(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One atlas is missing; the others are not made again, nor measured. Ablations are not asked for: to find each of
    their atlases done takes a flow, and what the report says of a method depends on no other."""
    measured: list[tuple[str, str]] = []

    def counted(asked: EvaluateJob) -> None:
        measured.append((Path(asked.atlas).stem, *asked.layers))  # type: ignore[arg-type]
        evaluate_atlas(asked)

    monkeypatch.setattr(comparison, "evaluate_atlas", counted)
    shutil.copytree(report.parent, tmp_path / "again")
    out = tmp_path / "again" / "report"
    before = json.loads((out / "report.json").read_text())
    shutil.rmtree(out / "atlases" / "maco-seed1.zarr")
    kept = out / "atlases" / "vital-seed0.zarr" / LAYER / "pixels"
    times = {file: file.stat().st_mtime_ns for file in kept.rglob("*") if file.is_file()}
    compare_methods(job(tmp_path / "again", no_ablation=True))
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*") if file.is_file()} == times
    after = json.loads((out / "report.json").read_text())
    assert after == {label: before[label] for label in ("vital", "maco", "photographs")}
    assert measured == [("maco-seed1", "classes"), ("maco-seed1", LAYER)]
    record = json.loads((out / MEASURED).read_text())
    (out / MEASURED).write_text(json.dumps({**record, f"{LAYER}/vital-seed0": "of another version"}))
    measured.clear()
    compare_methods(job(tmp_path / "again", methods=("vital",), no_ablation=True))
    assert measured == [("vital-seed0", LAYER)]
    assert json.loads((out / MEASURED).read_text()) == record


def test_a_method_that_the_network_does_not_allow_is_left_out_and_listed(tmp_path: Path) -> None:
    tiny.shards(tmp_path / "shards")
    plain = ModelSettings(name="tests.flows.tiny:fixed_network", input_size=tiny.SIDE)
    asked = job(
        tmp_path, models=(plain,), layers=("classes",), methods=("vital", "deepinversion"), seeds=1, steps=1,
        side=tiny.SIDE, no_ablation=True, judges=(),
    )  # fmt: skip
    text = Path(compare_methods(asked)).read_text()
    assert "has none: choose another method" in text
    assert set(json.loads((tmp_path / "report" / "report.json").read_text())) == {"vital", "photographs"}


@pytest.mark.parametrize("channels", [3, 192])
def test_by_default_a_layer_s_first_block_is_compared_however_small_it_is(channels: int) -> None:
    usual = parse_neurons(ReportJob.model_fields["neurons"].default, channels, LAYER)
    assert blocks_of(usual, BLOCK) == blocks_of(range(min(32, channels)), BLOCK)


def test_bad_input_is_said_before_work(tmp_path: Path) -> None:
    tiny.shards(tmp_path / "shards")
    with pytest.raises(UnsuitableInput, match="tells 10 classes apart"):
        compare_methods(job(tmp_path, judges=("tests.flows.tiny:ten_classes",)))
    with pytest.raises(StoreError, match="among the shards and the held-out ones"):
        compare_methods(job(tmp_path, held_out=(str(tmp_path / "shards"),)))
    assert not (tmp_path / "report" / "statistics.zarr").exists()
    ran = vital("report", "--out", tmp_path / "r", "--preset", "iccv2025")
    assert ran.exit_code == 2
    assert "preset iccv2025 needs ImageNet" in ran.output


def test_the_papers_table_runs_on_random_weights_and_few_steps(tmp_path: Path) -> None:
    """The documented command, on a few small images in place of ImageNet, and a small network in place of its five."""
    tiny.shards(tmp_path / "train", count=1, images=10)
    tiny.shards(tmp_path / "val", count=1, images=10)
    (tmp_path / "val" / next(iter((tmp_path / "val").iterdir())).name).rename(tmp_path / "val" / "val-000000.tar")
    ran = vital(
        "report", "--preset", "iccv2025", "--out", tmp_path / "r", "--shards", tmp_path / "train",
        "--held-out", tmp_path / "val", "--model", "shufflenet_v2_x0_5", "--weights", "random", "--input-size", 64,
        "--side", 64, "--steps", 1, "--seeds", 1, "--classes", "0:4", "--references", 2,
        "--judge", "tests.flows.tiny:thousand_classes", "--threads", 1,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert {"vital", "maco", "fourier", "deepinversion"} <= found.keys()
    settings = json.loads((tmp_path / "r" / "details.json").read_text())["layers"]["classes"]["methods"]["vital"]
    assert settings["settings"]["preset"] == "paper"


def test_the_preset_has_the_papers_networks() -> None:
    asked = ReportJob(out="r", preset="iccv2025", shards=("a.tar",), held_out=("b.tar",))
    assert ReportJob(out="r").methods == METHODS
    assert [model.name for model in asked.models] == [
        "resnet50", "convnext_base", "densenet121", "vit_l_16", "vit_l_32",
    ]  # fmt: skip
    assert asked.steps == 2000
    cases = Comparison(asked, asked.models[0], ("a.tar",), ("b.tar",), Path("f"), {}).cases()
    assert {case.picture.precision for case in cases} == {"float32"}  # methods are compared in one arithmetic
    assert {case.picture.method for case in cases} == set(asked.methods)
    assert Case("vital, with relevance", "classes", 1, PictureSettings()).name == "vital-with-relevance-seed1"


def test_under_the_first_seed_the_method_is_made_without_each_of_its_parts() -> None:
    asked = ReportJob(out="r", shards=("a.tar",), layers=("classes", LAYER), seeds=2)
    cases = Comparison(asked, asked.models[0], ("a.tar",), ("b.tar",), Path("f"), {}).cases()
    assert {case.label for case in cases if (case.seed, case.layer) == (0, LAYER)} == {*METHODS, *plan.ABLATIONS}
    whole = next(case for case in cases if case.label == "vital").picture
    assert all((case.picture == whole) == (case.label == "vital") for case in cases if case.seed == 0)


def test_what_a_pass_may_be_asked_a_report_may_be_asked() -> None:
    asked = ReportJob(out="r", shards=("a.tar",), allow_rejected=0.3, extend=True, dictionaries=("d.npz",))
    pass_ = Comparison(asked, asked.models[0], ("a.tar",), ("b.tar",), Path("f"), {}).references()
    assert (pass_.allow_rejected, pass_.extend, pass_.dictionaries) == (0.3, True, ("d.npz",))
    told = vital("report", "--help").output
    assert all(option in told for option in ("--allow-rejected", "--extend", "--dictionary"))
