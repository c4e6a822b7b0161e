"""Folders of images as people have them: numbered, followed, counted; read without packing as they are when packed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stores.errors import MissingShard, UnreachableStore, UnreadableShard, UnsuitableFolder
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile, class_names_of, expand
from stores.shards.folders import survey
from stores.shards.reading import ShardReader, ShardSample, read_images
from stores.shards.writing import pack

Jpeg = Callable[..., bytes]


def fill(folder: Path, names: dict[str, bytes]) -> Path:
    for name, data in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def samples_of(shards: list[ShardFile]) -> list[ShardSample]:
    return [sample for shard in shards for sample in ShardReader(shard)]


def test_folders_of_numbers_keep_their_numbers(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "v2", {f"{number}/a.jpg": jpeg(number) for number in (0, 2, 10, 11)})
    pack(folder, tmp_path / "out")
    packed = {decode(s.image or b"")[0, 0, 0]: s.label for s in samples_of(expand([str(tmp_path / "out")]))}
    read = {decode(s.image or b"")[0, 0, 0]: s.label for s in samples_of(expand([str(folder)]))}
    assert packed == read
    assert sorted(packed.values()) == [0, 2, 10, 11]
    assert all(abs(int(colour) - label) <= 2 for colour, label in packed.items())
    names = json.loads((tmp_path / "out/classes.json").read_text())
    assert names == class_names_of(expand([str(folder)])) == ["0", "", "2", *[""] * 7, "10", "11"]


def test_dates_are_no_class_numbers(tmp_path: Path, jpeg: Jpeg) -> None:
    found = survey(fill(tmp_path / "d", {"20240101/a.jpg": jpeg(), "20231231/a.jpg": jpeg()}))
    assert (found.classes, found.by_number) == (("20231231", "20240101"), False)
    with pytest.raises(UnsuitableFolder, match="two folders of one number"):
        survey(fill(tmp_path / "e", {"1/a.jpg": jpeg(), "01/a.jpg": jpeg()}))


def test_links_are_followed_and_what_is_left_out_is_counted(tmp_path: Path, jpeg: Jpeg) -> None:
    store = fill(tmp_path / "store", {f"{number}.jpg": jpeg() for number in range(3)})
    folder = fill(
        tmp_path / "links", {"cat/own.jpg": jpeg(), "cat/._own.jpg": b"x", "dog/a.txt": b"x", ".DS_Store": b""}
    )
    fill(folder, {"__MACOSX/cat/._own.jpg": b"x", ".ipynb_checkpoints/a.jpg": jpeg()})
    (folder / "cat/more").symlink_to(store)
    (folder / "emu").symlink_to(store)
    (folder / "dog/one.jpg").symlink_to(store / "1.jpg")
    (folder / "dog/broken.jpg").symlink_to("/nonexistent/x.jpg")
    (folder / "cat/again").symlink_to(folder / "cat")
    found = survey(folder)
    assert found.classes == ("cat", "dog", "emu")
    assert [label for _, label in found.images] == [0] * 4 + [1] + [2] * 3
    assert dict(found.left_out) == {
        "hidden": 3,
        "left by other programs": 1,
        "no images by their ending (.txt)": 1,
        "broken links": 1,
        "links to a folder above": 1,
    }
    first, second = found.lines()
    assert first == "8 images, 3 classes, numbered in the order of their names"
    assert "1 broken links" in second


def test_a_link_to_what_holds_the_classes_puts_no_image_into_another_class(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "up", {"cat/a.jpg": jpeg(10), "dog/b.jpg": jpeg(200)})
    (folder / "cat/data").symlink_to("..")
    pack(folder, tmp_path / "out")
    for shards in (expand([str(folder)]), expand([str(tmp_path / "out")])):
        assert [(sample.key[-1], sample.label) for sample in samples_of(shards)] == [("a", 0), ("b", 1)]


def test_names_that_are_not_utf_8_are_counted_and_those_of_classes_refused(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "old", {"cat/a.jpg": jpeg(), "dog/b.jpg": jpeg()})
    try:
        (folder / os.fsdecode(b"dog/na\xefve.jpg")).write_bytes(jpeg())
    except OSError:
        pytest.skip("this file system has no such names")
    found = survey(folder)
    assert len(found.images) == 2
    assert dict(found.left_out) == {"with names that are not UTF-8": 1}
    assert len(pack(folder, tmp_path / "out")) == 1
    assert len(samples_of(expand([str(folder)]))) == 2
    (folder / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(UnsuitableFolder, match=r"not UTF-8, 'caf\\udce9': rename it"):
        survey(folder)


def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "set", {f"{part}/{name}/0.jpg": jpeg() for part in ("train", "val") for name in "ab"})
    with pytest.raises(UnsuitableFolder, match=r"parts of a data set.*give .*train"):
        survey(folder)
    assert survey(fill(tmp_path / "modes", {"train/0.jpg": jpeg(), "test/0.jpg": jpeg()})).classes == ("test", "train")


def test_a_folder_is_read_as_it_is_when_packed(tmp_path: Path, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.shards.finding.PER_PART", 2)
    folder = fill(tmp_path / "photos", {f"{name}/{n}.jpg": jpeg(20 * n) for name in ("b", "a c") for n in range(3)})
    pack(folder, tmp_path / "out")
    packed, shards = samples_of(expand([str(tmp_path / "out")])), expand([str(folder)])
    assert [(shard.name, shard.part, shard.label) for shard in shards] == [
        ("a c-000000", (0, 2), 0), ("a c-000001", (2, 3), 0), ("b-000000", (0, 2), 1), ("b-000001", (2, 3), 1),
    ]  # fmt: skip
    read = samples_of(shards)
    assert [(s.label, s.image) for s in read] == [(s.label, s.image) for s in packed]
    assert [s.key for s in read] == [f"{name}/{n}" for name in ("a c", "b") for n in range(3)]
    for shard in shards:
        inside = list(ShardReader(shard))
        spans = [(s.offset, s.size) for s in reversed(inside)]
        assert read_images(shard.url, spans) == [s.image for s in reversed(inside)]


def test_an_image_that_is_taken_away_while_a_pass_reads_its_folder_is_told(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "photos", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    [shard] = expand([str(folder)])
    reading = iter(ShardReader(shard))
    next(reading)
    (folder / "b.jpg").unlink()
    with pytest.raises(UnreachableStore, match=r"b\.jpg cannot be read .*run the same command again"):
        next(reading)


def test_another_image_under_the_same_name_is_refused(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "photos", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    [shard] = expand([str(folder)])
    reader = ShardReader(shard)
    first, _ = reader
    (folder / "a.jpg").write_bytes(jpeg(3, 40, 40))
    with pytest.raises(UnreadableShard, match="other images than when it was read first"):
        read_images(shard.url, [(first.offset, first.size)])
    known = ShardFile(shard.name, shard.url, shard.size, reader.summary.digest, part=shard.part)
    with pytest.raises(UnreadableShard, match="other bytes"):
        list(ShardReader(known))
    (folder / "b.jpg").unlink()
    reader = ShardReader(shard)
    assert len(list(reader)) == 1
    assert reader.summary.short == "its folder holds 1 of 2 images that were listed"


def test_tars_in_a_folder_come_before_images(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "set", {"cat/0.jpg": jpeg()})
    pack(folder, tmp_path / "out")
    tar = (tmp_path / "out/set-000000.tar").read_bytes()
    fill(tmp_path / "mixed", {"S-000000.TAR": tar, "preview.jpg": jpeg(), "s-000000.parquet": b"PAR1"})
    assert [shard.name for shard in expand([str(tmp_path / "mixed")])] == ["S-000000.TAR"]
    fill(tmp_path / "deep", {"train/a.tar": tar})
    with pytest.raises(MissingShard, match=r"in folders below: give .*train"):
        expand([str(tmp_path / "deep")])
    fill(tmp_path / "mixed", {"s-000001.tar.gz": b"\x1f\x8b"})
    with pytest.raises(UnreadableShard, match=r"s-000001.tar.gz in .* is compressed"):
        expand([str(tmp_path / "mixed")])


@pytest.mark.parametrize("name", ["s.tzst", "s.tbz", "S.TAR.GZ", "s.tar.lz", "s.tar.br", "train.zip", "s.gz", "train"])
def test_a_compressed_file_is_the_cause_wherever_it_lies(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "set", {name: b"\x1f\x8b"})
    for given in (tmp_path / "set", *([tmp_path / "set" / name] if "." in name else ())):
        with pytest.raises(UnreadableShard, match=f"^{name}.* is compressed, but"):
            expand([str(given)])


def test_images_that_pillow_reads_are_taken(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    (tmp_path / "p").mkdir()
    for ending in ("tif", "tiff", "jp2", "png", "bmp", "ppm"):
        Image.fromarray(pixels).save(tmp_path / f"p/{ending}.{ending}")
    read = samples_of(expand([str(tmp_path / "p")]))
    assert len(read) == 6
    for sample in read:
        np.testing.assert_array_equal(decode(sample.image or b""), pixels, sample.key)
