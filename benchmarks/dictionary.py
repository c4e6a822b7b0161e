"""A dictionary to try on, and what one of a hundred thousand features costs: `python benchmarks/dictionary.py --json`.

A TopK dictionary of 8 × as many features as Lite0's `_blocks.13` has channels is trained on the sites of the embedded
photographs, a fifth of which are held out, and written to ``--out``. It takes minutes on two cores.

- ``explained``: share of the variance that the decoder gives back, of sites trained on and held out; ``active``:
  features that are not zero at a site; ``dead``: share of features that are zero on all photographs.
- ``targets``: by levels kept of a row, and steps that its values are rounded to (none: 16 bits alone), the bytes of a
  feature's target, of whole rows and of relevant ones, as a store compresses them. ``percent`` says by how much the
  loss of a photograph that does not excite the feature changes by being stored so: of the sum over nodes, matched whole
  and by relevance; ``percent_whole`` where whole rows alone are matched, ``percent_node`` of one of all terms. All are
  the most of ten features.
- ``bits``: of 16-bit weights against 32, the share of a site's active features that stay the same.

``--pictures`` makes pictures of 32 features instead, and of as many channels of the same layer, and has two other
networks tell from them what excites the neuron (``readability``, as `vital evaluate` has it).

``--scale`` measures a stand-in instead, of 100,000 random features of 2,048 channels on maps of 49 sites, one thread:

- ``maps_ms``: processor time an image in which a pass reads all features; ``own_ms`` in which a task reads one of its
  32, as every step of a picture does. Each for ReLU, and for TopK, whose rivals all take part.
- ``task_bytes``: what of the dictionary goes to a task's device; ``peak_bytes`` the greatest memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.features import compared
from benchmarks.levels import kept, stored
from stores.arrays.opening import open_store
from stores.arrays.schema import ArraySpec, array_at, declare
from stores.arrays.writing import write_whole
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from vital.measuring.rows import sort_rows
from vital.measuring.targets import node_relevance
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.neurons import Dictionary, Readout, importance, relevance_map
from vital.network.neurons.fit import fit
from vital.network.nodes import default_nodes
from vital.network.probe import Activations, probe
from vital.network.sources.dictionaries.files import read_dictionary
from vital.pictures.losses import sort_matching
from vital.propagation.mode import Relevance
from vital.settings import ModelSettings

LAYER, BATCH, HELD_OUT = "_blocks.13", 512, 5


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    times: int = 8
    """Features over channels."""
    k: int = 16
    steps: int = 2000
    photographs: int = 10**9
    features: int = 100_000
    channels: int = 2048
    sites: int = 49
    task: int = 32
    rows: tuple[tuple[int, int], ...] = ((256, 256), (128, 0), (128, 256), (128, 64), (64, 256))
    """Levels of a row, and the steps of its values; 0 for none."""
    few: int = 10
    """Features whose targets are looked at, and ``references`` of each."""
    references: int = 8


FULL, TINY = Size(), Size(2, 4, 30, 10, 500, 16, 9, 4, ((64, 256),), 1, 2)


def seen(layer: str, most: int) -> Float[Tensor, "photograph site channel"]:
    """The layer's activations on the embedded photographs."""
    model = load_model(ModelSettings())
    layouts = survey(model).layouts()
    with torch.no_grad(), probe(model.network, [layer], layouts) as run:
        return torch.cat([run(image[None])[layer].mT for image in photographs(model, most)])


def photographs(model: Model, most: int) -> Iterator[Float[Tensor, "3 side side"]]:
    """The embedded photographs as the network gets them."""
    shards = expand((str(resources.files("flows.demo")),))
    images = (sample.image for shard in shards for sample in ShardReader(shard) if sample.image is not None)
    for image in islice(images, most):
        yield model.preprocessing.normalise(model.preprocessing.crop(decode(image))[None])[0]


