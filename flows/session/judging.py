"""The functions for finished pictures: measured, named, compared, and what their neurons see in photographs.

Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from flows.session.given import Paths, hand_over_again, job_of, many, parts_of, url_of
from flows.session.preparing import prepared

if TYPE_CHECKING:
    from flows.pages.looking.several import Looks
    from flows.pages.looking.sights import Look
    from stores import Atlas, Statistics
    from vital import Model
    from vital.measuring.photos import Photos


@prepared
def evaluate(
    atlas: Atlas | str | Path,
    *,
    layers: Sequence[str] = (),
    judges: Sequence[str] = (),
    store: Statistics | str | Path | None = None,
    siblings: Paths = (),
    steering: bool = False,
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
        siblings: atlases of the same neurons made with other seeds: adds how much pictures differ, and what judges can
            tell from all of them together.
        steering: also find out whether somebody made the network lead to one picture whatever it begins as: takes 180
            steps a neuron.
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

    url, parts = url_of(atlas), parts_of(evaluate, settings, running=Running)
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
            steering=steering,
            shards=many(shards),
            download=download,
            **parts,
        )
    )
    return open_atlas(url)


@overload
def look(atlas: Atlas | str | Path, photos: Photos, **words: Any) -> Look: ...


@overload
def look(atlas: Sequence[Atlas | str | Path], photos: Photos, **words: Any) -> Looks: ...


def look(
    atlas: Atlas | str | Path | Sequence[Atlas | str | Path],
    photos: Photos,
    *,
    layers: Sequence[str] = (),
    top: int = 10,
    each: bool = False,
    every: bool = False,
    out: str | Path | None = None,
    pages: str | Path | None = None,
    store: Statistics | str | Path | None = None,
    model: Model | None = None,
    **settings: Any,
) -> Look | Looks:
    """Which neurons of an atlas, or of several, see photographs: how strongly against the data set's images, and where.

    Args:
        atlas: the atlas, or its path or URL; of a list of them each looks for itself.
        photos: one photograph or several: files, folders, Pillow images, or uint8 arrays (row, column, 3).
        layers: the layers that look, all together; all by default.
        top: neurons of each photograph, of those with a picture; or of ``every`` neuron.
        each: so many of each layer, one layer after the other, as the strongest of all may be of one layer alone.
        out: a folder for a static page of what is seen.
        pages: the atlases' pages that this page links into: their folder, or the address at which they are seen.
        store: its statistics, when they moved.
        model: the network again, where it is a model of another program.
        **settings: fields of `flows.jobs.Running`, such as ``device``.

    Raises:
        VitalError, StoreError: in one sentence, with the way out.
    """
    from flows.jobs import Running
    from flows.pages.looking.look import look_at
    from flows.pages.looking.several import look_through
    from stores import Atlas, open_atlas
    from vital.errors import UnsuitableInput

    several, at = not isinstance(atlas, (Atlas, str, Path)), None if store is None else url_of(store)
    opened = [open_atlas(url_of(one)) for one in (atlas if isinstance(atlas, Sequence) and several else [atlas])]
    if not opened:
        raise UnsuitableInput("no atlas was given that could look: give one, or a list of some")
    for one in opened if model is not None else ():
        hand_over_again(model, one.statistics(at))
    parts = parts_of(look, settings, running=Running)
    see = partial(look_at, photos=photos, layers=many(layers), top=top, each=each, every=every, store=at, **parts)
    looking = look_through(opened, see, None if out is None else Path(out), None if pages is None else str(pages))
    return looking.looks if several else looking.looks[0]


@prepared
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
    job = job_of(NamesJob, **asked, **parts_of(names, where, running=Running))
    if model is not None:
        hand_over_again(model, open_atlas(job.atlas).statistics(job.store))
    name_atlas(job)
    return open_atlas(job.atlas)


@prepared
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
    return Path(
        compare_methods(job_of(ReportJob, out=str(out), **settings, **parts_of(report, where, running=Running)))
    )
