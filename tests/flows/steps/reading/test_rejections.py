"""Honest counts: every image is used or rejected with its reason, every short shard is told, and nothing is lost."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores.arrays.opening import open_store
from stores.dataset.index import read_index
from stores.errors import Status
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.conftest import LAYER
from tests.flows.steps.test_inputs import done, refused

pytestmark = pytest.mark.slow

MODEL = ("--model", "tests.flows.tiny:network", "--input-size", tiny.SIDE, "--references", 3, "--levels", 16)


def members(count: int = 6) -> dict[str, bytes]:
    """Ordinary labelled images."""
    content: dict[str, bytes] = {}
    for number in range(count):
        content |= {f"image{number}.jpg": tiny.jpeg(number), f"image{number}.cls": str(number % 3).encode()}
    return content


def large_png() -> bytes:
    """A few hundred bytes that claim 90,000 × 90,000 pixels."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (90_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def references(folder: Path, *more: object) -> Result:
    return vital(
        "references", folder / "shards", "--store", folder / "stats.zarr", "--layer", LAYER, "--layer", "classes",
        *MODEL, *more,
    )  # fmt: skip


def undecodable(content: dict[str, bytes]) -> None:
    content["image2.jpg"] = content["image2.jpg"][:60]


def too_large(content: dict[str, bytes]) -> None:
    content["image2.png"] = large_png()
    del content["image2.jpg"]


def no_image(content: dict[str, bytes]) -> None:
    content["image2.txt"] = content.pop("image2.jpg")


def wrong_label(content: dict[str, bytes]) -> None:
    content["image2.cls"] = b"a cat"


def foreign_label(content: dict[str, bytes]) -> None:
    content["image2.cls"] = b"7"


def ordered(content: dict[str, bytes]) -> dict[str, bytes]:
    """Files of a sample side by side, as webdataset wants them."""
    return dict(sorted(content.items(), key=lambda one: one[0].split(".")[0]))


@pytest.mark.parametrize(
    ("harm", "status", "used", "words"),
    [
        (undecodable, Status.UNDECODABLE, 5, "1 cannot be decoded as an image"),
        (too_large, Status.TOO_LARGE, 5, "1 of more pixels or bytes than the limit"),
        (no_image, Status.NO_IMAGE, 5, "1 without a file with an image extension"),
        (wrong_label, Status.WRONG_LABEL, 5, "1 with a .cls file that is no class number"),
        (foreign_label, Status.FOREIGN_LABEL, 5, "1 read and used, but labelled with no class of the network"),
    ],
    ids=["undecodable", "too large", "no image", "wrong label", "foreign label"],
)
def test_a_rejected_image_is_counted_and_the_others_used(
    tmp_path: Path, harm: Callable[[dict[str, bytes]], None], status: Status, used: int, words: str
) -> None:
    content = members()
    harm(content)
    tiny.write_tar(tmp_path / "shards" / "s-000000.tar", ordered(content))
    said = done(references(tmp_path))
    assert f"images: 6, {used} read and used, {words}" in said
    assert f"images: 6, {used} read and used, {words}" in done(vital("info", tmp_path / "stats.zarr"))
    index = read_index(open_store(str(tmp_path / "stats.zarr"), "statistics", "r"))
    assert np.flatnonzero(index.status != Status.OK).tolist() == [2]
    assert index.status[2] == status


def test_a_duplicate_key_is_counted_once_more_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "s-000000.tar", "w") as tar:
        for name in ("a", "b", "a", "c"):
            info = tarfile.TarInfo(f"{name}.jpg")
            data = tiny.jpeg(len(name))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    said = done(references(tmp_path))
    assert "images: 4, 3 read and used, 1 with the key of an earlier sample of the shard" in said


def cut(path: Path, where: str) -> None:
    """The tar ends inside its fourth image, or right before it, or without its end mark."""
    with tarfile.open(path) as tar:
        member = tar.getmember("image3.jpg")
        inside = tar.getmember("image3.jpg").offset_data + 40
    data = path.read_bytes()
    path.write_bytes(data[:inside] if where == "inside" else data[: member.offset])


