"""How much the loss of a target changes by being stored: at K levels, in so many steps, in the type it has on disk."""

from __future__ import annotations

import json
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flows.steps.targets import ROW_STEPS
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from tests.golden import recipe
from vital.measuring.rows import resample, site_levels, sort_rows, stepped, stored_levels
from vital.measuring.targets import node_relevance
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.neurons import Readout, importance, relevance_map
from vital.network.nodes import default_nodes
from vital.network.probe import CLASSES, INPUT, Activations, Layout, probe
from vital.pictures.losses import sort_matching
from vital.propagation.mode import Relevance
from vital.settings import ModelSettings

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def kept(rows: Tensor, levels: int, steps: int) -> np.ndarray:
    """Rows as a store has them; values as they are for 0 steps."""
    sites = rows.shape[-1]
    values = resample(rows, site_levels(sites), stored_levels(sites, levels)).numpy()
    return (stepped(values, steps) if steps else values).astype(np.float16)


def stored(rows: Tensor, levels: int, steps: int = ROW_STEPS) -> Tensor:
    """Rows as they come back from the store."""
    sites = rows.shape[-1]
    values = torch.from_numpy(kept(rows, levels, steps)).to(rows.dtype)
    return resample(values, stored_levels(sites, levels), site_levels(sites))


def golden_errors(levels: int) -> dict[str, float]:
    """Relative change of the features loss of every golden case that is here."""
    errors = {}
    for file in sorted([*GOLDEN.glob("class_*.npz"), *GOLDEN.glob("inner_*.npz")]):
        with np.load(file) as kept:
            case = json.loads(str(kept["case"]))
        model = load_model(ModelSettings(name=case["architecture"], weights="random"))
        recipe.fill(model.network, case["weights_seed"])
        references = recipe.images(case["references_seed"], case["references"])
        picture = recipe.images(case["picture_seed"], 1)
        nodes: dict[str, float] = case["layer_weights"]
        neuron = (case["layer"], case["channel"]) if case["kind"] == "channel" else None
        errors[file.stem] = _error(model, nodes, references, picture, neuron, levels, None)
    return errors


def lite0_errors(levels: int) -> dict[str, float]:
    """The same on Lite0, its nodes weighed equally: five photographs as references, another one as the picture."""
    model = load_model(ModelSettings())
    found = survey(model)
    [shard] = expand((str(resources.files("flows.demo")),))[:1]
    samples = islice((sample.image for sample in ShardReader(shard) if sample.image), 6)
    photos = [model.preprocessing.crop(decode(image)) for image in samples]
    images = model.preprocessing.normalise(torch.stack(photos))
    errors = {}
    for layer in (CLASSES, "_blocks.4", "_blocks.9", "_blocks.14"):
        nodes = dict.fromkeys((INPUT, *default_nodes(found, layer)), 1.0)
        neuron = None if layer == CLASSES else (layer, 3)
        errors[f"lite0 {layer}"] = _error(model, nodes, images[:5], images[5:6], neuron, levels, found.layouts())
    return errors


def _error(
    model: Model,
    nodes: dict[str, float],
    references: Tensor,
    picture: Tensor,
    neuron: tuple[str, int] | None,
    levels: int,
    layouts: dict[str, Layout] | None,
) -> float:
    before, flows = _seen(model, list(nodes), references, neuron, layouts)
    now, of_picture = _seen(model, list(nodes), picture, neuron, layouts)
    exact = rough = 0.0
    for name, weight in nodes.items():
        rows, weights, relevance = sort_rows(before[name]).mean(0, keepdim=True), None, None
        if name in flows:
            rows = sort_rows(relevance_map(flows[name]) * before[name]).mean(0, keepdim=True)
            weights, relevance = importance(flows[name]).mean(0, keepdim=True), of_picture[name]
        exact += weight * float(sort_matching(now[name], rows, weights, relevance))
        rough += weight * float(sort_matching(now[name], stored(rows, levels), weights, relevance))
    return abs(rough - exact) / exact


def _seen(
    model: Model, nodes: list[str], images: Tensor, neuron: tuple[str, int] | None, layouts: dict[str, Layout] | None
) -> tuple[Activations, Activations]:
    if neuron is None:
        with torch.no_grad(), probe(model.network, nodes, layouts) as run:
            return run(images), {}
    mode, (layer, channel) = Relevance(), neuron
    with probe(model.network, [*nodes, layer], layouts, mode) as run:
        seen = run(images.clone().requires_grad_())
    flows = node_relevance(mode, seen, Readout(layer), nodes, torch.full((len(images),), channel), "lrp")
    return {name: activations.detach() for name, activations in seen.items()}, flows
