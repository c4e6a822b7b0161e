"""Recipes: which shards go through which network, where tasks run, and what is written.

    s = flows.references("shards/*.tar", "s.zarr", model="resnet50", layers=["layer4.2"])     # a stores.Statistics
    flows.targets(s, "layer4.2", neurons="0:64")                                              # a stores.Targets
    a = flows.atlas(s, "layer4.2", "a.zarr", neurons="0:64", steps=500)                       # a stores.Atlas
    flows.evaluate(a, judges=["squeezenet"])                                                  # the same, with metrics
    flows.look(a, "cat.jpg")                                                                  # which neurons see it
    flows.names(a)                                                                            # the same, with words
    flows.report("report", seeds=3)                                                           # the path of a page

Each runs the flow of the same step and gives the store that it filled. Settings are keyword arguments by the names of
the command's options. The work is done in this process unless ``workers`` or ``scheduler`` is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from flows.running.given import RENAMED as RENAMED
from flows.running.given import hand_over_again, job_of, many, model_settings, parts_of, ranges, url_of

if TYPE_CHECKING:
    from flows.pages.looking.sights import Look
    from stores import Atlas, Statistics, Targets
    from vital import Model
    from vital.measuring.photos import Photos
    from vital.settings import ModelSettings

__all__ = ["atlas", "evaluate", "look", "names", "references", "report", "targets"]
KEPT = "what is finished stays; run the same command again, which makes what is missing"
"""What a run says that is ended before it is done."""
Paths: TypeAlias = "str | Path | Sequence[str | Path]"
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _prepared(recipe: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that runs flows, after what has to come before Prefect is imported."""

    @wraps(recipe)
    def run(*words: _P.args, **settings: _P.kwargs) -> _R:
        from flows.running.server import served

        calm_prefect()
        with served():
            return recipe(*words, **settings)

    return run


