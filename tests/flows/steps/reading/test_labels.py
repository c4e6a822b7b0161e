"""Labels: settled before the pass, kept in the store, the same for every run after it."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.jobs import ReferencesJob, Running
from flows.recipes.references import select_references
from flows.running.process import load
from flows.steps.images import moved_urls
from flows.steps.reading.labels import Labels, network_names, settle_labels
from stores import open_statistics
from stores.errors import ForeignStore, Status, UnreadableShard
from stores.shards.finding import expand
from stores.shards.reading import read_images
from stores.shards.writing import pack
from tests.flows import tiny
from vital.errors import UnsuitableInput
from vital.settings import ModelSettings, StatisticsSettings

MODEL = ModelSettings(name="tests.flows.tiny:ten_classes", input_size=tiny.SIDE)
THOUSAND = ModelSettings(name="tests.flows.tiny:thousand_classes", input_size=tiny.SIDE)


def photos(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.jpg").write_bytes(tiny.jpeg(number))
    return folder


def job(shards: Path, store: Path, **changes: object) -> ReferencesJob:
    usual = {"layers": ("classes",), "model": MODEL, "statistics": StatisticsSettings(references=2, levels=8)}
    return ReferencesJob(shards=(str(shards),), store=str(store), **{**usual, **changes})


def settled(asked: ReferencesJob) -> Labels:
    return settle_labels(asked, expand(asked.shards), load(asked.model, Running()))


def test_folders_of_imagenet_s_classes_are_found_in_a_thousand(tmp_path: Path) -> None:
    """Of a network without names: ids have one order."""
    folder = photos(tmp_path / "p", "n01440764", "n02102040", "n03888257")
    found = settled(job(folder, tmp_path / "s", model=THOUSAND))
    assert found == Labels("cls", ("n01440764", "n02102040", "n03888257"), (0, 217, 701), "WordNet id")
    assert found.of_network(1, 1000) == (217, Status.OK)
    assert found.of_network(3, 1000) == (-1, Status.FOREIGN_LABEL)
    assert found.of_network(-1, 1000) == (-1, Status.OK)


def test_what_cannot_be_known_is_refused_only_where_it_matters(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "cat", "dog")
    with pytest.raises(UnsuitableInput, match=r"2 classes, such as 'cat'.*--labels map\.json.*--labels number"):
        settled(job(folder, tmp_path / "s"))
    with pytest.raises(UnsuitableInput):
        select_references(job(folder, tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    assert settled(job(folder, tmp_path / "s", layers=("0",))).by == "nothing"
    assert settled(job(folder, tmp_path / "s", labels="number")).of_network(1, 10) == (1, Status.OK)
    assert settled(job(folder, tmp_path / "s", labels="ignore")).of_network(1, 10) == (-1, Status.OK)


def test_labels_are_no_features_of_a_network_without_a_classifier(tmp_path: Path) -> None:
    folder, loaded = photos(tmp_path / "p", "0", "1"), load(MODEL, Running())
    bare = replace(loaded, model=replace(loaded.model, classifies=False))
    asked = job(folder, tmp_path / "s")
    with pytest.raises(UnsuitableInput, match=r"no classifier: its 10 outputs are features.*--labels number"):
        settle_labels(asked, expand(asked.shards), bare)
    for more in (job(folder, tmp_path / "s", layers=("0",)), job(folder, tmp_path / "s", labels="number")):
        assert settle_labels(more, expand(more.shards), bare).of_network(1, 10) == (1, Status.OK)


def test_a_map_says_which_class_is_which(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "cat", "dog", "ewe")
    file = tmp_path / "map.json"

    def mapped(content: object) -> Labels:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return settled(job(folder, tmp_path / "s", labels=str(file)))

    assert mapped({"dog": 7, "Cat": "3", "ewe": None}).numbers == (3, 7, -1)
    assert mapped([9, 8, 7]).numbers == (9, 8, 7)
    assert mapped({"1": 4}).numbers == (-1, 4, -1)
    for wrong, words in (
        ({"cow": 1}, "'cow'"),
        ({"9999999": 1}, "'9999999'"),
        ({"cat": "lion"}, "'lion'"),
        ("{", "no map"),
        ({"cat": 10}, "0 to 9"),
        ({}, "names no class"),
        ('{"cat": 1, "cat": 2}', "'cat' stands twice"),
        ({"cat": 1, "0": 2}, "stands twice"),
    ):
        with pytest.raises(UnreadableShard, match=words):
            mapped(wrong)


def test_labels_that_stand_elsewhere_are_refused_with_their_key(tmp_path: Path) -> None:
    members = {"a.jpg": tiny.jpeg(1), "a.json": b'{"label": 3, "caption": "a"}'}
    shard = tiny.write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UnreadableShard, match=r"no \.cls file.*--label-key label.*--labels ignore"):
        settled(job(shard, tmp_path / "s"))
    with pytest.raises(UnreadableShard, match=r"no class under 'lable'.*--label-key label or --label-key caption"):
        settled(job(shard, tmp_path / "s", label_key="lable"))
    with pytest.raises(UnreadableShard, match=r"under 'caption' neither the number nor the name of one.*classes\.json"):
        settled(job(shard, tmp_path / "s", label_key="caption"))
    assert settled(job(shard, tmp_path / "s", labels="ignore")).by == "nothing, as asked"
    assert settled(job(shard, tmp_path / "s", label_key="label")).key == "label"
    select_references(job(shard, tmp_path / "s", label_key="label"))
    statistics = open_statistics(str(tmp_path / "s"))
    assert statistics.index().label.tolist() == [3]
    assert statistics.references("classes").image[3, 0] == 0
    assert "matched by number of label" in "\n".join(statistics.summary())


def test_a_summary_says_how_many_images_have_no_label(tmp_path: Path) -> None:
    shard = tiny.write_tar(tmp_path / "a.tar", {"a.jpg": tiny.jpeg(1), "a.json": b'{"label": 3}'})
    labelled = {"c.jpg": tiny.jpeg(3), "c.cls": b"3"}
    some = tiny.write_tar(tmp_path / "b.tar", {"b.jpg": tiny.jpeg(2), "d.jpg": b"none"} | labelled)

    def said(shard: Path) -> str:
        select_references(job(shard, tmp_path / shard.stem, layers=("0",)))
        return "\n".join(open_statistics(str(tmp_path / shard.stem)).summary())

    assert "labels: no image has one under 'cls'; where others count, start a new store with --label-key" in said(shard)
    assert "labels: matched by number, and 1 of 2 images have none\n" in said(some)


def test_keys_that_name_other_classes_than_the_labels_are_refused(tmp_path: Path) -> None:
    """Three of ImageNet's classes, numbered 0 to 2 by somebody else's tool, without a list."""
    members = {"n01440764_1.jpg": tiny.jpeg(1), "n01440764_1.cls": b"0"}
    right = tiny.write_tar(tmp_path / "a.tar", members | {"x/n02102040_7.jpg": b"", "x/n02102040_7.cls": b"217"})
    wrong = tiny.write_tar(tmp_path / "b.tar", members | {"x/n02102040_7.jpg": b"", "x/n02102040_7.cls": b"1"})
    assert settled(job(right, tmp_path / "s", model=THOUSAND)).by == "number"
    with pytest.raises(UnreadableShard, match=r"n02102040_7 in b.tar has label 1, but its key names class 217"):
        settled(job(wrong, tmp_path / "s", model=THOUSAND))
    first = tiny.write_tar(tmp_path / "sorted/0.tar", members).parent
    shutil.copy(wrong, first / "1.tar")
    with pytest.raises(UnreadableShard, match=r"in 1\.tar has label 1"):
        settled(job(first, tmp_path / "s", model=THOUSAND))
    assert settled(job(wrong, tmp_path / "s", model=THOUSAND, labels="number")).by == "number"
    assert settled(job(wrong, tmp_path / "s")).by == "number"  # ten classes are not ImageNet's


@pytest.mark.slow
def test_the_store_keeps_how_and_refuses_another_way(tmp_path: Path) -> None:
    folder, store, file = photos(tmp_path / "p", "b", "a"), tmp_path / "s", tmp_path / "map.json"
    file.write_text(json.dumps({"a": 4, "b": 6}))
    select_references(job(folder, store, layers=("0",)))  # classes are not asked for, so nothing need be known
    assert open_statistics(str(store)).labels["by"] == "nothing"
    select_references(job(folder, store, labels=str(file)))
    statistics = open_statistics(str(store))
    images = statistics.references("classes").image[:, 0]
    assert np.flatnonzero(images >= 0).tolist() == [4, 6]
    assert [statistics.keys([int(images[one])])[0] for one in (4, 6)] == ["a/a", "b/a"]
    assert network_names(statistics) == {4: "a", 6: "b"}
    assert "2 of 2 classes are the network's, matched by map: a is class 4, b is class 6" in "\n".join(
        statistics.summary()
    )
    select_references(job(folder, store))  # as the store has it
    pack(folder, tmp_path / "shards")
    (tmp_path / "shards/classes.json").unlink()
    assert settled(job(tmp_path / "shards", store)) == Labels("cls", ("a", "b"), (4, 6), "map")
    with pytest.raises(ForeignStore, match="labels field by = map but now it is number"):
        select_references(job(folder, store, labels="number"))


def test_words_are_labels_where_the_network_has_them(tmp_path: Path) -> None:
    members = {"a.jpg": tiny.jpeg(1), "a.txt": b"n02102040\n", "b.jpg": tiny.jpeg(2), "b.txt": b"no class"}
    shard = tiny.write_tar(tmp_path / "a.tar", members)
    select_references(job(shard, tmp_path / "s", model=THOUSAND, label_key="txt"))
    statistics = open_statistics(str(tmp_path / "s"))
    assert statistics.index().label.tolist() == [217, -1]
    assert statistics.index().status.tolist() == [Status.OK, Status.WRONG_LABEL]


@pytest.mark.parametrize("content", [b"tabby", b"\3\0\0\0", b"[1, 2]"])
@pytest.mark.parametrize("layer", ["0", "classes"])
def test_files_that_hold_no_class_are_refused_before_the_pass(tmp_path: Path, content: bytes, layer: str) -> None:
    members = {"a.jpg": tiny.jpeg(1), "a.cls": content, "b.jpg": tiny.jpeg(2), "b.cls": content}
    shard = tiny.write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UnreadableShard, match=r"2 samples of a\.tar hold no class.*classes\.json.*--labels ignore"):
        settled(job(shard, tmp_path / "s", layers=(layer,)))
    settled(job(shard, tmp_path / "s", layers=(layer,), labels="ignore"))


@pytest.mark.slow
def test_a_folder_of_images_gives_what_its_shards_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.shards.finding.PER_PART", 3)
    folder = tmp_path / "photos"
    for number in range(10):
        image = folder / str(number % 2) / f"{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(tiny.jpeg(number))
    pack(folder, tmp_path / "shards")
    for name in ("photos", "shards"):
        select_references(job(tmp_path / name, tmp_path / f"{name}.zarr", layers=("0",)))
    read, packed = (open_statistics(str(tmp_path / f"{name}.zarr")) for name in ("photos", "shards"))
    np.testing.assert_array_equal(read.references("0").image, packed.references("0").image)
    np.testing.assert_allclose(read.references("0").score, packed.references("0").score, rtol=1e-5)
    assert read.index().label.tolist() == packed.index().label.tolist()
    assert read.index().checksum.tolist() == packed.index().checksum.tolist()
    shutil.move(folder, tmp_path / "moved")
    urls, index, table = moved_urls(read, [str(tmp_path / "moved")]), read.index(), read.shards()
    for row in range(10):
        url = urls[str(table.name[index.shard[row]])]
        [data] = read_images(url, [(int(index.offset[row]), int(index.size[row]))])
        assert zlib.crc32(data) == index.checksum[row]


@pytest.mark.parametrize(("good", "bad", "fine"), [(1, 1, True), (1, 2, False), (0, 2, False), (0, 0, False)])
def test_a_pass_over_few_usable_images_fails_and_keeps_them(tmp_path: Path, good: int, bad: int, fine: bool) -> None:
    members = {f"g{number}.jpg": tiny.jpeg(number) for number in range(good)}
    members |= {f"b{number}.txt": b"no image" for number in range(bad)}
    asked = job(tiny.write_tar(tmp_path / "a.tar", members), tmp_path / "s", layers=("0",))
    if fine:
        select_references(asked)
    else:
        with pytest.raises(UnreadableShard, match=f"{good} of {good + bad} images could be used.*--allow-rejected"):
            select_references(asked)
        select_references(asked.model_copy(update={"allow_rejected": 1.0}))
    assert len(open_statistics(str(tmp_path / "s")).index()) == good + bad


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ((1, 4, 10), "are 1 to 10, and the network's classes 0 to 9.*--labels number"),
        ((12, 2000), "are 12 to 2000, and none is one of the network's classes, 0 to 9: .*--labels map"),
        (range(11), ""),
        (range(1, 10), ""),
    ],
)
def test_labels_of_another_numbering_are_refused(tmp_path: Path, labels: Sequence[int], told: str) -> None:
    """Of a network of ten classes, also where some have no image."""
    members: dict[str, bytes] = {}
    for label in labels:
        members |= {f"{label:02d}.cls": str(label).encode(), f"{label:02d}.jpg": tiny.jpeg(label)}
    asked = job(tiny.write_tar(tmp_path / "a.tar", members), tmp_path / "s")
    if told:
        with pytest.raises(UnreadableShard, match=told):
            select_references(asked)
        asked = asked.model_copy(update={"labels": "number"})
    select_references(asked)
    assert open_statistics(str(tmp_path / "s")).image_labels().tolist() == [*labels]


def test_a_pass_for_classes_alone_over_images_without_labels_fails(tmp_path: Path) -> None:
    shard = tiny.write_tar(tmp_path / "a.tar", {"a.jpg": tiny.jpeg(0), "b.jpg": tiny.jpeg(1)})
    with pytest.raises(UnreadableShard, match=r"none of 2 images has a label.*--label-key.*--layer"):
        select_references(job(shard, tmp_path / "s"))
    select_references(job(shard, tmp_path / "s", layers=("classes", "0")))
