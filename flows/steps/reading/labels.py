"""Labels of images and classes of the network: where a label stands, and which class it is. Settled before the pass,
kept in the store, and read there by every task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from flows.jobs import ReferencesJob
from flows.running.process import LoadedModel
from stores import Statistics, open_statistics
from stores.errors import MissingShard, MissingStore, SchemaMismatch, Status, UnreadableShard
from stores.files import parsed, read_bytes, safe_url
from stores.shards.beside import MOST_CLASSES, read_class_names
from stores.shards.finding import ShardFile, class_names_of
from stores.shards.labels import (
    IMAGE_EXTENSIONS,
    LABEL_EXTENSION,
    NO_LABEL,
    Fields,
    LabelRule,
    ending,
    folded,
    likely_keys,
)
from stores.shards.reading import ShardReader, first_fields
from vital.errors import UnsuitableInput
from vital.judging.words.classes import match_classes, words
from vital.network.probe import CLASSES

LOOKED_AT = 64
"""Samples in which labels are looked for before the pass."""
UNMATCHED, IGNORED, NUMBER = "nothing", "nothing, as asked", "number"


@dataclass(frozen=True)
class Labels:
    """How the labels of a data set are read (``key``), the names of its ``classes`` by number, the network's class of
    each (−1: none of them), and ``by`` what they were matched. Without names a label is the network's class."""

    key: str
    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    by: str

    @classmethod
    def kept(cls, statistics: Statistics) -> Labels | None:
        """Those of a store; None before its first pass."""
        fields = statistics.labels
        if not fields:
            return None
        return cls(fields["key"], tuple(fields["classes"]), tuple(fields["numbers"]), fields["by"])

    def keep(self, statistics: Statistics) -> None:
        """Into the store; another way of reading them is refused, unless classes were never asked for."""
        before = Labels.kept(statistics)
        statistics.claim_labels(asdict(self), anew=before is not None and before.by == UNMATCHED)

    def rule(self, loaded: LoadedModel) -> LabelRule:
        """How a sample's label is read: a word is one of the data set's classes, or else of the network's."""
        if self.by == IGNORED:
            return LabelRule("")
        if self.classes:
            return LabelRule(self.key, {folded(name): number for number, name in enumerate(self.classes) if name})
        classes = loaded.survey.layers.get(CLASSES)
        return LabelRule(self.key, words(loaded.model.class_names, classes.channels) if classes is not None else {})

    def of_network(self, label: int, classes: int) -> tuple[int, Status]:
        """The network's class of a label, −1 where it is none of its ``classes``, and what that is called."""
        if label == NO_LABEL or self.by in (UNMATCHED, IGNORED):
            return NO_LABEL, Status.OK
        number = label
        if self.numbers:
            number = self.numbers[label] if label < len(self.numbers) else NO_LABEL
        return (number, Status.OK) if 0 <= number < classes else (NO_LABEL, Status.FOREIGN_LABEL)


BY_NUMBER = Labels(LABEL_EXTENSION, (), (), NUMBER)
"""Labels that are the network's classes as they stand."""


def network_names(statistics: Statistics) -> dict[int, str]:
    """What the data set calls the network's classes, by their numbers; empty where it names none."""
    labels = Labels.kept(statistics)
    if labels is None or labels.by in (UNMATCHED, IGNORED):
        return {}
    numbers = labels.numbers or range(len(labels.classes))
    return {number: name for number, name in zip(numbers, labels.classes, strict=False) if number >= 0 and name}


