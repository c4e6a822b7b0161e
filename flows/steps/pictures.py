"""The atlas store as the flows see it: declared before any task, filled by blocks, recording what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Bool

from flows.jobs import BLOCK, AtlasJob
from flows.running.blocks import rows_of
from flows.running.process import Worker, stored_model, stored_worker, worker_at
from flows.running.progress import tick
from flows.steps.targets import read_targets, recorded_variant, target_nodes, target_status
from stores.arrays.blocks import empty_rows
from stores.arrays.provenance import claim, claimed, dataset_fingerprint, fingerprint
from stores.arrays.schema import declare, open_store
from stores.atlas import done_picture_blocks, picture_specs, write_picture_block
from stores.dataset.index import read_shards
from stores.dataset.layers import read_colours, read_spectrum
from stores.dataset.targets import done_blocks, read_target_levels
from stores.errors import PictureStatus, SchemaMismatch
from stores.files import safe_url
from vital.judging.metrics import MatchedCurve, matched_curves
from vital.measuring.sums import ColourDistribution
from vital.measuring.targets import Target
from vital.network.probe import CLASSES
from vital.pictures.baselines import check_method
from vital.pictures.device import in_batches, measured_batch
from vital.pictures.optimise import Pictures, optimise, records_of
from vital.settings import PictureMethod, PictureSettings

ALGORITHMS: Mapping[PictureMethod, int] = {"vital": 3, "pixel": 2, "fourier": 2, "maco": 2, "deepinversion": 2}
"""Version of how each method makes pictures of settings; those of another version are not added to. Of vital 2:
windows of class pictures are judged by the logit; 3: class pictures have the contrast of the data."""


@dataclass(frozen=True)
class DeclaredAtlas:
    """A layer's pictures as the atlas holds them."""

    variant: str
    neurons: int
    block: int

    def live_in(self, live: Bool[np.ndarray, "neuron"], blocks: Iterable[int]) -> int:
        """How many pictures a task has to make."""
        return int(sum(live[list(rows_of(block, self.block, self.neurons))].sum() for block in blocks))


def declare_atlas(job: AtlasJob, statistics: zarr.Group, here: Worker) -> DeclaredAtlas:
    """Claim the atlas for these statistics and settings, and create the layer's arrays."""
    layer = here.found.layer(job.layer)
    variant = job.variant.label(job.layer == CLASSES)
    target_status(statistics, job.layer, variant)  # refuses a variant that was not measured
    check_method(here.model, job.picture)
    if job.picture.parametrisation == "phase":
        read_spectrum(statistics)  # refuses statistics without one
    group = open_store(job.out, "atlas", "a")
    claim(group, "statistics", _provenance(statistics))
    # Where the statistics lie is a hint for later commands, not what the pictures depend on.
    group.attrs["store"] = safe_url(job.store)
    levels = read_target_levels(statistics, job.layer, variant)
    nodes = {node: len(levels[node]) for node in target_nodes(statistics, job.layer, variant)}
    # Claimed before anything is created: other settings are refused by name, not by the shape they give.
    place = group.require_group(job.layer)
    version = ALGORITHMS[job.picture.method]
    claim(place, "atlas", {"variant": variant, "algorithm": version, **job.picture.model_dump(mode="json")})
    declare(
        group, picture_specs(job.layer, layer.channels, job.picture.side, records_of(job.picture.steps), BLOCK, nodes)
    )
    names = list(here.model.class_names) if job.layer == CLASSES else []
    if place.attrs.get("names") != names:
        place.attrs["names"] = names
    return DeclaredAtlas(variant, layer.channels, BLOCK)


def _provenance(statistics: zarr.Group) -> dict[str, str]:
    base = claimed(statistics, "base") or {}
    return {"base": fingerprint(base), "dataset": dataset_fingerprint(read_shards(statistics).identities())}


def require_targets(statistics: zarr.Group, job: AtlasJob, declared: DeclaredAtlas, blocks: Iterable[int]) -> None:
    """Refuse neurons whose targets were not measured: a picture of nothing must not be recorded as decided."""
    done = done_blocks(statistics, job.layer, declared.variant)
    if missing := [block for block in blocks if not done[block]]:
        first, last = missing[0] * declared.block, min((missing[-1] + 1) * declared.block, declared.neurons)
        raise SchemaMismatch(
            f"targets/{job.layer}/{declared.variant} has no targets of neurons {first} to {last - 1}: "
            f"run `vital targets --layer {job.layer} --neurons {first}:{last}` with the same variant first"
        )


