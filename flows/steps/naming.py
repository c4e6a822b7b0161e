"""Names of a layer's neurons: how much each word is in each image of the sample, and which words go along with whom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float32, Int, Int64

from flows.jobs import CLASS_WORDS, NamesJob
from flows.running.process import LoadedModel, decoders_of, judge_at, load_stored
from flows.running.progress import tick
from flows.running.workers.devices import device_name
from flows.steps.images import load_images, moved_urls
from flows.steps.judging.checking import asked_layers
from flows.steps.reading.labels import IGNORED, Labels
from flows.steps.vocabulary import read_broader, read_vocabulary
from stores import Naming, Statistics, open_atlas, open_statistics
from stores.arrays.provenance import JSON, fingerprint
from stores.errors import SchemaMismatch
from stores.files import read_bytes, safe_url
from stores.shards.labels import NO_LABEL, folded
from vital.errors import UnsuitableInput
from vital.judging.judges import CLIP, SCALE, Judge
from vital.judging.words.naming import NO_WORD, WordScores, choosing, name_neurons

ALGORITHM = 3
"""Raised when the same words, images and peaks would give other names."""
TOGETHER = 32
"""Images that a judge looks at together."""


@dataclass(frozen=True, eq=False)
class Scored:
    """How much each word is in each of some images of the data set, and what says so."""

    image: Int64[np.ndarray, "image"]
    words: WordScores
    made_from: Mapping[str, JSON]


def check_names(job: NamesJob) -> dict[str, int]:
    """How many neurons each asked layer has. Whatever names need is asked for here, before any work.

    Raises:
        SchemaMismatch: the atlas has no such layer, or its statistics keep no sample of images.
        UnsuitableInput: the vocabulary is none, or takes another judge; the data set has no labels.
        UnknownModel: there is no such judge.
    """
    atlas = open_atlas(job.atlas)
    layers, statistics = asked_layers(atlas, job.layers), atlas.statistics(job.store)
    samples = [statistics.sample(layer) for layer in layers]
    if not samples:
        raise SchemaMismatch(f"{safe_url(job.atlas)} has no layer yet: `vital info` says how far it is")
    if job.vocabulary != CLASS_WORDS:
        read_vocabulary(job.vocabulary)  # what is wrong with the file comes before who could judge by it
    if job.judge is None:
        words = _of_labels(job, statistics, samples[0].image).words.words
    else:
        words = _judge(job, load_stored(statistics, job.running.of_flow))[1]
    if job.broader is not None:
        read_broader(job.broader, words, _classes(job, statistics, words))
    return {layer: atlas.layer(layer).count for layer in layers}


def find_names(job: NamesJob, layer: str) -> None:
    """Find the words of a layer's neurons and write them beside the pictures."""
    atlas = open_atlas(job.atlas)
    statistics = atlas.statistics(job.store)
    sample = statistics.sample(layer)
    unnamed = job.model_copy(update={"atlas": "", "layers": ()})
    made_of = (*statistics.provenance.values(), *(_digest(url) for url in (job.vocabulary, job.broader)))
    scored = _word_scores(unnamed, statistics.url, made_of, tuple(sample.image.tolist()))
    chooses = choosing(statistics.keys(scored.image.tolist()))
    device = torch.device(device_name(job.running.device))
    names = name_neurons(
        sample.peaks_on(scored.image).astype(np.float32),
        scored.words.scores,
        chooses,
        ranks=job.words,
        shuffles=job.shuffles,
        quantile=job.quantile,
        device=device,
    )
    words = np.array([*scored.words.words, ""], np.dtypes.StringDType())  # the last is that of none
    assert NO_WORD == -1
    made_from: dict[str, JSON] = {
        **scored.made_from,
        "words": len(scored.words.words),
        "words_digest": fingerprint({"words": list(scored.words.words)}),
        "images_that_chose": int(chooses.sum()),
        "images_that_scored": int((~chooses).sum()),
        "shuffles": job.shuffles,
        "quantile": job.quantile,
        "algorithm": ALGORITHM,
        **statistics.provenance,
    }
    naming = Naming(
        words[names.word], names.chosen, names.score, names.precision, names.bound, names.precise, names.named,
        scored.image[names.evidence], names.shown, made_from,
    )  # fmt: skip
    open_atlas(job.atlas, "r+").layer(layer).write_naming(naming)
    tick(len(names.word))


@lru_cache(maxsize=2)
def _word_scores(job: NamesJob, store: str, made_of: tuple[str, ...], images: tuple[int, ...]) -> Scored:
    """The same for all layers that have the same sample, so it is kept; ``made_of`` tells apart stores and files of
    words that were made anew."""
    statistics, sampled = open_statistics(store), np.array(images, np.int64)
    scored = _of_labels(job, statistics, sampled) if job.judge is None else _of_judge(job, statistics, sampled)
    if job.broader is None:
        return scored
    words = scored.words
    broader = read_broader(job.broader, words.words, _classes(job, statistics, words.words))
    together = np.add.reduce if job.judge is None else np.logaddexp.reduce  # of logits: that of all classes as one
    sums = [together(words.scores[:, numbers], axis=1) for numbers in broader.values()]
    wide = {folded(word) for word in broader}
    own = [position for position, word in enumerate(words.words) if folded(word) not in wide]  # a word stands once
    joined = WordScores(
        [*(words.words[position] for position in own), *broader],
        np.concatenate([words.scores[:, own], np.stack(sums, 1)], 1),
    )
    digest = fingerprint({word: list(numbers) for word, numbers in broader.items()})
    return Scored(scored.image, joined, {**scored.made_from, "broader": digest})


