import functools
import gzip
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.errors import MissingShard, Status, UnreachableStore, UnreadableShard
from stores.shards.finding import ShardFile, expand
from stores.shards.reading import ShardReader, ShardSample, absent, read_images

Tar = Callable[..., Path]
Jpeg = Callable[..., bytes]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_error(403) if "closed" in self.path else super().do_HEAD()

    def do_GET(self) -> None:
        self.send_error(403) if "closed" in self.path else super().do_GET()


def read(path: Path) -> tuple[list[ShardSample], ShardReader]:
    reader = ShardReader(ShardFile(path.name, str(path), path.stat().st_size))
    return list(reader), reader


def test_samples_carry_their_place_in_the_tar(tar: Tar, jpeg: Jpeg) -> None:
    path = tar(
        "a.tar", {"x/cat.cls": b"3\n", "x/cat.JPG": jpeg(10), "dog.png": b"png", "dog.json": b"{}", "dog.cls": b"0"}
    )
    samples, reader = read(path)
    assert [(s.row, s.key, s.label, s.status) for s in samples] == [(0, "x/cat", 3, 0), (1, "dog", 0, 0)]
    assert read_images(str(path), [(s.offset, s.size) for s in samples]) == [s.image for s in samples]
    assert samples[0].image == jpeg(10)
    assert reader.summary.images == 2
    assert reader.summary.size == path.stat().st_size
    assert reader.summary.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reader.summary.short is None


def test_rejected_samples_are_counted_and_carry_no_image(tar: Tar, jpeg: Jpeg) -> None:
    contents = [
        ("a.jpg", jpeg()),
        ("b.txt", b"no image"),
        ("c.cls", b"two"),
        ("c.jpg", jpeg()),
        ("a.jpg", jpeg(1)),
        ("d.jpg", jpeg()),
        ("d.jpg", jpeg()),
        ("e.cls", b"99999999999"),
        ("e.jpg", jpeg()),
        ("f.cls", b"-4"),
        ("f.jpg", jpeg()),
        ("README", b"has no extension, so it is no sample"),
    ]
    samples, _ = read(tar("a.tar", contents))
    assert [(s.key, s.status) for s in samples] == [
        ("a", Status.OK),
        ("b", Status.NO_IMAGE),
        ("c", Status.WRONG_LABEL),
        ("a", Status.DUPLICATE_KEY),
        ("d", Status.OK),
        ("d", Status.DUPLICATE_KEY),
        ("e", Status.WRONG_LABEL),
        ("f", Status.WRONG_LABEL),
    ]
    assert all((s.image is None) == (s.status != Status.OK) for s in samples)
    assert all(s.label == -1 for s in samples)


def test_an_image_above_the_bound_is_not_read(tar: Tar, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.shards.reading.MAX_IMAGE_BYTES", 10)
    samples, _ = read(tar("a.tar", {"a.jpg": jpeg()}))
    assert [s.status for s in samples] == [Status.TOO_LARGE]


def test_an_empty_shard_yields_nothing(tar: Tar) -> None:
    samples, reader = read(tar("a.tar", {}))
    assert samples == []
    assert reader.summary.short is None


def test_the_summary_waits_for_the_end(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "b.jpg": jpeg()})
    reader = ShardReader(ShardFile("a.tar", str(path), 0))
    next(iter(reader))
    with pytest.raises(RuntimeError, match=r"a\.tar"):
        _ = reader.summary


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0, 1))
def test_a_cut_anywhere_keeps_what_came_before_and_is_reported(tar: Tar, jpeg: Jpeg, fraction: float) -> None:
    whole = tar("whole.tar", {f"{number}.jpg": jpeg(number, 64, 64) for number in range(6)})
    everything, _ = read(whole)
    content_end = 1024 + everything[-1].offset + -(-everything[-1].size // 512) * 512
    cut = whole.with_name("cut.tar")
    length = int(fraction * content_end)
    cut.write_bytes(whole.read_bytes()[:length])
    if length < 512:
        with pytest.raises(UnreadableShard):
            read(cut)
        return
    samples, reader = read(cut)
    assert samples == [s for s in everything if s.offset + s.size <= length]
    assert (reader.summary.short is None) == (length >= content_end)
    assert reader.summary.digest == hashlib.sha256(cut.read_bytes()).hexdigest()


def test_a_cut_at_a_member_boundary_lacks_the_end_mark(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "b.jpg": jpeg()})
    with tarfile.open(path) as archive:
        boundary = archive.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:boundary])
    samples, reader = read(path)
    assert [s.key for s in samples] == ["a"]
    assert reader.summary.short == f"ends at byte {boundary} without an end mark"


