"""Matrices of directions in a layer's channel space: read from files, kept in the statistics store under a name."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import numpy as np
import zarr
from jaxtyping import Float32

from stores.errors import MissingStore, SchemaMismatch
from stores.locations import local_path
from stores.schema import ArraySpec, array_at, declare, group_at, write_whole

PLACE = "directions"


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
            values = np.load(path, allow_pickle=False)
        else:
            values = np.asarray(zarr.open_array(location if path is None else str(path), mode="r")[:])
    except (FileNotFoundError, zarr.errors.ArrayNotFoundError):
        raise MissingStore(f"no directions at {location}: a .npy file or a Zarr array was expected") from None
    except ValueError as error:
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
        SchemaMismatch: another matrix has this name.
    """
    digest = hashlib.blake2b(repr(matrix.shape).encode() + matrix.tobytes(), digest_size=16).hexdigest()
    kept = group.attrs.get(f"{PLACE}/{name}")
    if kept == digest:
        return
    if kept is not None:
        raise SchemaMismatch(
            f"the store has other directions {name!r} (digest {kept}, given {digest}): give the file another name"
        )
    spec = ArraySpec(
        f"{PLACE}/{name}", ("direction", "channel"), matrix.shape, "float32", "directions in a layer's channel space"
    )
    declare(group, [spec])
    write_whole(array_at(group, spec.path), matrix)
    group.attrs[f"{PLACE}/{name}"] = digest


def read_directions(group: zarr.Group) -> dict[str, Float32[np.ndarray, "direction channel"]]:
    """Every matrix that is kept, by name."""
    names = [key.removeprefix(f"{PLACE}/") for key in group.attrs if key.startswith(f"{PLACE}/")]
    return {name: np.asarray(array_at(group_at(group, PLACE), name)[:]) for name in names}