def unmade(job: AtlasJob, declared: DeclaredAtlas, blocks: Iterable[int]) -> set[int]:
    """The blocks that are not written."""
    done = done_picture_blocks(open_store(job.out, "atlas", "r"), job.layer)
    return {block for block in blocks if not done[block]}


def make_blocks(job: AtlasJob, blocks: Sequence[int]) -> None:
    """Optimise all live neurons of ``blocks`` in batches, then write each block."""
    statistics = open_store(job.store, "statistics", "r")
    group = open_store(job.out, "atlas", "a")
    here = worker_at(stored_model(statistics), job.running, job.picture.side)
    variant = job.variant.label(job.layer == CLASSES)
    status = target_status(statistics, job.layer, variant)
    neurons = [
        row for block in blocks for row in rows_of(block, BLOCK, len(status)) if status[row] == PictureStatus.MADE
    ]
    made: dict[int, dict[str, np.ndarray]] = {}
    size = job.batch if isinstance(job.batch, int) else _measured_batch(job, statistics, here, variant, neurons[:1])
    for _ in in_batches(
        len(neurons), size, lambda part: made.update(_optimise(job, statistics, here, variant, neurons[part]))
    ):
        pass
    for block in blocks:
        arrays = _block_arrays(group, job.layer, job.picture, rows_of(block, BLOCK, len(status)), status, made)
        write_picture_block(group, job.layer, block, arrays)


def _measured_batch(job: AtlasJob, statistics: zarr.Group, here: Worker, variant: str, neurons: Sequence[int]) -> int:
    """What fits into the device, by one step of one picture."""
    first = job.model_copy(update={"picture": job.picture.model_copy(update={"steps": 1})})
    device = next(here.model.network.parameters()).device
    return measured_batch(lambda: neurons and _pictures(first, statistics, here, variant, neurons), device)


def _optimise(
    job: AtlasJob, statistics: zarr.Group, here: Worker, variant: str, neurons: Sequence[int]
) -> dict[int, dict[str, np.ndarray]]:
    share = len(neurons) / job.picture.steps
    target, pictures = _pictures(job, statistics, here, variant, neurons, lambda step: tick(share))
    rows = matched_curves(here.model, target, pictures.pixels, here.found.layouts())
    return {neuron: _row(pictures, rows, place) for place, neuron in enumerate(neurons)}


def _pictures(
    job: AtlasJob,
    statistics: zarr.Group,
    here: Worker,
    variant: str,
    neurons: Sequence[int],
    progress: Callable[[int], None] = lambda step: None,
) -> tuple[Target, Pictures]:
    # As the statistics have it: pictures of another side are read at the same place.
    readout = stored_worker(statistics, job.running).found.layer(job.layer).readout
    target = read_targets(statistics, job.layer, variant, neurons, readout)
    kind, colours = (
        recorded_variant(statistics, job.layer, variant).relevance,
        ColourDistribution(*read_colours(statistics)),
    )
    spectrum = read_spectrum(statistics) if job.picture.parametrisation == "phase" else None
    return target, optimise(here.model, target, job.picture, here.found.layouts(), kind, colours, progress, spectrum)


def _row(pictures: Pictures, rows: Mapping[str, MatchedCurve], place: int) -> dict[str, np.ndarray]:
    parts: dict[str, np.ndarray] = {
        "pixels": pictures.pixels[place],
        "alpha": pictures.alpha[place],
        "loss": pictures.loss[place],
    }
    parts["status"] = np.asarray(PictureStatus.MADE if pictures.finite[place] else PictureStatus.NON_FINITE)
    for node, row in rows.items():
        parts |= {f"reached/{node}/picture": row.picture[place], f"reached/{node}/target": row.target[place]}
    return parts


def _block_arrays(
    group: zarr.Group,
    layer: str,
    settings: PictureSettings,
    neurons: range,
    status: np.ndarray,
    made: dict[int, dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """A block's rows of every declared array; neurons without a picture keep the reason that their target gave."""
    arrays = empty_rows(group, layer, len(neurons))
    arrays["status"][:] = status[list(neurons)]
    arrays["seed"][:] = settings.seed
    for neuron in neurons:
        for name, value in made.get(neuron, {}).items():
            arrays[name][neuron - neurons.start] = value
    return arrays