def test_a_cut_inside_a_member_says_where(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "b.cls": b"1", "b.jpg": jpeg(0, 99, 99)})
    with tarfile.open(path) as archive:
        inside = archive.getmembers()[2].offset_data + 100
    path.write_bytes(path.read_bytes()[:inside])
    samples, reader = read(path)
    assert [(s.key, s.status) for s in samples] == [("a", Status.OK), ("b", Status.NO_IMAGE)]
    assert reader.summary.short is not None
    assert reader.summary.short.startswith(f"ends inside a file at byte {inside}")


def test_a_damaged_header_and_joined_tars_are_reported(tar: Tar, jpeg: Jpeg) -> None:
    path = tar("a.tar", {"a.jpg": jpeg(), "b.jpg": jpeg()})
    with tarfile.open(path) as archive:
        header = archive.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    joined = path.with_name("joined.tar")
    joined.write_bytes(bytes(data) * 2)
    data[header : header + 100] = b"?" * 100
    path.write_bytes(data)
    for damaged, kept in ((path, 1), (joined, 2)):
        samples, reader = read(damaged)
        assert len(samples) == kept
        assert reader.summary.short is not None
        assert "bytes after its end" in reader.summary.short


def test_garbage_and_compressed_files_are_refused(tmp_path: Path, tar: Tar, jpeg: Jpeg) -> None:
    garbage = tmp_path / "garbage.tar"
    garbage.write_bytes(b"\x01garbage" * 1000)
    with pytest.raises(UnreadableShard, match="is no tar"):
        read(garbage)
    garbage.write_bytes(b"")
    with pytest.raises(UnreadableShard, match="empty"):
        read(garbage)
    garbage.write_bytes(gzip.compress(tar("a.tar", {"a.jpg": jpeg()}).read_bytes()))
    with pytest.raises(UnreadableShard, match="decompress it first"):
        read(garbage)
    for name in ("b.tar.gz", "b.tgz", "b.tar.zst"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UnreadableShard, match="decompress it first"):
            expand([str(tmp_path / name)])


def test_names_inside_a_tar_are_keys_and_never_paths(tmp_path: Path, tar: Tar, jpeg: Jpeg) -> None:
    before = set(tmp_path.rglob("*"))
    path = tar("a.tar", {"../../evil.jpg": jpeg(), "/abs/evil.jpg": jpeg(), "b\udcff.jpg": jpeg()})
    samples, _ = read(path)
    assert [s.key for s in samples if s.status == Status.OK][1:] == ["/abs/evil", "b�"]
    assert set(tmp_path.rglob("*")) - before == {path}


def test_expand_takes_paths_folders_braces_and_globs_in_order(tmp_path: Path, tar: Tar) -> None:
    for number in (2, 0, 1, 10):
        tar(f"s-{number:03d}.tar", {})
    (tmp_path / "notes.txt").write_text("")
    names = ["s-000.tar", "s-001.tar", "s-002.tar", "s-010.tar"]
    assert [s.name for s in expand([str(tmp_path)])] == names
    assert [s.name for s in expand([f"{tmp_path}/s-*.tar"])] == names
    assert [s.name for s in expand([f"{tmp_path}/s-{{000..002}}.tar", f"{tmp_path}/s-010.tar"])] == names
    assert [s.name for s in expand([f"file://{tmp_path}/s-001.tar"])] == ["s-001.tar"]
    found = expand([str(tmp_path / "s-002.tar")])[0]
    assert (found.url, found.size) == (str(tmp_path / "s-002.tar"), (tmp_path / "s-002.tar").stat().st_size)


def test_a_path_with_braces_that_exists_is_meant_as_it_stands(tmp_path: Path, tar: Tar) -> None:
    assert [s.name for s in expand([str(tar("a{0..1}.tar", {}))])] == ["a{0..1}.tar"]