def _classes(job: NamesJob, statistics: Statistics, words: Sequence[str]) -> Sequence[str]:
    """The classes among which a number in a file of broader words counts: the judge's, else the network's."""
    return words if job.judge is not None else load_stored(statistics, job.running.of_flow).model.class_names


def _digest(url: str | None) -> str:
    content = read_bytes(url) if url not in (None, CLASS_WORDS) else None
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _of_labels(job: NamesJob, statistics: Statistics, images: Int64[np.ndarray, "image"]) -> Scored:
    """1 for images of the class, else 0; images without a label are left out."""
    labelled, labels = _labelled(job, statistics, images)
    present, column = np.unique(labels, return_inverse=True)
    scores = np.zeros((len(labelled), len(present)), np.float32)
    scores[np.arange(len(labelled)), column] = 1
    names = _label_names(job, statistics, present.tolist())
    return Scored(labelled, WordScores(names, scores), {"source": "labels", "vocabulary": CLASS_WORDS})


def _labelled(
    job: NamesJob, statistics: Statistics, images: Int[np.ndarray, "image"]
) -> tuple[Int64[np.ndarray, "labelled"], Int64[np.ndarray, "labelled"]]:
    """Images of the sample that have a label, and the labels."""
    if job.vocabulary != CLASS_WORDS:
        raise UnsuitableInput(
            f"the words of {safe_url(job.vocabulary)} need a network that finds them in images: give a CLIP model with "
            f"--judge {CLIP}ARCHITECTURE/FILE, or --vocabulary {CLASS_WORDS}"
        )
    kept = Labels.kept(statistics)
    labels = statistics.image_labels()[images].astype(np.int64)
    there = (labels != NO_LABEL) & (kept is None or kept.by != IGNORED)
    if not there.any():
        raise UnsuitableInput(
            f"none of {len(images)} images of the sample has a label that could be a name: give a network that "
            "classifies with --judge, such as efficientnet_lite2"
        )
    return images[there].astype(np.int64), labels[there]


def _label_names(job: NamesJob, statistics: Statistics, labels: Sequence[int]) -> list[str]:
    """What the data set calls its classes, or else the network; by number where neither does."""
    kept = Labels.kept(statistics)
    own = dict(enumerate(kept.classes)) if kept is not None else {}
    if all(own.get(label) for label in labels):
        return [own[label] for label in labels]
    network = load_stored(statistics, job.running.of_flow).model.class_names
    numbers = {label: kept.of_network(label, len(network))[0] if kept is not None else label for label in labels}
    return [
        own.get(label) or (network[numbers[label]] if 0 <= numbers[label] < len(network) else f"class {label}")
        for label in labels
    ]


def _of_judge(job: NamesJob, statistics: Statistics, images: Int64[np.ndarray, "image"]) -> Scored:
    """A judge's logits of its classes, each image's mean taken off, or CLIP's cosines with the words; on what the
    network saw of the images."""
    network = load_stored(statistics, job.running)
    judge, words = _judge(job, network)
    urls, decoders = moved_urls(statistics, job.shards), decoders_of(job.running, network.device)
    seen = load_images(statistics, images.tolist(), network.model.preprocessing, urls, decoders)
    parts: list[Float32[np.ndarray, "image word"]] = []
    while part := list(islice(seen, TOGETHER)):
        logits = (
            replace(judge, shown_channels=network.model.preprocessing.shown_channels)
            .outputs(torch.stack([pixels for _, pixels in part]).to(judge.device))
            .logits.float()
        )
        # of a network's own classes these find more right ones than probabilities do, which are zero nearly everywhere
        parts.append((logits / SCALE if _of_clip(job) else logits - logits.mean(1, keepdim=True)).numpy(force=True))
    made_from: dict[str, JSON] = {
        "source": f"{'cosines' if _of_clip(job) else 'logits'} of {job.judge}",
        "judge_weights": str(judge.identity.get("weights", "")),
        "vocabulary": CLASS_WORDS if job.vocabulary == CLASS_WORDS else safe_url(job.vocabulary).rpartition("/")[2],
    }
    return Scored(images, WordScores(words, np.concatenate(parts)), made_from)


def _of_clip(job: NamesJob) -> bool:
    return job.judge is not None and job.judge.startswith(CLIP)


def _judge(job: NamesJob, network: LoadedModel) -> tuple[Judge, list[str]]:
    """The judge, and the words whose scores are its logits."""
    assert job.judge is not None
    model = network.model
    if _of_clip(job):
        if job.broader is not None:
            raise UnsuitableInput(
                f"{job.judge} scores broader words as it does others: write them into the vocabulary, and leave "
                "--broader out"
            )
        words = list(model.class_names) if job.vocabulary == CLASS_WORDS else read_vocabulary(job.vocabulary)
        return judge_at(job.judge, words, job.running, job.download), words
    if job.vocabulary != CLASS_WORDS:
        raise UnsuitableInput(
            f"{job.judge} knows its own classes alone and not the words of {safe_url(job.vocabulary)}: give a CLIP "
            f"model with --judge {CLIP}ARCHITECTURE/FILE, or --vocabulary {CLASS_WORDS}"
        )
    judge = judge_at(job.judge, model.class_names, job.running, job.download)
    known = judge.class_names or model.class_names
    if len(known) != judge.classes:
        raise UnsuitableInput(
            f"{job.judge} tells {judge.classes} classes apart and has names for {len(known)}: name a judge that knows "
            "what its classes are called"
        )
    return judge, list(known)
