"""The benchmark for whoever first holds a GPU runs, here on a CPU and small, and no part of it takes others along."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.card import passes
from benchmarks.card.bench import Bench, Found, attempted
from benchmarks.card.network import ResNet
from benchmarks.card.subject import subject
from benchmarks.gpu import PARTS
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from tests.flows.processes import killed, program
from vital.network.sources import torchvision_models

ROOT = Path(__file__).resolve().parents[1]


TINY = ("--tiny", "--device", "cpu")


def run(*words: str) -> Any:
    """The JSON of a run in a process of its own, which imports everything itself."""
    asked = [sys.executable, *words, *TINY]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def found_in(value: Any, word: str, path: str = "") -> Iterator[str]:
    """Where a key is, at any depth, and what it says."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == word:
                yield f"{path}: {inner}"
            yield from found_in(inner, word, f"{path}/{name}")


@pytest.mark.slow
def test_every_part_runs_and_finds_something(tmp_path: Path, prefect_server: str) -> None:
    """The commands report to the session's Prefect server: one of its own takes each as long as all that it does."""
    out = tmp_path / "card.json"
    words = (*TINY, "--out", str(out), "--budget", "6000")  # however slow the machine is
    with killed(program(str(ROOT / "benchmarks" / "gpu.py"), *words)) as bench:
        printed, said = bench.communicate()
    assert bench.returncode == 0, said
    found = json.loads(printed)
    assert set(PARTS) | {"where", "tiny"} == set(found)
    assert [*found_in(found, "error"), *found_in(found, "skipped"), *found_in(found, "left_out")] == []
    assert json.loads(out.read_text()) == found
    layer = "layer4.0"
    assert found["replays"][f"{layer}_2"]["losses_apart"] == 0
    assert found["against_cpu"][layer]["float32"]["all"] == 0 < found["against_cpu"][layer]["bfloat16"]["first"] < 0.1
    assert found["repeats"][f"{layer}_float32_repeatable"]["same_bytes"]
    assert found["memory"]["float32_first"]["batch"] == found["memory"]["float32_again"]["batch"] == 8
    assert found["pictures"]["classes"]["steps_run"] == 6
    assert found["launches"]["waits_2"] == "none"
    assert set(found["commands"]) == {"references", "targets", "atlas", "fly", "seconds"}


@pytest.mark.slow
def test_what_needs_more_than_the_algorithm_is_skipped_without_it() -> None:
    program = (
        "import runpy, sys\n"
        "for name in ('flows', 'stores', 'prefect', 'zarr', 'simplejpeg'): sys.modules[name] = None\n"
        "sys.argv[0] = 'benchmarks/gpu.py'\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "runpy.run_path('benchmarks/gpu.py', run_name='__main__')\n"
    )
    found = run("-c", program, "--only", "sorts", "statistics", "shards")
    assert "flows" in found["shards"]["skipped"]
    assert found["statistics"]["images_per_s_float32_4"] > 0
    assert list(found_in(found, "error")) == []


def test_a_part_that_fails_or_has_no_time_leaves_the_others_alone() -> None:
    kept: list[int] = []
    bench = Bench(torch.device("cpu"), True, 60)

    def fails(bench: Bench) -> Found:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    def cases(bench: Bench) -> Found:
        bench.part_ends = time.monotonic() + 3600
        first = bench.each({"good": lambda: 1, "bad": lambda: 1 / 0})
        bench.part_ends = time.monotonic() - 1
        return {**first, **bench.each({"late": lambda: 2, "later": lambda: 3})}

    found = bench.run({"one": (1, fails), "two": (1, cases)}, lambda so_far: kept.append(len(so_far)))
    assert found["one"]["error"] == "RuntimeError: CUDA error: an illegal memory access"
    assert found["two"]["good"] == 1
    assert found["two"]["bad"] == {"error": "ZeroDivisionError: division by zero"}
    assert found["two"]["left_out"] == ["late", "later"]
    assert kept == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        attempted(lambda: exec("raise KeyboardInterrupt"))


def test_the_time_of_a_part_is_its_share_of_what_is_left() -> None:
    bench = Bench(torch.device("cpu"), True, 100)
    left: list[float] = []

    def look(bench: Bench) -> Found:
        left.append(bench.left)
        return {}

    bench.run({"a": (1, look), "b": (3, look)}, id)
    assert left == pytest.approx([25, 100], rel=0.05)  # the first took no time, so all is left for the second


def test_with_a_budget_parts_take_what_they_need_in_their_order_and_the_last_are_left_out() -> None:
    bench = Bench(torch.device("cpu"), True, 100, in_order=True)
    left: list[float] = []

    def look(bench: Bench) -> Found:
        left.append(bench.left)
        bench.seconds -= 50  # as if it had taken these
        return {}

    kept: list[list[str]] = []
    found = bench.run(dict.fromkeys("abcd", (1, look)), lambda so_far: kept.append([*so_far]))
    assert left == pytest.approx([100, 50], rel=0.05)
    assert found["left_out"] == ["c", "d"]
    assert set(found) == {"a", "b", "left_out"}
    assert kept[-1] == ["a", "b", "left_out"]


@pytest.mark.slow
def test_a_budget_of_nothing_prints_what_was_left_out() -> None:
    found = run("benchmarks/gpu.py", "--budget", "0")
    assert found["left_out"] == [*PARTS]
    assert [*PARTS][:3] == ["shards", "launches", "commands"], "what no card has run comes first"


def test_the_network_has_the_shape_of_resnet_50() -> None:
    mine, theirs = (
        {name: tuple(value.shape) for name, value in one.state_dict().items()}
        for one in (ResNet(), torchvision_models().resnet50(weights=None))
    )
    assert mine == theirs


@pytest.mark.parametrize("factor", [1, 0])
def test_how_far_a_gpu_s_decoder_is_from_a_cpu_s(tmp_path: Path, factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a twin on the CPU, whose pixels are the same, or black."""
    passes.write_shards(tmp_path, 1, 1)
    here, [shard] = subject(True, torch.device("cpu")), expand((str(tmp_path),))
    [file] = [sample.image for sample in ShardReader(shard)]

    def twin(device: torch.device) -> Callable[[Sequence[bytes]], list[torch.Tensor]]:
        return lambda files: [torch.from_numpy(decode(file) * np.uint8(factor)).permute(2, 0, 1) for file in files]

    monkeypatch.setattr("vital.network.sources.jpeg_decoder", twin)
    brightest = int(here.model.preprocessing.crop(decode(file or b"")).max())
    assert passes._apart(here, shard) == brightest * (1 - factor)