def settle_labels(job: ReferencesJob, shards: Sequence[ShardFile], loaded: LoadedModel) -> Labels:
    """How labels are read and matched in this pass: as the store has it, or as the job asks.

    Raises:
        UnsuitableInput: the data set's classes are not the network's, or it has none, and the classes are asked for.
        UnreadableShard: there are no labels where they should be, but others elsewhere; or the map is none.
    """
    names = tuple(class_names_of(shards) or read_class_names(shard.url for shard in shards))
    kept = _kept(job.store)
    asked = CLASSES in job.layers
    # shards that were moved may have left their list behind
    same = kept is not None and names in ((), kept.classes) and not (asked and kept.by == UNMATCHED)
    if kept is not None and same and job.labels is None:
        key = job.label_key if job.label_key != LABEL_EXTENSION else kept.key
        return Labels(key, kept.classes, kept.numbers, kept.by)
    classes = loaded.survey.layers.get(CLASSES)
    if classes is None or job.labels == "ignore":
        return Labels(job.label_key, names, (), IGNORED if job.labels == "ignore" else UNMATCHED)
    if asked and not loaded.model.classifies and job.labels in (None, "match"):
        raise UnsuitableInput(
            f"{loaded.model.name} has no classifier: its {classes.channels} outputs are features, and no label is one "
            "of them; name other layers with --layer, or give --labels number where the labels are their numbers"
        )
    labels = _matched(job, names, loaded, classes.channels)
    _look(labels, shards[0], loaded, asked)
    if asked and job.labels is None and labels == Labels(job.label_key, (), (), NUMBER):
        # images are often sorted by class, and the first class is 0 in every numbering
        for shard in dict.fromkeys((shards[0], shards[len(shards) // 2], shards[-1])):
            _compare_keys(labels.rule(loaded), shard)
    return labels


def refuse_foreign(statistics: Statistics, job: ReferencesJob, loaded: LoadedModel) -> None:
    """Raise UnreadableShard after a pass whose labels are the network's classes by number alone, where nobody said so
    and they are those of another numbering: all beyond its classes; or the least is 1, and the greatest is one more
    than the last class. Others between may lack."""
    kept = Labels.kept(statistics)
    if CLASSES not in job.layers or job.labels is not None or kept is None or kept.classes or kept.by != NUMBER:
        return
    if not (statistics.image_status() == Status.FOREIGN_LABEL).any():
        return
    classes = loaded.survey.layers[CLASSES].channels
    labels = set(np.unique(statistics.image_labels()).tolist()) - {NO_LABEL}
    if labels and min(labels) >= classes:
        raise UnreadableShard(
            f"the labels are {min(labels)} to {max(labels)}, and none is one of the network's classes, 0 to "
            f"{classes - 1}: say in a new store which is which with --labels map.json, or leave them out with --labels "
            "ignore"
        )
    if labels and (min(labels), max(labels)) == (1, classes):
        raise UnreadableShard(
            f"the labels are 1 to {classes}, and the network's classes 0 to {classes - 1}: list the classes "
            "in a classes.json beside the shards and match them in a new store, or take the labels as they stand with "
            "--labels number"
        )


def refuse_unlabelled(statistics: Statistics, job: ReferencesJob) -> None:
    """Raise UnreadableShard after a pass for classes alone in which no image had a label."""
    if set(job.layers) == {CLASSES} and (statistics.image_labels() == NO_LABEL).all():
        raise UnreadableShard(
            f"none of {statistics.image_count()} images has a label, and a class's references are the images that are "
            "labelled with it: say what says it with --label-key, pack images in a folder a class, or name other "
            "layers with --layer"
        )


def _matched(job: ReferencesJob, names: tuple[str, ...], loaded: LoadedModel, classes: int) -> Labels:
    if job.labels not in (None, "match", "number"):
        assert job.labels is not None
        return _mapped(job.labels, job.label_key, names, loaded, classes)
    if job.labels == "number" or not names:
        return Labels(job.label_key, names, (), NUMBER)
    try:
        matched = match_classes(names, loaded.model.class_names, classes)
    except UnsuitableInput:
        if CLASSES in job.layers:
            raise
        return Labels(job.label_key, names, (), UNMATCHED)
    return Labels(job.label_key, names, matched.numbers, matched.by)


def _mapped(url: str, key: str, names: tuple[str, ...], loaded: LoadedModel, classes: int) -> Labels:
    """By a JSON file: ``{"class of the data set": class of the network}``, each by number or name, null for none."""
    content = read_bytes(url)
    if content is None:
        raise MissingShard(f"there is no map of labels at {safe_url(url)}: give match, number, ignore or a JSON file")
    known = words(loaded.model.class_names, classes)
    own = {folded(name): number for number, name in enumerate(names) if name}
    try:
        table = parsed(content, once=True)
        pairs = list(table.items() if isinstance(table, dict) else enumerate(table))
        mapped = {_number(which, own, "data set"): _number(number, known, "network") for which, number in pairs}
        if len(mapped) < len(pairs):
            raise ValueError("a class of the data set stands twice")
    except (ValueError, TypeError) as error:
        raise UnreadableShard(
            f'{safe_url(url)} is no map of labels ({error}): it should be JSON such as {{"tench": 0}}, with classes of '
            "the data set and of the network by number or name"
        ) from None
    if not mapped:
        raise UnreadableShard(f"{safe_url(url)} names no class: give what is in it, or --labels number or ignore")
    if wrong := [number for number in mapped.values() if number >= classes]:
        raise UnreadableShard(f"{safe_url(url)} names class {wrong[0]} of the network, which has 0 to {classes - 1}")
    count = max(len(names), max(mapped, default=NO_LABEL) + 1)
    return Labels(key, names, tuple(mapped.get(number, NO_LABEL) for number in range(count)), "map")


def _number(value: object, known: Mapping[str, int], whose: str) -> int:
    if value is None:
        return NO_LABEL
    text = str(value).strip()
    if folded(text) in known:
        return known[folded(text)]
    if text.isdecimal() and not isinstance(value, bool) and int(text) <= MOST_CLASSES:
        return int(text)
    raise ValueError(f"{value!r} is no class of the {whose}")


def _look(labels: Labels, shard: ShardFile, loaded: LoadedModel, asked: bool) -> None:
    """Refuse samples without labels whose labels seem to stand elsewhere, or are all no class numbers."""
    samples, rule = first_fields(shard, LOOKED_AT), labels.rule(loaded)
    given, usual = [rule.label(fields) for fields in samples], labels.key == LABEL_EXTENSION
    if not samples or any(number != NO_LABEL for number, _ in given):
        return
    if usual and not any(valid for _, valid in given):  # every image would be left out
        raise UnreadableShard(
            f"the .{LABEL_EXTENSION} files of the first {len(samples)} samples of {shard.name} hold no class of the "
            "network by number or name: list the data set's names in a classes.json beside the shards, or leave labels "
            "out with --labels ignore"
        )
    likely = likely_keys(samples) if usual and asked else []
    if usual and not likely:
        return
    what = f"no .{LABEL_EXTENSION} file" if usual else f"no class under {labels.key!r}"
    keys = likely or _keys(samples)
    if labels.key in keys:
        raise UnreadableShard(
            f"the first {len(samples)} samples of {shard.name} have under {labels.key!r} neither the number nor the "
            "name of one class of the network: list names in a classes.json beside the shards and match them with "
            "--labels map.json, say with --label-key what stands deeper, or leave them out with --labels ignore"
        )
    way_out = f"say what says it with --label-key {' or --label-key '.join(keys)}" if keys else "give others"
    raise UnreadableShard(
        f"the first {len(samples)} samples of {shard.name} have {what}: {way_out}, or leave it out with --labels ignore"
    )


def _keys(samples: Sequence[Fields]) -> list[str]:
    """Endings of the files, and keys of the JSON, of a sample."""
    keys: dict[str, None] = {}
    for name, member in ((name, member) for fields in samples for name, member in fields.items()):
        if name == "json":
            with suppress(ValueError, AttributeError):
                keys |= dict.fromkeys(map(str, parsed(member.data or b"{}")))
        elif ending(name) not in IMAGE_EXTENSIONS:
            keys[name] = None
    return list(keys)[:8]


def _compare_keys(rule: LabelRule, shard: ShardFile) -> None:
    """Refuse numbers that are not the network's where the keys of the samples name its classes by WordNet id."""
    for sample in islice(ShardReader(shard, rule), LOOKED_AT):
        wordnet = re.search(r"(?<![0-9a-z])n\d{8}(?!\d)", sample.key)
        meant = rule.numbers.get(wordnet[0]) if wordnet else None
        if meant is not None and sample.label not in (NO_LABEL, meant):
            raise UnreadableShard(
                f"{sample.key} in {shard.name} has label {sample.label}, but its key names class {meant} of the "
                "network: say which label is which class with --labels map.json, or give --labels number or ignore"
            )


def _kept(store: str) -> Labels | None:
    try:
        return Labels.kept(open_statistics(store))
    except (MissingStore, SchemaMismatch):  # whatever else is wrong there is told when it is claimed
        return None
