"""Everything that is to be known of a GPU in ten minutes, as one JSON: `python benchmarks/gpu.py --out card.json`.

It needs torch, NumPy and this project's `vital` (which imports jaxtyping and pydantic); what needs more is skipped
where that is missing. No file, no weights and no network are needed. A part that fails leaves its error, and the others
their figures; what there was no time for is named under ``left_out``. The file is written anew after each part. The
network has the shape of ResNet-50 and random weights. With ``--tiny`` it is a small one and a handful of steps, on a
CPU in a minute: to see that it runs.

With ``--seconds`` the parts share the time, so that all of them answer something. With ``--budget`` each takes what it
needs, in their order, until the time is over: so a card that is lent for six minutes answers the most.

Parts: ``shards`` (two shards of 500 made photographs as one stream, by stage), ``launches`` (kernels of a step, busy
share, waits of the host), ``commands`` (`vital references`, `targets` and `atlas` as they are typed), ``statistics``,
``references``, ``ceilings`` (copy, matrix products, bare forward and input gradient at three precisions), ``replays``
(recorded steps against eager ones), ``repeats`` (the same bytes?), ``against_cpu`` (losses), ``memory`` (the measured
batch against the peak, twice), ``pictures`` (a minute, at 2000 steps), ``sorts`` of a step's shapes, ``steps`` (presets
× precisions × batches: time of the device and of the host, memory).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from functools import partial
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import torch

from benchmarks.card.bench import Bench, Found, described

PARTS = {
    "shards": (6, "passes"), "launches": (8, "steps"), "commands": (8, "commands"), "statistics": (4, "passes"),
    "references": (5, "passes"), "ceilings": (6, "ceilings"), "replays": (8, "steps"), "repeats": (8, "steps"),
    "against_cpu": (6, "steps"), "memory": (6, "steps"), "pictures": (12, "steps"), "sorts": (3, "ceilings"),
    "steps": (30, "steps:timings"),
}  # fmt: skip
"""Each with its share of the time, its file in `benchmarks.card`, and its function where that has another name. What no
card has run yet comes first, and what takes the longest last: a card may be lent for minutes."""


def part(name: str, where: str, bench: Bench) -> Found:
    """What a part finds; its file is imported only here, so that what it lacks is an error of this part alone."""
    file, _, function = where.partition(":")
    found: Found = getattr(importlib.import_module(f"benchmarks.card.{file}"), function or name)(bench)
    return found


def measured(bench: Bench, only: list[str], out: Path | None) -> Found:
    """All parts, or ``only`` some; what there is is written to ``out`` after each."""
    asked = {name: rest for name, rest in PARTS.items() if not only or name in only}
    parts = {name: (share, partial(part, name, where)) for name, (share, where) in asked.items()}
    where: Found = {"where": described(bench.device), "tiny": bench.tiny}

    def keep(found: Found) -> None:
        if out is not None:
            out.write_text(json.dumps({**where, **found}, indent=1), "utf-8")

    return {**where, **bench.run(parts, keep)}


def main() -> None:
    """Measure, and print one JSON object on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small network and few steps: to see that it runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--seconds", type=float, default=560, help="for all parts together, which share them")
    time.add_argument("--budget", type=float, help="seconds after which no part begins anything, each as long as it is")
    parser.add_argument("--only", nargs="+", default=[], choices=PARTS, help="these parts alone")
    parser.add_argument("--out", type=Path, help="a file for the JSON, which is also printed")
    options = parser.parse_args()
    if options.tiny:
        torch.set_num_threads(1)  # operations are so small that threads would wait for each other
    device, in_order = torch.device(options.device), options.budget is not None
    bench = Bench(device, options.tiny, options.budget if in_order else options.seconds, in_order)
    print(json.dumps(measured(bench, options.only, options.out), indent=1))


if __name__ == "__main__":
    main()
