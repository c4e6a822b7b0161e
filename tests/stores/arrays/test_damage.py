"""Files of a store that a disk or a broken copy has changed: told by their names, and never read as something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Shaped

from stores.arrays.blocks import read_rows
from stores.arrays.opening import open_store, stored_kind
from stores.arrays.schema import ArraySpec, array_at, declare, group_at
from stores.arrays.writing import write_whole
from stores.errors import UnreachableStore, UnreadableStore

VALUES: dict[str, Shaped[np.ndarray, "neuron level"]] = {
    "float32": np.sort(np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32), axis=1),
    "uint8": np.random.default_rng(1).integers(0, 256, (6, 40), dtype=np.uint8),
    "str": np.array([[f"word {row} {column}" for column in range(40)] for row in range(6)]),
}
HARMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "cut": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An array of each kind, in Zarr shards of two rows, and one in a single chunk."""
    url = tmp_path_factory.mktemp("damage") / "store"
    group = open_store(str(url), "statistics", "a")
    for kind, values in VALUES.items():
        written = values.astype(np.dtypes.StringDType()) if kind == "str" else values
        for name, block in ((f"a/{kind}", None if kind == "str" else 2), (f"whole/{kind}", None)):
            declare(group, [ArraySpec(name, ("neuron", "level"), values.shape, kind, "values", block=block)])
            write_whole(array_at(group, name), written)
    return url


@pytest.fixture
def harmed(store: Path) -> Iterator[Callable[[Path, bytes], None]]:
    """Writes other bytes into a file until the test is over."""
    before: dict[Path, bytes] = {}

    def harm(file: Path, content: bytes) -> None:
        before.setdefault(file, file.read_bytes())
        file.write_bytes(content)

    yield harm
    for file, content in before.items():
        file.write_bytes(content)


def chunks(store: Path, name: str) -> list[Path]:
    return sorted(file for file in (store / name / "c").rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("folder", ["a", "whole"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_chunk_is_named(
    store: Path, harmed: Callable[[Path, bytes], None], folder: str, kind: str, harm: str
) -> None:
    *whole, file = chunks(store, f"{folder}/{kind}")
    harmed(file, HARMS[harm](file.read_bytes()))
    array = array_at(open_store(str(store), "statistics", "r"), f"{folder}/{kind}")
    with pytest.raises(UnreadableStore, match="changed after it was written: copy it again") as said:
        array[:]
    assert str(said.value).startswith(f"{file} cannot be read (")
    if whole:  # rows of other chunks are there
        assert read_rows(array, np.array([0, 1])).tolist() == VALUES[kind][:2].tolist()
        with pytest.raises(UnreadableStore):
            read_rows(array, np.array([5, 0]))


@given(st.data())
def test_a_flipped_bit_is_never_read_as_another_value(store: Path, data: st.DataObject) -> None:
    kind, folder = data.draw(st.sampled_from(sorted(VALUES))), data.draw(st.sampled_from(["a", "whole"]))
    file = data.draw(st.sampled_from(chunks(store, f"{folder}/{kind}")))
    content = file.read_bytes()
    flipped, bit = bytearray(content), data.draw(st.integers(0, 8 * len(content) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    file.write_bytes(flipped)
    try:
        read = np.asarray(array_at(open_store(str(store), "statistics", "r"), f"{folder}/{kind}")[:])
        assert read.tolist() == VALUES[kind].tolist()
    except UnreadableStore:
        pass
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("harm", [lambda text: "", lambda text: text[:-3], lambda text: "[1]", lambda text: "\xff"])
@pytest.mark.parametrize("place", ["", "a", "a/uint8"])
def test_damaged_metadata_is_named(
    store: Path, harmed: Callable[[Path, bytes], None], place: str, harm: Callable[[str], str]
) -> None:
    file = store / place / "zarr.json"
    harmed(file, harm(file.read_text()).encode("latin-1"))
    with pytest.raises(UnreadableStore, match="copy it again from where it is whole") as said:
        (array_at if place.count("/") else group_at)(open_store(str(store), "statistics", "r"), place or "a")
    assert str(said.value).startswith(f"{file} cannot be read (")
    if not place:
        with pytest.raises(UnreadableStore):
            stored_kind(str(store))


def test_metadata_of_a_zarr_that_is_to_come_is_refused_alike(
    store: Path, harmed: Callable[[Path, bytes], None]
) -> None:
    file = store / "a/uint8/zarr.json"
    harmed(file, json.dumps(json.loads(file.read_text()) | {"codecs": [{"name": "of 2040"}]}).encode())
    with pytest.raises(UnreadableStore, match="of 2040"):
        array_at(open_store(str(store), "statistics", "r"), "a/uint8")


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:1/store"])
def test_a_service_that_does_not_answer_is_told(url: str) -> None:
    with pytest.raises(UnreachableStore, match=f"^{url} cannot be opened .*: check the address and the network"):
        open_store(url, "atlas", "r")
    with pytest.raises(UnreachableStore, match="give credentials in the environment"):
        stored_kind(url)


def test_without_credentials_a_bucket_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # What is kept there has the credentials, and sessions, of other tests.
    monkeypatch.setattr(s3fs.S3FileSystem, "_cache", {})
    with pytest.raises(UnreachableStore, match=r"^s3://bucket cannot be opened .*NoCredentialsError"):
        open_store("s3://bucket", "atlas", "r")


def test_arrays_of_others_are_read_as_ever(tmp_path: Path) -> None:
    """The way chunks are read is Zarr's, for all arrays of a process."""
    array = zarr.create_array(str(tmp_path / "theirs"), data=np.arange(12).reshape(3, 4), chunks=(2, 2))
    assert np.asarray(array[::2, 1:]).tolist() == [[1, 2, 3], [9, 10, 11]]
    assert np.asarray(array.oindex[np.array([2, 0]), 1:3]).tolist() == [[9, 10], [1, 2]]
