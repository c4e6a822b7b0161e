"""The functions that fill a store: references, targets, pictures.

Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.session.given import Paths, hand_over_again, job_of, many, model_settings, parts_of, ranges, url_of
from flows.session.preparing import prepared

if TYPE_CHECKING:
    from stores import Atlas, Statistics, Targets
    from vital import Model
    from vital.settings import ModelSettings


@prepared
def references(
    shards: Paths,
    store: str | Path,
    *,
    model: str | ModelSettings | Model,
    layers: Sequence[str],
    nodes: Paths = (),
    directions: Paths = (),
    dictionaries: Paths = (),
    manifest: str | Path | None = None,
    labels: str | Path | None = None,
    label_key: str = "cls",
    allow_rejected: float = 0.0,
    extend: bool = False,
    precision: str = "float32",
    batch: int | str = "auto",
    **settings: Any,
) -> Statistics:
    """Stream shards through a network once: which images excite which neuron, and statistics of its layers.

    Args:
        shards: tars: paths, folders, globs, braces {000..009} or fsspec URLs; or folders of images.
        store: the statistics store to write: a path or URL. What it has already is not computed again.
        model: a network's name or settings; or a model of this program (`vital.wrap`), where tasks run in this process.
        layers: the layers whose neurons get references, such as ``layer4.2``, or ``classes``.
        nodes: layers that targets are to match beside the default ones: their statistics are kept, too.
        directions: files of matrices of directions × channels; ``LAYER~NAME`` has a neuron for each row.
        dictionaries: files of dictionaries, or SAELens's folders; ``LAYER~NAME`` has a neuron for each feature.
        manifest: a JSON file with the number of samples that each shard should hold.
        labels: ``match``, ``number``, ``ignore``, or a JSON file that says which class is which of the network.
        label_key: the ending of the file, or the key of the ``.json``, that says a sample's class.
        allow_rejected: the share of shards that may end early without an error, 0 to 1; and of images that may be
            unusable, where it is more than half.
        extend: add the shards that the store has not read.
        precision: arithmetic of the network: float32, tf32 or bfloat16.
        batch: images forwarded together; ``auto`` is 32, on a GPU 128.
        **settings: fields of `vital.settings.StatisticsSettings` and of `flows.jobs.Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import ReferencesJob, Running
    from flows.recipes.references import select_references
    from stores import open_statistics
    from vital.settings import StatisticsSettings

    parts = parts_of(references, settings, statistics=StatisticsSettings, running=Running)
    select_references(
        job_of(
            ReferencesJob,
            shards=many(shards),
            store=str(store),
            model=model_settings(model),
            layers=many(layers),
            nodes=many(nodes),
            directions=many(directions),
            dictionaries=many(dictionaries),
            manifest=None if manifest is None else str(manifest),
            labels=None if labels is None else str(labels),
            label_key=label_key,
            allow_rejected=allow_rejected,
            extend=extend,
            precision=precision,
            batch=batch,
            **parts,
        )
    )
    return open_statistics(str(store))


@prepared
def targets(
    statistics: Statistics | str | Path,
    layer: str,
    *,
    neurons: str | int | Iterable[int] = "",
    shards: Paths = (),
    model: Model | None = None,
    precision: str = "float32",
    batch: int | str = "auto",
    **settings: Any,
) -> Targets:
    """Measure neurons' references: what their pictures are to match.

    Args:
        statistics: the statistics store, or its path or URL.
        layer: the neurons' layer, or ``classes``.
        neurons: numbers, or ranges and lists such as ``0:64,70``; all by default. Rounded out to whole blocks.
        shards: where the shards are now, when they moved.
        model: the network again, where it is a model of another program.
        precision: arithmetic of the network: float32, tf32 or bfloat16.
        batch: references in one pass; ``auto`` takes 8 on a CPU, and what fits on a GPU.
        **settings: fields of `vital.settings.VariantSettings` and of `flows.jobs.Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import Running, TargetsJob
    from flows.recipes.targets import measure_targets
    from stores import open_statistics
    from vital.settings import VariantSettings

    url, parts = url_of(statistics), parts_of(targets, settings, variant=VariantSettings, running=Running)
    if model is not None:
        hand_over_again(model, open_statistics(url))
    asked = {"layer": layer, "neurons": ranges(neurons), "precision": precision, "batch": batch}
    variant = measure_targets(job_of(TargetsJob, store=url, shards=many(shards), **asked, **parts))
    return open_statistics(url).targets(layer, variant)


@prepared
def atlas(
    statistics: Statistics | str | Path,
    layer: str,
    out: str | Path,
    *,
    neurons: str | int | Iterable[int] = "",
    batch: int | str = "auto",
    targets: str = "stored",
    shards: Paths = (),
    target_precision: str = "float32",
    target_batch: int | str = "auto",
    model: Model | None = None,
    **settings: Any,
) -> Atlas:
    """Make neurons' pictures from their targets.

    Args:
        statistics: the statistics store with the targets, or its path or URL.
        layer: the neurons' layer, or ``classes``.
        out: the atlas to write: a path or URL. Pictures that it has already are left alone.
        neurons: numbers, or ranges and lists such as ``0:64,70``; all by default. Rounded out to whole blocks.
        batch: pictures that are optimised together; ``auto`` measures one and takes what fits.
        targets: ``stored`` by `flows.targets`; or ``fly``, measured by the task that makes the pictures, and not
            stored.
        shards: on the fly: where the shards are now, when they moved.
        target_precision: on the fly: arithmetic while targets are measured.
        target_batch: on the fly: references in one pass.
        model: the network again, where it is a model of another program.
        **settings: fields of `vital.settings.PictureSettings`, such as ``steps``; of `VariantSettings`, as the targets
            were measured; and of `flows.jobs.Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import AtlasJob, Running
    from flows.recipes.atlas import build_atlas
    from stores import open_atlas, open_statistics
    from vital.settings import PictureSettings, VariantSettings

    parts = parts_of(atlas, settings, picture=PictureSettings, variant=VariantSettings, running=Running)
    if model is not None:
        hand_over_again(model, open_statistics(url_of(statistics)))
    of_targets = {"targets": targets, "target_precision": target_precision, "target_batch": target_batch}
    asked = {"layer": layer, "neurons": ranges(neurons), "batch": batch, "shards": many(shards), **of_targets}
    build_atlas(job_of(AtlasJob, store=url_of(statistics), out=str(out), **asked, **parts))
    return open_atlas(str(out))
