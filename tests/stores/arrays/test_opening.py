from pathlib import Path

import numpy as np
import pytest
import zarr

from stores.arrays.opening import SCHEMA_VERSIONS, open_store
from stores.arrays.schema import ArraySpec, array_at, declare
from stores.arrays.writing import write_whole
from stores.errors import MissingStore, SchemaMismatch


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"memory://{tmp_path.name}" if request.param == "memory" else str(tmp_path / "store")


@pytest.mark.parametrize("place", ["local", "memory", "s3"], indirect=True)
def test_a_store_is_made_once_and_found_again(place: str) -> None:
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(place, "statistics", "r")
    group = open_store(place, "statistics", "a")
    declare(group, [ArraySpec("layers/layer4.2/mean", ("channel",), (3,), "float32", "mean")])
    write_whole(array_at(group, "layers/layer4.2/mean"), np.arange(3, dtype=np.float32))
    open_store(place, "statistics", "a")
    again = open_store(place, "statistics", "r")
    assert np.asarray(array_at(again, "layers/layer4.2/mean")[:]).tolist() == [0, 1, 2]
    assert again.attrs["schema_version"] == SCHEMA_VERSIONS["statistics"]
    with pytest.raises(ValueError, match="read-only"):
        again.require_group("more")
    with pytest.raises(SchemaMismatch, match="kind statistics but a store of kind atlas"):
        open_store(place, "atlas", "r")


def test_a_stranger_store_and_another_version_are_refused(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "stranger"), mode="w")
    with pytest.raises(SchemaMismatch, match="no store of this project"):
        open_store(str(tmp_path / "stranger"), "atlas", "a")
    for kind, version in SCHEMA_VERSIONS.items():
        for other in (version - 1, version + 1):
            open_store(str(tmp_path / kind), kind, "a").attrs["schema_version"] = other
            with pytest.raises(SchemaMismatch, match=f"version {other} but this program reads version {version}; make"):
                open_store(str(tmp_path / kind), kind, "r")
            zarr.open_group(str(tmp_path / kind), mode="r+").attrs["schema_version"] = version


def test_a_store_inside_another_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """It would be taken for a part of it, or write over one, such as references."""
    open_store(str(tmp_path / "s.zarr"), "statistics", "a")
    for name in ("references", "deep/er"):
        with pytest.raises(SchemaMismatch, match=r"lies inside the store at .*s\.zarr, .*: give a path outside"):
            open_store(str(tmp_path / "s.zarr" / name), "atlas", "a")
        assert not (tmp_path / "s.zarr" / name).exists()
    zarr.open_group(str(tmp_path / "others.zarr"), mode="w", zarr_format=3)
    open_store(str(tmp_path / "others.zarr" / "s.zarr"), "atlas", "a")  # a hierarchy of somebody's that holds stores
    open_store(str(tmp_path / "s.zarr"), "statistics", "a")


def test_a_file_is_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    with pytest.raises(SchemaMismatch, match=r"a\.tar is a file, and a store is a folder"):
        open_store(str(tmp_path / "a.tar"), "atlas", "a")


def test_a_store_to_write_into_is_not_made_by_looking_for_it(tmp_path: Path) -> None:
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(str(tmp_path / "none"), "atlas", "r+")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(str(tmp_path / "folder"), "atlas", "r+")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    open_store(str(tmp_path / "some"), "atlas", "a")
    open_store(str(tmp_path / "some"), "atlas", "r+").attrs["more"] = 1
    assert open_store(str(tmp_path / "some"), "atlas", "r").attrs["more"] == 1


def test_the_root_lists_without_warnings_although_runs_holds_files(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    (tmp_path / "s" / "runs" / "record.json").write_text("{}")
    assert [name for name, _ in group.members()] == ["runs"]


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(MissingStore, match="cannot be opened"):
        open_store("nothing://host/a", "atlas", "a")