@pytest.mark.parametrize("pattern", ["nowhere.tar", "nowhere-*.tar", "s-{000..001}.tar", "empty"])
def test_a_pattern_that_names_nothing_is_an_error(tmp_path: Path, tar: Tar, pattern: str) -> None:
    tar("s-000.tar", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingShard, match=r"nowhere|s-001|empty"):
        expand([str(tmp_path / pattern)])
    with pytest.raises(MissingShard, match="no shards were given"):
        expand([])
    with pytest.raises(MissingShard, match="cannot be opened"):
        expand(["nothing://host/a.tar"])


def test_shards_on_a_web_server(tmp_path: Path, tar: Tar, jpeg: Jpeg) -> None:
    tar("a.tar", {"a.jpg": jpeg()})
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            shards = expand([f"{url}/a.tar?token=secret"])
            assert [(shard.name, shard.size) for shard in shards] == [("a.tar", (tmp_path / "a.tar").stat().st_size)]
            assert [sample.image for sample in ShardReader(shards[0])] == [jpeg()]
            with pytest.raises(MissingShard, match="nowhere") as caught:
                expand([f"{url}/nowhere.tar?token=secret"])
            assert "secret" not in str(caught.value)
            with pytest.raises(
                UnreachableStore, match=r"closed\.tar cannot be listed \(ClientResponseError: 403"
            ) as told:
                expand([f"{url}/closed.tar?token=secret"])
            assert "secret" not in str(told.value)
        finally:
            server.shutdown()
            thread.join()


def test_one_base_name_twice_is_refused(tmp_path: Path, tar: Tar) -> None:
    (tmp_path / "more").mkdir()
    tar("a.tar", {})
    tar("more/a.tar", {})
    with pytest.raises(UnreadableShard, match="same base name"):
        expand([str(tmp_path), str(tmp_path / "more")])


def test_reading_images_from_a_missing_or_exchanged_shard(tmp_path: Path) -> None:
    with pytest.raises(MissingShard):
        read_images(str(tmp_path / "a.tar"), [(0, 1)])
    with pytest.raises(MissingShard):
        list(ShardReader(ShardFile("a.tar", str(tmp_path / "a.tar"), 0)))
    (tmp_path / "a.tar").write_bytes(b"short")
    with pytest.raises(UnreadableShard, match="holds 1 of 3 bytes at 4"):
        read_images(str(tmp_path / "a.tar"), [(4, 3)])


def test_shards_in_an_object_store(s3: str, tmp_path: Path, tar: Tar, jpeg: Jpeg) -> None:
    filesystem = fsspec.filesystem("s3")
    for number in range(2):
        path = tar(f"r-{number}.tar", {"a.jpg": jpeg(number), "b.jpg": jpeg(number + 7)})
        filesystem.put_file(str(path), f"{s3}/shards/r-{number}.tar")
    expected = [f"{s3}/shards/r-{number}.tar" for number in range(2)]
    for pattern in (f"{s3}/shards", f"{s3}/shards/*.tar", f"{s3}/shards/r-{{0..1}}.tar"):
        assert [shard.url for shard in expand([pattern])] == expected
    with pytest.raises(MissingShard, match="nowhere"):
        expand([f"{s3}/nowhere.tar"])
    shard = expand([expected[1]])[0]
    reader = ShardReader(shard)
    samples = list(reader)
    assert reader.summary.short is None
    assert shard.size == (tmp_path / "r-1.tar").stat().st_size
    assert read_images(shard.url, [(s.offset, s.size) for s in reversed(samples)]) == [jpeg(8), jpeg(1)]
    with pytest.raises(UnreadableShard):
        read_images(shard.url, [(shard.size - 2, 10)])
    with pytest.raises(MissingShard):
        read_images(f"{s3}/nowhere.tar", [(0, 1)])
    with pytest.raises(MissingShard):
        list(ShardReader(ShardFile("nowhere.tar", f"{s3}/nowhere.tar", 0)))


def test_the_first_of_the_absent_shards_is_found(tmp_path: Path) -> None:
    there, remote, folder = tmp_path / "a.tar", "memory://absent/b.tar", tmp_path / "photos"
    there.touch()
    folder.mkdir()
    fsspec.filesystem("memory").pipe_file("/absent/b.tar", b"")
    assert absent([str(there), remote, str(folder)]) is None
    assert absent([]) is None
    assert absent([str(there), "memory://absent/c.tar", str(tmp_path / "d.tar")]) == "memory://absent/c.tar"
