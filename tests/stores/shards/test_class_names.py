import json
from pathlib import Path

from stores.shards.beside import read_class_names


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


def test_no_list_or_a_broken_one_is_no_names(tmp_path: Path) -> None:
    assert read_class_names([str(tmp_path / "x.tar")]) == []
    (tmp_path / "classes.json").write_text("{broken")
    assert read_class_names([str(tmp_path / "x.tar")]) == []
    (tmp_path / "classes.json").write_text('{"a": 1}')
    assert read_class_names([str(tmp_path / "x.tar")]) == []


def test_names_in_an_object_store(s3: str) -> None:
    import fsspec

    with fsspec.open(f"{s3}/named/classes.json", "w") as file:
        file.write('["cat"]')
    assert read_class_names([f"{s3}/named/x.tar"]) == ["cat"]