def trained(samples: Float[Tensor, "sample channel"], features: int, k: int, steps: int) -> dict[str, np.ndarray]:
    """The arrays of a plain file: a TopK autoencoder (Gao et al., 2024) of directions of length 1, begun at samples."""
    stream = torch.Generator().manual_seed(0)
    centre, scale = samples.mean(0), float((samples - samples.mean(0)).norm(dim=1).mean())
    inputs = (samples - centre) / scale
    begun = inputs[torch.randperm(len(inputs), generator=stream)[:features]]
    decoder = torch.nn.functional.normalize(begun, dim=1).requires_grad_()
    encoder, bias = decoder.detach().clone().requires_grad_(), torch.zeros(features, requires_grad=True)
    optimiser = torch.optim.Adam([decoder, encoder, bias], lr=1e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, 5 * (1 - step / steps))
        batch = inputs[torch.randint(len(inputs), (BATCH,), generator=stream)]
        before = batch @ encoder.T + bias
        values, places = before.relu().topk(k, dim=1)
        back = torch.nn.functional.embedding_bag(places, decoder, per_sample_weights=values, mode="sum")
        loss = (back - batch).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    return {
        "weight": encoder.detach().numpy(), "bias": bias.detach().numpy(), "centre": centre.numpy(),
        "scale": np.asarray(1 / scale), "k": np.asarray(k), "decoder": scale * decoder.detach().numpy(),
        "decoder_bias": centre.numpy(), "layer": np.asarray(LAYER),
    }  # fmt: skip


def _codes(dictionary: Dictionary, sites: Float[Tensor, "sample channel"]) -> Float[Tensor, "sample feature"]:
    return torch.cat([dictionary.maps(part[..., None])[..., 0] for part in sites.split(BATCH)])


def training(out: Path, size: Size) -> dict[str, Any]:
    """Train, write, read back and measure."""
    maps = seen(LAYER, size.photographs)
    held = torch.arange(len(maps)) % HELD_OUT == 0
    parts = {"trained": maps[~held].flatten(0, 1), "held_out": maps[held].flatten(0, 1)}
    begun = time.perf_counter()
    arrays = trained(parts["trained"], size.times * maps.shape[2], size.k, size.steps)
    seconds = time.perf_counter() - begun
    np.savez(out, **arrays)  # type: ignore[arg-type]
    _, dictionary = read_dictionary(out)
    codes = _codes(dictionary, maps.flatten(0, 1))
    rough = replace(dictionary, weight=dictionary.weight.astype(np.float16).astype(np.float32))
    active = codes > 0
    same = (_codes(rough, maps.flatten(0, 1)) > 0) & active
    return {
        "photographs": len(maps), "sites": len(codes), "features": len(dictionary), "k": size.k, "seconds": seconds,
        "explained": {name: fit(dictionary, sites).explained for name, sites in parts.items()},
        "active": float(active.sum(1).double().mean()), "dead": float((~active.any(0)).double().mean()),
        "bits": float(same.sum() / active.sum()), "file_bytes": out.stat().st_size,
        "targets": targets(dictionary, codes.reshape(*maps.shape[:2], -1).amax(1), size),
    }  # fmt: skip


def of_file(file: Path, size: Size) -> dict[str, dict[str, float]]:
    """Targets of features of a dictionary that was trained before."""
    _, dictionary = read_dictionary(file)
    maps = seen(LAYER, size.photographs)
    return targets(dictionary, torch.stack([dictionary.maps(one.T[None])[0].amax(-1) for one in maps]), size)


def targets(
    dictionary: Dictionary, peaks: Float[Tensor, "photograph feature"], size: Size
) -> dict[str, dict[str, float]]:
    """What a feature's target takes, and what it costs in loss."""
    model = load_model(ModelSettings())
    found, read = survey(model), Readout(LAYER, dictionary=dictionary)
    nodes, images = default_nodes(found, LAYER), list(photographs(model, len(peaks)))
    named = ("whole_bytes", "relevant_bytes", "percent", "percent_whole", "percent_node")
    result = {rows: dict.fromkeys(named, 0.0) for rows in size.rows}
    for feature in peaks.amax(0).topk(size.few).indices.tolist():
        # what is compared with the target is like nothing that it was made of, as in benchmarks/levels.py
        shown = [*peaks[:, feature].topk(size.references).indices.tolist(), int(peaks[:, feature].argmin())]
        seen_, arrived = _with_relevance(model, read, nodes, torch.stack([images[at] for at in shown]), feature)
        changes: dict[tuple[int, int], list[list[float]]] = {rows: [[], []] for rows in result}
        for name in nodes:
            before, weights = seen_[name][:-1], importance(arrived[name][:-1]).mean(0, keepdim=True)
            now, relevance = seen_[name][-1:], arrived[name][-1:]
            whole = sort_rows(before).mean(0, keepdim=True)
            relevant = sort_rows(relevance_map(arrived[name][:-1]) * before).mean(0, keepdim=True)
            for part, rows, more in ((0, whole, (None, None)), (1, relevant, (weights, relevance))):
                exact = float(sort_matching(now, rows, *more))
                for (levels, steps), of in result.items():
                    of[named[part]] += _bytes(kept(rows, levels, steps)) / size.few
                    back = stored(rows, levels, steps)
                    changes[levels, steps][part].append(float(sort_matching(now, back, *more)) / exact - 1)
        for of_kept, (of_whole, of_relevant) in changes.items():
            every = np.array([*of_whole, *of_relevant])  # every node weighs the same
            more_ = {"percent": every.mean(), "percent_whole": np.mean(of_whole), "percent_node": np.abs(every).max()}
            result[of_kept] |= {name: max(result[of_kept][name], 100 * abs(float(now))) for name, now in more_.items()}
    return {f"{levels}/{steps}": of for (levels, steps), of in result.items()}


