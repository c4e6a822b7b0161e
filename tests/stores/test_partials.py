from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stores.errors import SchemaMismatch
from stores.files import read_arrays, remove_arrays, runs_path, write_arrays

TEXT = np.dtypes.StringDType()


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"memory://{tmp_path.name}" if request.param == "memory" else str(tmp_path / "store")


def test_arrays_come_back_and_can_be_removed(store: str) -> None:
    assert read_arrays(store, "select/000001") is None
    arrays = {"scores": np.arange(6.0).reshape(2, 3), "key": np.array(["a", "bé"], TEXT), "count": np.array(3)}
    write_arrays(store, "select/000001", arrays)
    found = read_arrays(store, "select/000001")
    assert found is not None
    assert found.keys() == arrays.keys()
    assert found["key"].dtype == TEXT
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    write_arrays(store, "select/000001", {"scores": np.zeros(1)})
    again = read_arrays(store, "select/000001")
    assert again is not None
    assert list(again) == ["scores"]
    remove_arrays(store, "select/000001")
    remove_arrays(store, "select/000001")
    assert read_arrays(store, "select/000001") is None


def test_whoever_may_read_the_store_may_read_what_a_run_has_left_there(tmp_path: Path) -> None:
    (tmp_path / "as others").touch()
    write_arrays(str(tmp_path), "a", {"x": np.zeros(1)})
    assert (tmp_path / "runs/a.npz").stat().st_mode == (tmp_path / "as others").stat().st_mode
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a.npz"]


def test_a_name_is_no_pattern_when_it_is_removed(store: str) -> None:
    for name in ("a*", "ab", "[a]", "a"):
        write_arrays(store, name, {"x": np.zeros(1)})
    remove_arrays(store, "a*")
    remove_arrays(store, "[a]")
    assert [name for name in ("a*", "ab", "[a]", "a") if read_arrays(store, name)] == ["ab", "a"]


def test_a_store_below_a_folder_called_tilde_is_not_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is such a folder; else it is the home, as for every other path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_arrays("~/store", "a", {"x": np.arange(2)})
    assert (tmp_path / "home/store/runs/a.npz").is_file()
    remove_arrays("~/store", "a")
    (tmp_path / "~").mkdir()
    write_arrays("~/store", "a", {"x": np.arange(2)})
    assert (tmp_path / "~/store/runs/a.npz").is_file()
    assert read_arrays("~/store", "a")
    remove_arrays("~/store", "a")
    assert not list(tmp_path.rglob("*.npz"))


@settings(deadline=None, max_examples=50)
@given(
    array=hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<f2", "<i8", "u1", "?"]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
    )
)
def test_any_numbers_come_back_in_their_type(array: np.ndarray) -> None:
    write_arrays("memory://partials", "any", {"a": array})
    found = read_arrays("memory://partials", "any")
    assert found is not None
    assert found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["a"], array)


def test_equal_arrays_give_equal_bytes_and_no_temporary_file_stays(tmp_path: Path) -> None:
    arrays = {"b": np.arange(4), "a": np.array(["x"], TEXT)}
    write_arrays(str(tmp_path), "one", arrays)
    write_arrays(str(tmp_path), "two", dict(reversed(arrays.items())))
    assert (tmp_path / "runs/one.npz").read_bytes() == (tmp_path / "runs/two.npz").read_bytes()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one.npz", "two.npz"]


def test_no_pickle_goes_in_and_none_comes_out(tmp_path: Path) -> None:
    objects = np.array([{}], object)
    with pytest.raises(SchemaMismatch, match="never stored"):
        write_arrays(str(tmp_path), "a", {"x": objects})
    (tmp_path / "runs").mkdir()
    np.savez(tmp_path / "runs" / "a.npz", x=objects)
    with pytest.raises(SchemaMismatch, match="remove it and it is made again"):
        read_arrays(str(tmp_path), "a")
    (tmp_path / "runs" / "a.npz").write_bytes(b"cut")
    with pytest.raises(SchemaMismatch, match="damaged"):
        read_arrays(str(tmp_path), "a")


@pytest.mark.parametrize("name", ["../a", "a/../b", "a/..", "", "/a", "a//b", "."])
def test_a_record_stays_in_its_folder(name: str) -> None:
    with pytest.raises(SchemaMismatch, match="cannot name a run record"):
        runs_path("store", name)
    assert runs_path("s3://b/store", "layer4.2", "000.json") == "s3://b/store/runs/layer4.2/000.json"
