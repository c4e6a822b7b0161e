"""Which photographs ask what a picture tells: those beyond the references that were used, and never one of these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from flows.jobs import EvaluateJob, Running
from flows.steps.judging import photographs
from flows.steps.judging.measured import Measured
from flows.steps.judging.metrics import _readable
from flows.steps.judging.photographs import (
    Asked,
    JudgedReferences,
    Questions,
    leading_ranks,
    questions_of,
    why_unasked,
)
from flows.steps.targets.graded import SHARE, draws_of
from stores import References, Sample, Statistics, open_statistics
from stores.atlas.layer import AtlasLayer
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import Status
from vital.judging.readability import FEW, Question

IMAGES, NEURONS, LAYER, JUDGE = 30, 3, "l", "judge"
JOB = EvaluateJob(atlas="a.zarr", judges=(JUDGE,), running=Running(threads=1))


def made(folder: Path, queries: int, used: int | None) -> Statistics:
    """Neuron n is excited by image i as much as by −((i − n) mod 30); four references are kept, and all are sampled."""
    statistics = open_statistics(str(folder / f"{queries}-{used}.zarr"), "a")
    statistics.claim({"model": "m", "levels": 4}, {"name": "m"})
    column = {"shard": 0, "offset": 0, "size": 7, "label": -1, "key": "k", "status": int(Status.OK), "checksum": 0}
    shard = {"name": "x.tar", "url": "/x", "size": 9, "images": IMAGES, "rejected": 0, "digest": "d", "short": ""}
    columns = {name: [value] * IMAGES for name, value in column.items()} | {"key": [f"k{n}" for n in range(IMAGES)]}
    statistics.append(
        SampleRows.from_columns(columns),
        ShardRows.from_columns({name: [value] for name, value in shard.items()}),
    )
    peak = -((np.arange(IMAGES)[:, None] - np.arange(NEURONS)) % IMAGES).astype(np.float32)
    image = np.argsort(-peak, axis=0).T[:, : 4 + queries]
    score, site = np.take_along_axis(peak.T, image, 1), np.zeros(image.shape, np.int32)
    ranked = References(image, score, site, np.zeros((*image.shape, 4), np.int32))
    statistics.write_references(LAYER, ranked, queries, IMAGES)
    statistics.write_sample(LAYER, Sample(np.arange(IMAGES), peak), IMAGES)
    statistics.mark([], {LAYER: 4})
    statistics.targets(LAYER, "image").claim({"nodes": [], "references": used})
    return statistics.again()


def asked(statistics: Statistics) -> Asked:
    return Asked(statistics.url, tuple(statistics.provenance.values()), LAYER, "image", (0, 2))


@pytest.mark.parametrize(("used", "first"), [(None, 4), (2, 2)])
def test_queries_follow_the_references_that_were_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int | None, first: int
) -> None:
    seen: list[np.ndarray] = []

    def features(job: EvaluateJob, which: Asked, images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(images)
        return {JUDGE: images[:, None] * np.ones(2, np.float32)}

    monkeypatch.setattr(photographs, "_features_of", features)
    found = questions_of(JOB, asked(made(tmp_path, 10, used)))
    assert found is not None
    [images] = seen
    assert images.tolist() == list(range(IMAGES))
    learnt = draws_of([f"k{n}" for n in range(IMAGES)]) < SHARE
    assert 8 <= learnt.sum() <= IMAGES - 8
    for neuron, question in zip((0, 2), found.of, strict=True):
        excite = [(neuron + rank) % IMAGES for rank in range(IMAGES)]  # best first
        asked_about = [one for one in excite if not learnt[one]]
        lower = asked_about[len(asked_about) - len(asked_about) // 2 :]
        beyond = [one for one in excite[first:14] if not learnt[one] and one not in lower]
        assert images[question.exciting].tolist() == beyond[:10]
        assert sorted(images[question.others].tolist()) == sorted(set(lower) - set(excite[:first]))
    np.testing.assert_allclose(found.features[JUDGE].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.features[JUDGE].std(0), 1, atol=1e-6)
    assert found.sample[JUDGE][:, 0].tolist() == list(range(IMAGES))


def test_a_store_without_queries_asks_nothing(tmp_path: Path) -> None:
    assert questions_of(JOB, asked(made(tmp_path, 0, None))) is None


def test_the_strongest_of_each_facet_leads_it() -> None:
    facets = np.array([[1, 0, 0, 1, 2], [0, 0, 0, -1, -1], [-1, -1, -1, -1, -1]], np.int8)
    assert [ranks.tolist() for ranks in leading_ranks(facets)] == [[1, 0, 4], [0], []]


def measured(counts: list[int]) -> Measured:
    """Neurons 2, 5, 8, … of a layer, with so many pictures each."""
    neurons = [2 + 3 * place for place in range(len(counts))]
    none = zarr.open_group(zarr.storage.MemoryStore())
    return Measured(AtlasLayer(none, LAYER), Statistics("", none), neurons, np.array(counts))


def test_pictures_are_of_their_neurons_and_a_neuron_s_value_is_their_mean() -> None:
    part = measured([2, 1, 3])
    assert part.shown.tolist() == [2, 2, 5, 8, 8, 8]
    assert part.facets.tolist() == [0, 1, 0, 0, 1, 2]
    assert [own.tolist() for own in part.together()] == [[0, 1], [2], [3, 4, 5]]
    means = part.means(np.array([1.0, 3.0, np.nan, 1.0, np.nan, 2.0]))
    np.testing.assert_array_equal(means, [2.0, np.nan, 1.5])


def test_photographs_shown_as_pictures_are_read_as_the_yardsticks_are() -> None:
    """Whatever the features, the strongest of each facet and all of them: standardised and averaged in one way."""
    stream, neurons, each = np.random.default_rng(0), 9, 4
    features = np.exp(stream.normal(size=(neurons * each, 12))).astype(np.float32)
    rows = [each * neuron + np.arange(each) for neuron in range(neurons)]
    leading = [own[: 1 + neuron % 3] for neuron, own in enumerate(rows)]
    images = stream.normal(size=(60, 12)).astype(np.float32)
    questions = [Question(np.arange(5) + neuron, np.arange(20, 60)) for neuron in range(neurons)]
    nothing = np.zeros(len(features), np.float32)
    photos = JudgedReferences(rows, [0 * own for own in rows], leading, {JUDGE: features}, {}, nothing, nothing)
    pictures = features[np.concatenate(leading)]
    together = measured([len(own) for own in leading]).together()
    found = _readable(JUDGE, pictures, together, photos, Questions(questions, {JUDGE: images}, {JUDGE: images}))
    np.testing.assert_array_equal(found["readability_judge"], found["readability_as_many_judge"])
    all_shown = measured([each] * neurons).together()
    as_pictures = _readable(JUDGE, features, all_shown, photos, Questions(questions, {JUDGE: images}, {JUDGE: images}))
    np.testing.assert_array_equal(as_pictures["readability_judge"], found["readability_as_pictures_judge"])
    assert np.isfinite(found["readability_references_judge"]).all()
    assert not np.array_equal(found["readability_judge"], found["readability_references_judge"])


def test_a_few_photographs_are_the_strongest_and_are_none_of_a_neuron_with_fewer() -> None:
    """The known answer is that of a store whose neurons have no more references than those few."""
    stream, neurons, each = np.random.default_rng(1), 9, 5
    features = stream.normal(size=(neurons * each, 12)).astype(np.float32)
    images = stream.normal(size=(60, 12)).astype(np.float32)
    questions = [Question(np.arange(5) + neuron, np.arange(20, 60)) for neuron in range(neurons)]
    rows = [each * neuron + np.arange(each if neuron else 3) for neuron in range(neurons)]
    nothing = np.zeros(len(features), np.float32)

    def found(kept: int) -> dict[str, np.ndarray]:
        mine = [own[:kept] for own in rows]
        photos = JudgedReferences(mine, [0 * own for own in mine], mine, {JUDGE: features}, {}, nothing, nothing)
        together = measured([1] * neurons).together()
        asked = Questions(questions, {JUDGE: images}, {JUDGE: images[:30]})
        return _readable(JUDGE, features[:neurons], together, photos, asked)

    of_all = found(each)
    for name, count in FEW.items():
        expected = found(count)["readability_references_judge"]
        if count == 4:
            expected[0] = np.nan
        np.testing.assert_array_equal(of_all[f"{name}_judge"], expected)
    # one of fewer than all the others is none of its own
    assert np.isfinite(of_all["readability_two_judge"]).all()


def test_who_cannot_be_asked_about_is_told_with_the_way_out() -> None:
    def questions(fair: int, unfair: int) -> Questions:
        enough, few = np.arange(3), np.arange(2)
        of = [Question(enough, enough)] * fair + [Question(enough, few), Question(few, enough)][:unfair]
        return Questions(of, {}, {JUDGE: np.ones((17, 2), np.float32)})

    assert why_unasked("l", questions(8, 0)) == ""
    assert why_unasked("l", None).endswith(
        "of layer 'l' tell other networks is not known, since the store keeps no queries or no sample to ask about: "
        "make statistics with --queries and --sample"
    )
    assert "since 7 are too few to tell their style" in why_unasked("l", questions(6, 1))
    assert why_unasked("l", questions(7, 2)) == (
        "what pictures of 2 of 9 neurons of layer 'l' tell other networks is not known, since fewer than 3 queries or "
        "weak images of a sample of 17 are left beside those that targets learn from: make statistics of more images, "
        "or with more --queries and a larger --sample"
    )
