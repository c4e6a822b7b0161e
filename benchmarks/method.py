"""Cost of the method as ratios to the bare network, measured in one run on two threads: `python benchmarks/method.py
--json`.

The bare network is as fast as it goes here: frozen, channels-last, same threads, forward to the same layer and the
input's gradient. Rounds of all contenders alternate, and each ratio is of medians, so that a noisy machine slows both
sides alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from benchmarks.levels import golden_errors, lite0_errors
from vital.measuring.rows import stored_levels
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.nodes import default_nodes
from vital.network.probe import CLASSES, INPUT, Layout, probe
from vital.pictures import losses
from vital.pictures.optimise import optimise
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings

BATCH, SIDE, LAYER = 8, 224, "layer4.2"
LEVELS = StatisticsSettings().levels
FEW, MANY = 2, 5
"""Steps of the two runs whose difference is the cost of a step: what a run costs once drops out."""


def bare(model: Model, layer: str) -> Callable[[], float]:
    """Seconds of one forward to ``layer`` and the gradient of the input, for the batch."""
    images = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last).requires_grad_()

    def run() -> float:
        with probe(model.network, [layer]) as forward:
            begun = time.perf_counter()
            torch.autograd.grad(forward(images)[layer].sum(), images)
            return time.perf_counter() - begun

    return run


def step(model: Model, target: Target, preset: str, layouts: Mapping[str, Layout]) -> Callable[[], float]:
    """Seconds of one step of the optimiser for the batch."""

    def timed(steps: int) -> float:
        settings = PictureSettings(preset=preset, steps=steps, side=SIDE)
        begun = time.perf_counter()
        optimise(model, target, settings, layouts)
        return time.perf_counter() - begun

    return lambda: (timed(MANY) - timed(FEW)) / (MANY - FEW)


def measured(
    model: Model, target: Target, crops: list[Crop], nodes: tuple[str, ...], layouts: Mapping[str, Layout]
) -> Callable[[], float]:
    """Seconds of measuring the batch as references of an inner neuron each."""
    neurons = [int(one) for one in target.neurons]

    def run() -> float:
        begun = time.perf_counter()
        measure(model, Attribution(LAYER, layouts=layouts), neurons, crops, nodes, batch=BATCH)
        return time.perf_counter() - begun

    return run


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(side: int = 64, batches: tuple[int, ...] = (1, 8, 32)) -> dict[str, int]:
    """Operations of the dearest kind of step, by preset and batch, with the losses as a GPU computes them."""
    model = load_model(ModelSettings(name="resnet50", weights="random", input_size=side))
    found = survey(model)
    nodes, layouts = (INPUT, *default_nodes(found, LAYER, model.name)), found.layouts()
    crops = [Crop(torch.zeros(3, side, side, dtype=torch.uint8), (row,)) for row in range(max(batches))]
    whole = measure(model, Attribution.of(found, LAYER), range(max(batches)), crops, nodes)

    def counted(preset: str, batch: int) -> int:
        after: list[int] = []
        settings = PictureSettings(preset=preset, steps=4, side=side)
        with Operations() as seen:
            target = whole.take(slice(0, batch))
            optimise(model, target, settings, layouts, progress=lambda step: after.append(seen.count))
        return max(np.diff(after[1:]).tolist())

    on_cpu = losses._match_on_cpu
    losses._match_on_cpu = losses._match
    counts = {f"{preset}_{batch}": counted(preset, batch) for preset in ("natural", "paper") for batch in batches}
    losses._match_on_cpu = on_cpu
    return counts


def stored_bytes(target: Target) -> int:
    """Bytes of one neuron's target on disk before compression: rows as float16, the rest as float32."""
    total = int(target.own.shape[1]) * 4
    for node in target.nodes.values():
        rows = node.quantiles[0].size + (0 if node.relevant is None else node.relevant[0].size)
        total += 2 * rows + (0 if node.importance is None else 4 * node.importance.shape[1])
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(2)
    model = load_model(ModelSettings(name="resnet50", weights="random"))
    found = survey(model)
    layouts = found.layouts()
    stream = np.random.default_rng(0)
    crops = [Crop(torch.from_numpy(stream.integers(0, 256, (3, SIDE, SIDE), np.uint8)), (row,)) for row in range(BATCH)]
    inner_nodes = (INPUT, *default_nodes(found, LAYER, model.name))
    class_nodes = (INPUT, *default_nodes(found, CLASSES, model.name))
    inner = measure(model, Attribution.of(found, LAYER), range(BATCH), crops, inner_nodes)
    classes = measure(model, Attribution.of(found, CLASSES), range(BATCH), crops, class_nodes)
    contenders = {
        "bare_class": bare(model, "layer4"),
        "bare_inner": bare(model, LAYER),
        "class_step": step(model, classes, "paper", layouts),
        "inner_step": step(model, inner, "paper", layouts),
        "inner_step_natural": step(model, inner, "natural", layouts),
        "reference_measure": measured(model, inner, crops, inner_nodes, layouts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            seconds[name].append(run())
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "class_step": median["class_step"] / median["bare_class"],
        "inner_step": median["inner_step"] / median["bare_inner"],
        "inner_step_natural": median["inner_step_natural"] / median["bare_inner"],
        "reference_measure": median["reference_measure"] / median["bare_inner"],
        "neuron_bytes": stored_bytes(inner),
        "class_bytes": stored_bytes(classes),
        "levels": len(stored_levels(SIDE * SIDE, LEVELS)),
        "bare_milliseconds_per_picture": 1000 * median["bare_inner"] / BATCH,
    }
    errors = golden_errors(LEVELS) | lite0_errors(LEVELS)
    result["operations"] = operations()
    result |= {"level_error": max(errors.values()), "level_errors": errors}
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