@_prepared
def references(
    shards: Paths,
    store: str | Path,
    *,
    model: str | ModelSettings | Model,
    layers: Sequence[str],
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

    parts = parts_of(settings, statistics=StatisticsSettings, running=Running)
    select_references(
        job_of(
            ReferencesJob,
            shards=many(shards),
            store=str(store),
            model=model_settings(model),
            layers=many(layers),
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


@_prepared
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

    url, parts = url_of(statistics), parts_of(settings, variant=VariantSettings, running=Running)
    if model is not None:
        hand_over_again(model, open_statistics(url))
    asked = {"layer": layer, "neurons": ranges(neurons), "precision": precision, "batch": batch}
    variant = measure_targets(job_of(TargetsJob, store=url, shards=many(shards), **asked, **parts))
    return open_statistics(url).targets(layer, variant)


@_prepared
def atlas(
    statistics: Statistics | str | Path,
    layer: str,
    out: str | Path,
    *,
    neurons: str | int | Iterable[int] = "",
    batch: int | str = "auto",
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

    parts = parts_of(settings, picture=PictureSettings, variant=VariantSettings, running=Running)
    if model is not None:
        hand_over_again(model, open_statistics(url_of(statistics)))
    asked = {"layer": layer, "neurons": ranges(neurons), "batch": batch}
    build_atlas(job_of(AtlasJob, store=url_of(statistics), out=str(out), **asked, **parts))
    return open_atlas(str(out))


@_prepared
def evaluate(
    atlas: Atlas | str | Path,
    *,
    layers: Sequence[str] = (),
    judges: Sequence[str] = (),
    store: Statistics | str | Path | None = None,
    siblings: Paths = (),
    shards: Paths = (),
    download: bool = False,
    model: Model | None = None,
    **settings: Any,
) -> Atlas:
    """Measure an atlas's pictures; the metrics are kept beside them.

    Args:
        atlas: the atlas, or its path or URL.
        layers: the layers to measure; all by default.
        judges: other networks that look at the pictures, by name.
        store: its statistics, when they moved.
        siblings: atlases of the same neurons made with other seeds: adds how much pictures differ.
        shards: where the shards are now, when they moved.
        download: fetch judges' weights that are not in the local cache.
        model: the network again, where it is a model of another program.
        **settings: fields of `flows.jobs.Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import EvaluateJob, Running
    from flows.recipes.evaluation import evaluate_atlas
    from stores import open_atlas

    url, parts = url_of(atlas), parts_of(settings, running=Running)
    if model is not None:
        hand_over_again(model, open_atlas(url).statistics(None if store is None else url_of(store)))
    evaluate_atlas(
        job_of(
            EvaluateJob,
            atlas=url,
            store=None if store is None else url_of(store),
            layers=many(layers),
            judges=many(judges),
            siblings=many(siblings),
            shards=many(shards),
            download=download,
            **parts,
        )
    )
    return open_atlas(url)


def look(
    atlas: Atlas | str | Path,
    photos: Photos,
    *,
    layers: Sequence[str] = (),
    top: int = 10,
    every: bool = False,
    store: Statistics | str | Path | None = None,
    model: Model | None = None,
    **settings: Any,
) -> Look:
    """Which neurons of an atlas see photographs, how strongly against the data set's images, and where.

    Args:
        atlas: the atlas, or its path or URL.
        photos: one photograph or several: files, folders, Pillow images, or uint8 arrays (row, column, 3).
        layers: the layers that look, all together; all by default.
        top: neurons of each photograph, of those with a picture; or of ``every`` neuron.
        store: its statistics, when they moved.
        model: the network again, where it is a model of another program.
        **settings: fields of `flows.jobs.Running`, such as ``device``.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import Running
    from flows.pages.looking.look import look_at
    from stores import open_atlas

    opened, at = open_atlas(url_of(atlas)), None if store is None else url_of(store)
    if model is not None:
        hand_over_again(model, opened.statistics(at))
    return look_at(opened, photos, many(layers), top=top, every=every, store=at, **parts_of(settings, running=Running))


@_prepared
def names(
    atlas: Atlas | str | Path,
    vocabulary: str | Path = "classes",
    *,
    judge: str | None = None,
    model: Model | None = None,
    **settings: Any,
) -> Atlas:
    """Find words for an atlas's neurons; they are kept beside the pictures, as ``layer.names`` and ``layer.naming()``.

    Args:
        atlas: the atlas, or its path or URL.
        vocabulary: ``classes``, or a text file of words, one a line, which takes a CLIP model as judge.
        judge: the network that says how much a word is in an image; without one the data set's labels say it.
        model: the network again, where it is a module of another program.
        **settings: other fields of `flows.jobs.NamesJob`, such as ``layers`` and ``words``, and those of `Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import NamesJob, Running
    from flows.recipes.names import name_atlas
    from stores import open_atlas

    where = {name: settings.pop(name) for name in Running.model_fields if name in settings}
    settings |= {name: many(settings[name]) for name in ("layers", "shards") if name in settings}
    settings |= {name: url_of(settings[name]) for name in ("store", "broader") if name in settings}
    asked = {"atlas": url_of(atlas), "vocabulary": str(vocabulary), "judge": judge, **settings}
    job = job_of(NamesJob, **asked, **parts_of(where, running=Running))
    if model is not None:
        hand_over_again(model, open_atlas(job.atlas).statistics(job.store))
    name_atlas(job)
    return open_atlas(job.atlas)


@_prepared
def report(out: str | Path, **settings: Any) -> Path:
    """Compare methods on the same neurons; returns the path of the report's page.

    Args:
        out: the folder for the report and everything that it was made from.
        **settings: fields of `flows.reports.plan.ReportJob` and of `flows.jobs.Running`.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import Running
    from flows.recipes.comparison import compare_methods
    from flows.reports.plan import ReportJob

    where = {name: settings.pop(name) for name in Running.model_fields if name in settings}
    return Path(compare_methods(job_of(ReportJob, out=str(out), **settings, **parts_of(where, running=Running))))


def calm_prefect(logged: str = "CRITICAL") -> None:
    """Before Prefect is imported: nothing is reported to anybody, and only trouble is ``logged``. What the environment
    says already stays."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", logged)
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
