"""Which file of a sample is its image and its label, in the forms that tars have them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.errors import Status
from stores.shards.finding import ShardFile
from stores.shards.labels import LabelRule, likely_keys
from stores.shards.reading import ShardReader, ShardSample, first_fields, read_images
from stores.shards.tar import TarMember

Tar = Callable[..., Path]
Jpeg = Callable[..., bytes]


def read(path: Path, rule: LabelRule | None = None) -> list[ShardSample]:
    return list(ShardReader(ShardFile(path.name, str(path), path.stat().st_size), rule or LabelRule()))


@pytest.mark.parametrize(
    ("written", "label", "valid"),
    [
        (b"3\n", 3, True),
        (b"3.0", 3, True),
        (b"\xef\xbb\xbf3", 3, True),
        ("3".encode("utf-16"), 3, True),
        (b"03", 3, True),
        (b"-1", -1, True),
        (b"3.5", -1, False),
        (b"-4", -1, False),
        (b"99999999999", -1, False),
        (b"", -1, False),
        (b"Great_White shark", 2, True),
        (b"a cat", -1, False),
    ],
)
def test_a_label_is_a_number_in_any_form_or_a_known_word(written: bytes, label: int, valid: bool) -> None:
    rule = LabelRule(numbers={"great white shark": 2})
    assert rule.label({"cls": TarMember(0, len(written), written)}) == (label, valid)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_label_or_not_one(data: bytes) -> None:
    label, valid = LabelRule().label({"cls": TarMember(0, len(data), data)})
    assert valid or label == -1
    assert -1 <= label < 2**31


@pytest.mark.parametrize(
    ("key", "fields", "label"),
    [
        ("label", {"json": json.dumps({"label": 4, "filename": "n01.JPEG"})}, 4),
        ("a.class", {"json": json.dumps({"a": {"class": 5.0}})}, 5),
        ("a.class", {"json": json.dumps({"a.class": "6"})}, 6),
        ("txt", {"txt": "7\n", "json": "{}"}, 7),
        ("output.cls", {"output.cls": "8", "cls": "9"}, 8),
        ("cls", {"output.cls": "8"}, 8),
        ("label", {"json": "{}"}, -1),
        ("label.0", {"json": json.dumps({"label": [7, 9]})}, 7),
        ("label", {"json": json.dumps({"label": True})}, 1),
        ("index", {"index": "3", "cls": "4"}, 3),
    ],
)
def test_a_key_is_an_ending_or_stands_in_the_json(key: str, fields: dict[str, str], label: int) -> None:
    members = {name: TarMember(0, len(text), text.encode()) for name, text in fields.items()}
    assert LabelRule(key, {"false": 0, "true": 1}).label(members) == (label, True)


def test_labels_of_json_and_text_are_read_from_tars(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "a.json": b'{"label": 3}', "b.jpg": jpeg(), "b.json": b"{broken"})
    assert [(s.label, s.status) for s in read(path)] == [(-1, Status.OK)] * 2
    assert [(s.label, s.status) for s in read(path, LabelRule("label"))] == [(3, Status.OK), (-1, Status.WRONG_LABEL)]
    assert [s.label for s in read(path, LabelRule(""))] == [-1, -1]
    assert likely_keys(first_fields(ShardFile("a.tar", str(path), 0), 9)) == ["label"]


def test_where_labels_may_stand_is_seen_in_the_first_samples(tar: Tar, jpeg: Jpeg) -> None:
    def keys(files: dict[str, bytes]) -> list[str]:
        return likely_keys(first_fields(ShardFile("a.tar", str(tar("a.tar", files)), 0), 9))

    assert keys({"a.jpg": jpeg(), "a.txt": b"3"}) == ["txt"]
    assert keys({"a.jpg": jpeg(), "a.txt": b"a caption", "a.json": b'{"caption": "a", "status": "ok"}'}) == []
    assert keys({"a.jpg": jpeg(), "a.json": b'{"ann": {"label": 3, "w": 1}, "size": 4}'}) == ["ann.label"]
    assert keys({"a.jpg": jpeg(), "a.json": b'{"class_id": 1}', "a.cls": b"1"}) == []


def test_named_fields_are_read_and_masks_are_not(tar: Tar, jpeg: Jpeg) -> None:
    files = {
        "a.input.jpg": jpeg(1), "a.output.cls": b"1",  # webdataset's own documentation
        "b.target.png": b"mask", "b.input.JPG": jpeg(2),
        "c.seg.png": b"mask", "c.jpg": jpeg(3),
        "d.left.jpg": jpeg(4), "d.right.jpg": jpeg(5),
        "e.0.5.jpg": jpeg(6), "e.0.5.cls": b"2",
    }  # fmt: skip
    samples = read(tar("a.tar", files))
    assert [s.status for s in samples] == [Status.OK] * 3 + [Status.SEVERAL_IMAGES, Status.OK]
    assert [s.image for s in samples] == [jpeg(1), jpeg(2), jpeg(3), None, jpeg(6)]
    assert [s.label for s in samples] == [1, -1, -1, -1, 2]


def test_labels_apart_from_their_images_are_joined_or_counted(tar: Tar, jpeg: Jpeg) -> None:
    images = {f"{name}.jpg": jpeg() for name in "ab"}
    labels = {f"{name}.cls": b"1" for name in "ab"}
    before, after = read(tar("before.tar", labels | images)), read(tar("after.tar", images | labels))
    assert [(s.label, s.status) for s in before[2:]] == [(1, Status.OK)] * 2
    assert [(s.label, s.status) for s in after] == [(-1, Status.OK)] * 2 + [(1, Status.APART)] * 2


def test_links_and_sparse_files_are_counted_and_never_read(tmp_path: Path, jpeg: Jpeg) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/annex/0.jpg"
            archive.addfile(info)
        # as GNU tar --sparse writes: 512 of 10,240 bytes, and where they lie
        info = tarfile.TarInfo("2.jpg")
        info.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": "10240", "GNU.sparse.major": "0"}
        info.size = 512
        import io

        archive.addfile(info, io.BytesIO(b"x" * 512))
    samples = read(path)
    assert [(s.key, s.status, s.image) for s in samples] == [(str(n), Status.LINK, None) for n in range(3)]


def test_a_tar_of_names_without_endings_says_so(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"img0": jpeg(), "img1": jpeg()})
    reader = ShardReader(ShardFile("a.tar", str(path), 0))
    assert list(reader) == []
    assert reader.summary.short is not None
    assert "none of its 2 files has a name with an ending" in reader.summary.short


def test_a_manifest_may_count_files(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "a.cls": b"1", "b.jpg": jpeg(), "b.cls": b"1"})
    for stated, whole in ((2, True), (4, True), (3, False)):
        reader = ShardReader(ShardFile("a.tar", str(path), 0, stated=stated))
        samples = list(reader)
        assert (reader.summary.short is None) is whole
    assert read_images(str(path), [(s.offset, s.size) for s in samples]) == [s.image for s in samples]


def test_hidden_files_of_a_tar_are_no_samples(tmp_path: Path) -> None:
    """macOS's tar keeps one beside each file, zip's folder of them is packed along, and webdataset keeps what it knows
    of a sample where it is asked to."""
    names = [
        "d/a.__key__",
        "d/a.__url__",
        "._a.jpg",
        "d/._a.jpg",
        "__MACOSX/d/._a.jpg",
        "d/.DS_Store.jpg",
        "d/a.jpg",
        "./d/b.jpg",
    ]
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    reader = ShardReader(ShardFile("a.tar", str(shard), shard.stat().st_size))
    assert [sample.key for sample in reader] == ["d/a", "./d/b"]
    assert reader.summary.short is None