def _bytes(values: np.ndarray) -> int:
    """Of a neuron's rows in a store, whose metadata all neurons share."""
    group = open_store(f"memory://rows-{values.shape}", "statistics", "a")
    declare(group, [ArraySpec("rows", ("neuron", "channel", "level"), values.shape, "float16", "rows", block=1)])
    array = array_at(group, "rows")
    empty = array.nbytes_stored()
    write_whole(array, values)
    taken = array.nbytes_stored() - empty
    del group["rows"]
    return taken


def _with_relevance(
    model: Model, read: Readout, nodes: Sequence[str], images: Float[Tensor, "image 3 side side"], feature: int
) -> tuple[Activations, Activations]:
    mode = Relevance()
    with probe(model.network, [*nodes, LAYER], survey(model).layouts(), mode) as run:
        seen_ = run(images.clone().requires_grad_())
    arrived = node_relevance(mode, seen_, read, nodes, torch.full((len(images),), feature), "lrp")
    return {name: value.detach() for name, value in seen_.items()}, arrived


def scale(size: Size) -> dict[str, Any]:
    """A dictionary of many features."""
    stream = np.random.default_rng(0)
    weight = stream.standard_normal((size.features, size.channels), np.float32) / size.channels**0.5
    zeros = np.zeros(size.features, np.float32)
    images = torch.randn(2, size.channels, size.sites, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {"features": size.features, "maps_ms": {}, "own_ms": {}, "task_bytes": {}}
    for name, k in (("ReLU", None), ("TopK", 64)):
        read = Readout("layer", dictionary=Dictionary(weight, zeros, zeros, min(k or 1, size.features) if k else None))
        task = read.of(range(size.task))
        asked = torch.zeros(len(images), dtype=torch.long)
        assert task.dictionary is not None
        whole = task.dictionary.rivals or task.dictionary
        found["task_bytes"][name] = whole.weight.nbytes + task.dictionary.weight.nbytes * (whole is not task.dictionary)
        with torch.inference_mode():
            found["own_ms"][name] = _ms(partial(task.own, images, asked), len(images))
            found["maps_ms"][name] = _ms(partial(read.maps, images), len(images))
    return {**found, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _ms(work: Any, images: int) -> float:
    """Processor time an image, of the better of two runs after one that uploads."""
    work()
    taken = []
    for _ in range(2):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return 1000 * min(taken) / images


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--tiny", action="store_true", help="with little of everything, in seconds")
    parser.add_argument("--scale", action="store_true", help="a stand-in of many features instead")
    parser.add_argument("--pictures", action="store_true", help="make pictures of --dictionary, and of channels")
    parser.add_argument("--keep", type=Path, help="folder of --pictures; what it has is not made again")
    parser.add_argument("--out", type=Path, default=Path("lite0.npz"), help="where the dictionary is written")
    parser.add_argument("--dictionary", type=Path, help="measure targets of this one, and train none")
    parser.add_argument("--photographs", type=int, help="how many of the embedded photographs; all by default")
    options = parser.parse_args(arguments)
    size = TINY if options.tiny else FULL
    size = replace(size, photographs=options.photographs or size.photographs)
    if options.scale:
        torch.set_num_threads(1)
        result = scale(size)
    elif options.pictures:
        result = dict(compared(options.dictionary or options.out, LAYER, options.keep))
    elif options.dictionary:
        result = {"targets": of_file(options.dictionary, size)}
    else:
        result = training(options.out, size)
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
