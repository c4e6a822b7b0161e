"""Words about models: the layers there are, how much relevance arrives where, which neurons a block rounds out to."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size

from flows.jobs import BLOCK, Running
from flows.running.neurons import blocks_of, parse_neurons
from flows.running.process import load, load_stored
from stores import open_statistics
from stores.arrays.blocks import neurons_of_block
from stores.errors import SchemaMismatch
from vital.errors import in_line
from vital.network.layers import survey
from vital.network.models import load_model
from vital.network.nodes import default_nodes, layer_table
from vital.network.probe import CLASSES
from vital.network.sources import RANDOM
from vital.network.sources.packages import PACKAGED, SQUEEZENET
from vital.propagation.conservation import conservation, liveliest, noise
from vital.settings import ModelSettings


def layer_lines(settings: ModelSettings, every: bool) -> Iterator[str]:
    """A line a layer: name, channels, sites, and the nodes that are matched by default for its neurons."""
    model = load_model(_weights_or_random(settings))
    yield from model.notes
    known = survey(model)
    yield from known.notes
    yield from str(layer_table(known, model.name, every)).split("\n")
    if CLASSES in known.left_out:
        yield f"{CLASSES!r} {known.left_out[CLASSES]}"
    if any(layer.own_sites < layer.sites for layer in known.layers.values()):
        yield "sites such as 1+196: tokens that are not of the image, and those that are"


def network_notes(settings: ModelSettings, running: Running) -> Iterator[str]:
    """What was chosen or left out when the network was loaded, as this process has it."""
    loaded = load(settings, running.of_flow)
    yield from (*loaded.model.notes, *loaded.survey.notes)


def _weights_or_random(settings: ModelSettings) -> ModelSettings:
    """What layers there are does not depend on weights, so none need to be fetched."""
    if settings.weights is None and ":" not in settings.name and settings.name not in (*PACKAGED, SQUEEZENET):
        return settings.model_copy(update={"weights": RANDOM})
    return settings


def conservation_table(settings: ModelSettings, layer: str) -> Iterator[str]:
    """How much of a layer's relevance arrives at each of its default nodes, and what loses the rest: the most active
    neuron on each of four pictures of 1/f noise, relevance kind lrp."""
    settings = _weights_or_random(settings)
    model = load_model(settings)
    known = survey(model)
    nodes, images = default_nodes(known, known.layer(layer).name, model.name), noise(model, 4)
    shares = conservation(model, known, layer, nodes, liveliest(model, known, layer, images), images)
    weights = "random weights: " if settings.weights == RANDOM else ""
    yield f"{weights}relevance of the liveliest neurons of {layer} on 4 pictures of noise, 1 being all that was started"
    width = max(cell_len(in_line(name)) for name in (*nodes, *shares.lost))
    yield from (
        f"{set_cell_size(in_line(node), width)}  arrives {share:8.5f}" for node, share in shares.arrived.items()
    )
    lost = {name: share for name, share in shares.lost.items() if abs(share) >= 1e-5}
    yield from (f"{set_cell_size(in_line(name), width)}  loses   {share:8.5f}" for name, share in lost.items())


def rounding(store: str, layer: str, neurons: str) -> Iterator[str]:
    """Says so when the asked neurons are rounded out to whole blocks."""
    statistics = open_statistics(store)
    try:
        count = len(statistics.reference(layer, "image"))
    except SchemaMismatch:
        load_stored(statistics, Running()).survey.layer(layer)  # a misspelt layer is told the nearest names
        raise
    asked = parse_neurons(neurons, count, layer)
    blocks = blocks_of(asked, BLOCK)
    whole = sum(len(neurons_of_block(block, BLOCK, count)) for block in blocks)
    if whole != len(asked):
        yield f"{len(asked)} neurons asked, rounded out to {len(blocks)} whole blocks of {BLOCK}: {whole} neurons"
