"""The commands themselves on the card: the embedded network and photographs, from the pass to pictures."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from functools import partial
from importlib import resources
from pathlib import Path

from benchmarks.card.bench import Bench, Found
from benchmarks.card.passes import write_shards

LAYER = "_blocks.13"


def commands(bench: Bench) -> Found:
    """Seconds of ``vital references``, ``targets``, ``atlas`` and ``atlas --targets fly`` as they are typed, and what
    each said last. The first also starts Prefect's server. One that fails leaves its sentence."""
    import flows.demo  # noqa: F401  (what needs more than the algorithm is skipped without it)

    device = str(bench.device)
    some = ["--neurons", "0:2" if bench.tiny else "0:256"]
    small = ["--steps", "2", "--side", "64"] if bench.tiny else ["--steps", "100"]
    few = ["--references", "2", "--input-size", "64"] if bench.tiny else ["--references", "20"]
    with tempfile.TemporaryDirectory() as place:
        store, out = str(Path(place) / "s.zarr"), Path(place)
        photos = str(out) if bench.tiny else str(resources.files("flows.demo"))
        if bench.tiny:
            write_shards(out, 1, 6)
        at = ["--store", store, "--layer", LAYER, "--device", device]
        lines = {
            "references": ["references", photos, *at, *few],
            "targets": ["targets", *at, *some],
            "atlas": ["atlas", *at, *some, *small, "--out", str(out / "a.zarr")],
            "fly": ["atlas", *at, *some, *small, "--targets", "fly", "--out", str(out / "b.zarr")],
        }
        return bench.each({name: partial(ran, words) for name, words in lines.items()})


def ran(words: list[str]) -> Found:
    """The command's seconds and its last line.

    Raises:
        RuntimeError: it failed; with its sentence.
    """
    from flows.cli.main import main

    said, begun = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    last = ([line for line in said.getvalue().splitlines() if line.strip()] or [""])[-1]
    if code:
        raise RuntimeError(f"vital {words[0]} ended with {code}: {last}")
    print(f"vital {words[0]}: {last}", file=sys.stderr)
    return {"seconds": time.perf_counter() - begun, "said": last[:200]}
