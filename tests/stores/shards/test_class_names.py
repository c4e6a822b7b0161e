import json
from pathlib import Path

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from stores.errors import UnreachableStore, UnreadableShard
from stores.shards.beside import read_class_names, stated
from stores.shards.finding import ShardFile
from stores.shards.reading import ShardReader, read_spans

pytestmark = pytest.mark.filterwarnings("ignore:UPath 'answering' filesystem not explicitly implemented")


def test_names_that_pack_left_beside_the_shards(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(["cat", "dög"]), "utf-8")
    assert read_class_names([str(tmp_path / "a-000000.tar"), str(tmp_path / "a-000001.tar")]) == ["cat", "dög"]
    assert read_class_names([f"file://{tmp_path}/a.tar"]) == ["cat", "dög"]


def test_different_lists_have_no_common_numbers(tmp_path: Path) -> None:
    for name, classes in (("a", ["cat"]), ("b", ["dog"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "classes.json").write_text(json.dumps(classes))
    assert read_class_names([str(tmp_path / "a/x.tar"), str(tmp_path / "b/x.tar")]) == []
    assert read_class_names([str(tmp_path / "a/x.tar"), str(tmp_path / "nowhere/x.tar")]) == ["cat"]


@pytest.mark.parametrize(
    "content",
    [
        ["tench", "", "shark"],
        ["tench", None, "shark"],
        {"0": "tench", "2": "shark"},
        {"tench": 0, "shark": 2},
        {"shark": "2", "tench": "0"},
        {"0": ["tench", "n01440764"], "2": ["shark", "great white"]},
    ],
)
def test_a_list_is_read_either_way_round(tmp_path: Path, content: object) -> None:
    """As pack, torchvision's class_to_idx, transformers' id2label and Keras' class index are."""
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert read_class_names([str(tmp_path / "x.tar")]) == ["tench", "", "shark"]


def test_no_list_is_no_names(tmp_path: Path) -> None:
    assert read_class_names([str(tmp_path / "x.tar")]) == []


@pytest.mark.parametrize(
    "content", ["{broken", '{"a": "b"}', '"tench"', '{"a": 1, "b": 1}', '{"a": -1}', "[[1, {}], {}]"]
)
def test_a_broken_list_is_not_taken_for_none(tmp_path: Path, content: str) -> None:
    """Labels would silently be the network's numbers."""
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UnreadableShard, match=r"classes\.json says not which class is called what .*or take the file"):
        read_class_names([str(tmp_path / "x.tar")])


def test_names_in_an_object_store(s3: str) -> None:
    with fsspec.open(f"{s3}/named/classes.json", "w") as file:
        file.write('["cat"]')
    assert read_class_names([f"{s3}/named/x.tar"]) == ["cat"]


class Answering(AbstractFileSystem):  # type: ignore[misc]
    """A service that answers every question by one error."""

    protocol = "answering"
    error: Exception = OSError()

    def _open(self, path: str, *_: object, **__: object) -> object:
        raise self.error

    def cat_file(self, path: str, *_: object, **__: object) -> bytes:
        """Never."""
        raise self.error


class OfWeb(Exception):
    """As aiohttp has them."""

    status = 403


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), OfWeb("Forbidden"), FileNotFoundError()])
def test_what_is_forbidden_beside_shards_is_not_there(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A bucket that may not be listed says so of every file that it does not have."""
    fsspec.register_implementation("answering", Answering, clobber=True)
    monkeypatch.setattr(Answering, "error", error)
    shard = ShardFile("x.tar", "answering://bucket/x.tar", 1)
    assert read_class_names([shard.url]) == []
    assert stated([shard], None) == [shard]


@pytest.mark.parametrize("error", [OSError("503 slow down"), TimeoutError("too long")])
def test_a_list_that_cannot_be_read_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Labels would silently be the network's numbers."""
    fsspec.register_implementation("answering", Answering, clobber=True)
    monkeypatch.setattr(Answering, "error", error)
    with pytest.raises(UnreachableStore, match=r"answering://bucket/classes\.json, which may lie .* \((503|too)"):
        read_class_names(["answering://bucket/x.tar"])


def test_a_service_that_fails_at_a_shard_is_told_with_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("answering", Answering, clobber=True)
    monkeypatch.setattr(Answering, "error", PermissionError("Access Denied"))
    url = "answering://bucket/x.tar"
    with pytest.raises(UnreachableStore, match=r"bucket/x\.tar cannot be read \(PermissionError: Access Denied\)"):
        read_spans([(url, 0, 4)])
    with pytest.raises(UnreachableStore, match=r"bucket/x\.tar cannot be read"):
        list(ShardReader(ShardFile("x.tar", url, 1)))