@pytest.mark.parametrize(("where", "kept", "words"), [("inside", 3, "ends inside a file"), ("between", 3, "end mark")])
def test_a_cut_shard_is_kept_as_far_as_it_goes_and_the_run_fails(
    tmp_path: Path, where: str, kept: int, words: str
) -> None:
    shards = tmp_path / "shards"
    path = tiny.write_tar(shards / "s-000000.tar", ordered(members()))
    tiny.write_tar(shards / "s-000001.tar", {f"more{name}": data for name, data in ordered(members(2)).items()})
    cut(path, where)
    said = references(tmp_path)
    refused(said, "1 of 2 shards are not as they should be (s-000000.tar", words, "--allow-rejected")
    info = done(vital("info", tmp_path / "stats.zarr"))
    assert f"{kept + 2} read and used" in info
    assert "short shard s-000000.tar" in info
    done(references(tmp_path, "--allow-rejected", "0.5"))


def test_a_shard_cut_between_samples_and_closed_again_is_found_by_its_manifest(tmp_path: Path) -> None:
    """A whole tar of fewer samples: nothing but a manifest knows."""
    shards = tmp_path / "shards"
    tiny.write_tar(shards / "s-000000.tar", ordered(members(4)))
    done(references(tmp_path))
    refused(
        references(tmp_path, "--manifest", sizes(tmp_path / "elsewhere.json", 6), "--store", tmp_path / "b.zarr"),
        "it holds 4 samples and its manifest states 6",
    )
    index = {"shardlist": [{"url": "data/s-000000.tar", "nsamples": 4}], "wids_version": 1}
    (tmp_path / "wids.json").write_text(json.dumps(index))
    done(references(tmp_path, "--store", tmp_path / "c.zarr", "--manifest", tmp_path / "wids.json"))
    sizes(shards / "sizes.json", 5)  # found beside the shards without being asked for
    refused(references(tmp_path, "--store", tmp_path / "d.zarr"), "its manifest states 5")
    assert "4 read and used" in done(vital("info", tmp_path / "d.zarr"))


def sizes(path: Path, count: int) -> Path:
    path.write_text(json.dumps({"s-000000.tar": count}))
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no manifest"),
        ('{"s-000000.tar": "many"}', "'many' is no number of samples"),
        ('{"other.tar": 3}', "states nothing of s-000000.tar"),
    ],
)
def test_a_manifest_that_is_none_is_refused_before_work(tmp_path: Path, content: str, words: str) -> None:
    tiny.write_tar(tmp_path / "shards" / "s-000000.tar", ordered(members(2)))
    (tmp_path / "m.json").write_text(content)
    refused(references(tmp_path, "--manifest", tmp_path / "m.json"), words)
    refused(references(tmp_path, "--manifest", tmp_path / "no.json"), "there is no manifest at")
    assert not (tmp_path / "stats.zarr").exists()


def test_packed_shards_carry_their_manifest(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "folder" / "class").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "class" / f"{number}.jpg").write_bytes(tiny.jpeg(number))
    done(vital("pack", tmp_path / "folder", "--out", tmp_path / "shards", "--per-shard", 3))
    counts = json.loads((tmp_path / "shards" / "sizes.json").read_text())
    assert counts == {"folder-000000.tar": 3, "folder-000001.tar": 2}
    refused(references(tmp_path), "1 classes, such as 'class'", "--labels map.json", "--labels number")
    assert not (tmp_path / "stats.zarr").exists()
    done(references(tmp_path, "--labels", "number"))
    (tmp_path / "shards" / "sizes.json").write_text(json.dumps(counts | {"folder-000001.tar": 3}))
    said = references(tmp_path, "--labels", "number", "--store", tmp_path / "b.zarr")
    refused(said, "folder-000001.tar: it holds 2 samples")
