"""Every benchmark can be imported and says what it does; those that no other test runs are run here, very small."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dictionary, features
from benchmarks.page_material import make_atlas
from benchmarks.pages import on_disk
from flows.jobs import BLOCK
from flows.pages.atlas import write_gallery
from tests.flows.command import vital

ROOT = Path(__file__).parents[1]
NAMES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))
PARTS = {"command", "counted", "levels", "page_copies", "page_material", "stand_in"}
"""What others import."""


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # each takes its own folder off, as the first


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_does(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    assert benchmark.__doc__
    assert hasattr(benchmark, "main") == (name not in PARTS)
    if name not in PARTS:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
        with pytest.raises(SystemExit) as ended:
            benchmark.main()
        assert not ended.value.code
        said = " ".join(capsys.readouterr().out.split())
        assert " ".join(benchmark.__doc__.split())[:60] in said


def test_none_keeps_a_program_as_text() -> None:
    """No checker reads such a program, and it goes stale."""
    texts = {file: file.read_text("utf-8") for file in (ROOT / "benchmarks").rglob("*.py")}
    assert [str(file) for file, text in texts.items() if '"-c"' in text] == []


def test_the_page_on_size_has_what_its_formula_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs, page = importlib.import_module("benchmarks.needs"), (ROOT / "docs/scale.md").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["needs.py"])
    needs.main()
    assert capsys.readouterr().out in page
    known = needs.Constants()
    per_block = known.target_requests + known.picture_requests
    assert f"{known.pass_requests:,} + 2 S + 8 L + 4 J + N · r (one range each, at most) + {per_block} B" in page
    assert page.count(f"| {known.target_requests} + {known.picture_requests} |") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_pass_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command runs in this process, whose memory says nothing; its words are those of a whole run."""
    statistics = importlib.import_module("benchmarks.statistics")
    runs: list[str] = []

    def peak_bytes(*words: object) -> int:
        ran = vital(*words, "--threads", 1)
        assert not ran.exit_code, ran.output
        runs.append(ran.output)
        return 1000 + len(runs)

    monkeypatch.setattr(statistics, "peak_bytes", peak_bytes)
    monkeypatch.setattr(statistics, "cores", lambda: 2)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)  # it would stay so for the tests after this
    statistics.main(["--tiny", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["memory_growth"] == 1002 / 1001 - 1
    ratios = {"throughput_squeezenet", "throughput_squeezenet_by_2", "processor_squeezenet", "decoding_by_2"}
    assert ratios < found.keys()
    assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert len(runs) == 2


@pytest.mark.slow
def test_pages_are_written_of_an_atlas_that_the_flows_can_read(tmp_path: Path) -> None:
    atlas = make_atlas(tmp_path, 32, 32, 12)
    figures = on_disk(tmp_path)
    assert 0 < figures["atlas_files_of_a_folder"] <= figures["atlas_files"]
    index = write_gallery(str(atlas), tmp_path / "pages")
    assert len(list(index.parent.rglob("sheet-0-*.webp"))) == 2


def test_features_and_channels_that_are_compared_lie_in_their_layer() -> None:
    channels = 192  # of Lite0's _blocks.13
    assert channels >= BLOCK * (features.AT_CHANNELS + 1)
    assert dictionary.FULL.times * channels >= BLOCK * (features.AT_FEATURES + 1)
