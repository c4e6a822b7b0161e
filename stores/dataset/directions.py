"""What makes neurons of a layer's channels: directions and dictionaries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32

from stores.arrays.names import placed, unplaced
from stores.arrays.provenance import JSON
from stores.arrays.schema import ArraySpec, array_at, declare, group_at
from stores.arrays.writing import write_whole
from stores.errors import MissingStore, SchemaMismatch
from stores.files import local_path

DIRECTIONS, DICTIONARIES = "directions", "dictionaries"


def read_matrix(location: str) -> tuple[str, Float32[np.ndarray, "direction channel"]]:
    """A file's name without its ending, and its matrix: ``.npy``, or a Zarr array at a path or URL.

    Raises:
        MissingStore: there is nothing there.
        SchemaMismatch: it is no finite matrix of numbers, one row a direction.
    """
    name = PurePosixPath(location.rstrip("/")).name.partition(".")[0]
    path = local_path(location)
    try:
        if location.endswith(".npy") and path is not None:
            with path.open("rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
        else:
            values = np.asarray(zarr.open_array(location if path is None else str(path), mode="r")[:])
    except (FileNotFoundError, zarr.errors.ArrayNotFoundError):
        raise MissingStore(f"no directions at {location}: a .npy file or a Zarr array was expected") from None
    except (ValueError, EOFError) as error:
        raise SchemaMismatch(f"{location} cannot be read as a matrix of numbers: {error}") from None
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size or not np.isfinite(values).all():
        raise SchemaMismatch(
            f"{location} holds {values.dtype} of shape {values.shape}: directions are a matrix of finite numbers, "
            "directions × channels"
        )
    return name, values.astype(np.float32)


def write_directions(group: zarr.Group, name: str, matrix: Float32[np.ndarray, "direction channel"]) -> None:
    """Keep a matrix under its name; one that is there already must be the same.

    Raises:
        SchemaMismatch: another matrix has this name, or a dictionary.
    """
    digest = hashlib.blake2b(repr(matrix.shape).encode() + matrix.tobytes(), digest_size=16).hexdigest()
    if _kept(group, DIRECTIONS, name, digest):
        return
    spec = ArraySpec(
        f"{DIRECTIONS}/{placed(name)}",
        ("direction", "channel"),
        matrix.shape,
        "float32",
        "directions in a layer's channel space",
    )
    declare(group, [spec])
    write_whole(array_at(group, spec.path), matrix)
    group.attrs[f"{DIRECTIONS}/{name}"] = digest


def _kept(group: zarr.Group, folder: str, name: str, digest: str) -> bool:
    """Whether just this is kept under this name; raises SchemaMismatch where something else is."""
    for other in (DIRECTIONS, DICTIONARIES):
        kept = group.attrs.get(f"{other}/{name}")
        if kept is not None and (other, kept) != (folder, digest):
            what = f"other {other}" if other == folder else other
            raise SchemaMismatch(
                f"the store has {what} {name!r} (digest {kept}, given {digest}): give the file another name"
            )
    return f"{folder}/{name}" in group.attrs


def _digests(group: zarr.Group, folder: str) -> dict[str, str]:
    """Of all that is kept there, by name."""
    marks = {key: str(mark) for key, mark in group.attrs.items() if key.startswith(f"{folder}/")}
    return {key.removeprefix(f"{folder}/"): mark for key, mark in marks.items()}


@dataclass(frozen=True, eq=False)
class StoredDictionary:
    """A dictionary's arrays, and by name how its encoder ends and what comes before it."""

    weight: Float32[np.ndarray, "feature channel"]
    bias: Float32[np.ndarray, "feature"]
    threshold: Float32[np.ndarray, "feature"]
    settings: Mapping[str, JSON]

    @property
    def digest(self) -> str:
        """Digest of the arrays and settings, by which two dictionaries of one name are told apart."""
        whole = hashlib.blake2b(repr((self.weight.shape, sorted(self.settings.items()))).encode(), digest_size=16)
        for array in (self.weight, self.bias, self.threshold):
            whole.update(array.tobytes())
        return whole.hexdigest()


def write_dictionary(group: zarr.Group, name: str, dictionary: StoredDictionary) -> None:
    """Keep a dictionary under its name; one that is there already must be the same.

    Raises:
        SchemaMismatch: another dictionary has this name, or directions.
    """
    digest, path = dictionary.digest, f"{DICTIONARIES}/{placed(name)}"
    if _kept(group, DICTIONARIES, name, digest):
        return
    features = dictionary.weight.shape[:1]
    specs = [
        ArraySpec(f"{path}/weight", ("feature", "channel"), dictionary.weight.shape, "float32", "encoder's weights"),
        ArraySpec(f"{path}/bias", ("feature",), features, "float32", "encoder's bias, centres folded in"),
        ArraySpec(f"{path}/threshold", ("feature",), features, "float32", "what is not above it is zero"),
    ]
    declare(group, specs)
    for spec, array in zip(specs, (dictionary.weight, dictionary.bias, dictionary.threshold), strict=True):
        write_whole(array_at(group, spec.path), array)
    group_at(group, path).attrs["dictionary"] = dict(dictionary.settings)
    group.attrs[f"{DICTIONARIES}/{name}"] = digest


def _dictionary(group: zarr.Group) -> StoredDictionary:
    weight, bias, threshold = (np.asarray(array_at(group, name)[:]) for name in ("weight", "bias", "threshold"))
    settings: Any = group.attrs["dictionary"]
    return StoredDictionary(weight, bias, threshold, dict(settings))


def read_dictionary(location: str) -> tuple[str, StoredDictionary] | None:
    """Its name and a dictionary as a store keeps it, at a path or URL; None where none is."""
    path = local_path(location)
    try:
        group = zarr.open_group(location if path is None else str(path), mode="r")
    except (FileNotFoundError, NotADirectoryError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        return None
    return (
        (unplaced(PurePosixPath(location.rstrip("/")).name), _dictionary(group))
        if "dictionary" in group.attrs
        else None
    )


class Directions(Mapping[str, np.ndarray]):
    """Every matrix (direction, channel) that a store keeps, by name. One is read when it is asked for, and stays in
    memory until another is: a task of another layer reads none, and the tasks of a process read theirs once."""

    def __init__(self, group: zarr.Group) -> None:
        self._group, self._digests = group, _digests(group, DIRECTIONS)

    def __getitem__(self, name: str) -> Float32[np.ndarray, "direction channel"]:
        digest = self._digests[name]
        if digest not in _latest:
            matrix = np.asarray(array_at(self._group, f"{DIRECTIONS}/{placed(name)}")[:])
            _latest.clear()
            _latest[digest] = matrix
        return _latest[digest]

    def __contains__(self, name: object) -> bool:
        return name in self._digests

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)


class Dictionaries(Mapping[str, StoredDictionary]):
    """Every dictionary that a store keeps, by name; each is read when it is asked for."""

    def __init__(self, group: zarr.Group) -> None:
        self._group, self.digests = group, _digests(group, DICTIONARIES)

    def __getitem__(self, name: str) -> StoredDictionary:
        if name not in self.digests:
            raise KeyError(name)
        return _dictionary(group_at(self._group, f"{DICTIONARIES}/{placed(name)}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


_latest: dict[str, np.ndarray] = {}
"""The matrix that was asked for last, by its digest."""
