import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from stores.errors import Status, UnsuitableFolder
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from stores.shards.writing import add_file, hold_out, members, pack

Jpeg = Callable[..., bytes]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_class_folders_become_labels(tmp_path: Path, jpeg: Jpeg) -> None:
    names = ["dog/b.v2.jpg", "dog/a.JPEG", "cat/deep/x y.jpg", "cat/notes.txt", "cat/x-y.jpg", "ewe/é.jpg"]
    folder = fill(tmp_path / "my photos", {name: jpeg(number) for number, name in enumerate(names)})
    seen: list[tuple[int, int]] = []
    shards = pack(folder, tmp_path / "out", per_shard=2, progress=lambda done, total: seen.append((done, total)))
    assert [path.name for path in shards] == ["my-photos-000000.tar", "my-photos-000001.tar", "my-photos-000002.tar"]
    assert json.loads((tmp_path / "out/classes.json").read_text("utf-8")) == ["cat", "dog", "ewe"]
    samples = [sample for shard in expand([str(tmp_path / "out")]) for sample in ShardReader(shard)]
    assert [(s.key, s.label) for s in samples] == [
        ("cat__x-y", 0),
        ("cat__x-y-2", 0),
        ("dog__a", 1),
        ("dog__b-v2", 1),
        ("ewe__é", 2),
    ]
    assert all(s.status is Status.OK for s in samples)
    assert seen == [(number, 5) for number in range(1, 6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photos", "out"]


def test_a_flat_folder_has_no_labels(tmp_path: Path, jpeg: Jpeg) -> None:
    folder = fill(tmp_path / "flat", {"b.jpg": jpeg(1), "a.png": jpeg(2), "a.jpg": jpeg(3)})
    (shard,) = pack(folder, tmp_path / "out")
    samples = list(ShardReader(expand([str(shard)])[0]))
    assert [(s.key, s.label) for s in samples] == [("a", -1), ("a-2", -1), ("b", -1)]
    assert json.loads((tmp_path / "out/classes.json").read_text()) == []


def test_packing_twice_gives_the_same_bytes(tmp_path: Path, jpeg: Jpeg) -> None:
    files = {f"{name}/{number}.jpg": jpeg(number) for name in "ab" for number in range(3)}
    one = fill(tmp_path / "one/set", files)
    two = fill(tmp_path / "two/set", dict(reversed(files.items())))
    first = [path.read_bytes() for path in pack(one, tmp_path / "out1", per_shard=4)]
    assert first == [path.read_bytes() for path in pack(two, tmp_path / "out2", per_shard=4)]
    with tarfile.open(tmp_path / "out1/set-000000.tar") as archive:
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in archive} == {(0, 0, "", 0o644)}


def test_what_cannot_be_packed_is_refused(tmp_path: Path, jpeg: Jpeg) -> None:
    (tmp_path / "empty/class").mkdir(parents=True)
    with pytest.raises(UnsuitableFolder, match="holds no images"):
        pack(tmp_path / "empty", tmp_path / "out")
    fill(tmp_path / "empty", {"a-000000.tar": b""})
    with pytest.raises(
        UnsuitableFolder, match="holds no images but tars, which need no packing: give them to `vital ref"
    ):
        pack(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UnsuitableFolder, match="is no folder"):
        pack(tmp_path / "nowhere", tmp_path / "out")
    mixed = fill(tmp_path / "mixed", {"a.jpg": jpeg(), "class/b.jpg": jpeg()})
    with pytest.raises(UnsuitableFolder, match="1 images beside its class folders"):
        pack(mixed, tmp_path / "out")
    with pytest.raises(UnsuitableFolder, match="at least one"):
        pack(mixed / "class", tmp_path / "out", per_shard=0)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsuitableFolder, match="exists already"):
        pack(mixed / "class", tmp_path / "out")


def test_what_is_held_out_is_named_after_its_bytes(tmp_path: Path, jpeg: Jpeg) -> None:
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    folder = fill(tmp_path / "photos", {"a/one.jpg": jpeg(1), "a/two.jpg": png.getvalue()})
    pack(folder, tmp_path / "shards")
    names = []
    for path in hold_out([str(tmp_path / "shards")], tmp_path / "parted"):
        with tarfile.open(path) as archive:
            names += archive.getnames()
    assert sorted(names) == ["a__one.cls", "a__one.jpg", "a__two.cls", "a__two.png"]
    assert json.loads((tmp_path / "parted/classes.json").read_text()) == ["a"]


def test_labels_under_another_key_are_held_out_by_class(tmp_path: Path, jpeg: Jpeg) -> None:
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as archive:
        for number in range(4):
            add_file(archive, f"{number}.jpg", jpeg(number))
            add_file(archive, f"{number}.json", json.dumps({"label": ("cat", 1)[number % 2]}).encode())
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    parts = [members(path) for path in hold_out([str(shard)], tmp_path / "parted", "label")]
    assert [sorted(sample.label for sample in part) for part in parts] == [[0, 1], [0, 1]]
