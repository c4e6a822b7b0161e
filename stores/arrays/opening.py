"""Stores of a kind at a URL: opened to read, to write, or made where they are missing."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.abc.store import Store
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.registry import register_pipeline
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath

from stores.errors import (
    MissingStore,
    SchemaMismatch,
    StoreError,
    UnreachableStore,
    UnreadableStore,
    of_disk_or_service,
)
from stores.files import MEMORY, first_line, local_path, safe_url

StoreKind = Literal["statistics", "atlas"]
SCHEMA_VERSIONS: Mapping[StoreKind, int] = {"statistics": 4, "atlas": 2}
"""Of each kind; raised when a store of the version before cannot be read any more."""
Mode = Literal["r", "r+", "a"]

ROWS_TOGETHER = 64
"""Of a Zarr shard that are compressed, and read, together: Zarr's default is one, which takes twice the time."""

if zarr.config.get("codec_pipeline.batch_size") == 1:  # what the user has set stays
    zarr.config.set({"codec_pipeline.batch_size": ROWS_TOGETHER})

COPY = "copy it again from where it is whole, or make the store anew"
WAY_OUT = f"it was cut off or changed after it was written: {COPY}"


@dataclass(frozen=True)
class _Chunk:
    """Where the bytes of a chunk, or of a Zarr shard, lie."""

    place: StorePath

    async def get(self, prototype: Any, byte_range: Any = None) -> Any:
        """Bytes of it, none where it was never written. Zarr takes an empty file for that, too; but none is written
        so: a machine that goes down leaves them."""
        data = await self.place.get(prototype, byte_range)
        if data is not None and len(data) == 0:
            raise ValueError("it is empty")
        return data


class NamingPipeline(BatchedCodecPipeline):
    """What Zarr reads chunks with, which tells where one lies that cannot be decoded."""

    async def read(self, batch_info: Any, out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
        """The chunks of ``batch_info``, decoded into ``out``; raises UnreadableStore for one that is damaged."""
        chunks = [(_Chunk(place) if isinstance(place, StorePath) else place, *more) for place, *more in batch_info]
        try:
            return await super().read(chunks, out, drop_axes)
        except Exception as error:  # whatever the damage leads to
            if not _of_damage(error):
                raise
            for chunk, spec, *_ in chunks:
                if isinstance(chunk, _Chunk) and await self._is_damaged(chunk, spec):  # else a part of a Zarr shard
                    file = _shown(str(chunk.place))
                    raise UnreadableStore(f"{file} cannot be read ({first_line(error)}): {WAY_OUT}") from error
            raise

    async def _is_damaged(self, chunk: _Chunk, spec: Any) -> bool:
        try:
            list(await self.decode([(await chunk.get(spec.prototype), spec)]))
        except Exception as error:  # a service that fails now says nothing of the chunk
            if not _of_damage(error):
                raise
            return True
        return False


def _of_damage(error: Exception) -> bool:
    """Whether it comes of a chunk's bytes, and not of what they are read from or into."""
    return not (isinstance(error, StoreError | MemoryError) or of_disk_or_service(error))


if zarr.config.get("codec_pipeline.path") == f"{BatchedCodecPipeline.__module__}.{BatchedCodecPipeline.__name__}":
    register_pipeline(NamingPipeline)
    zarr.config.set({"codec_pipeline.path": f"{NamingPipeline.__module__}.{NamingPipeline.__name__}"})

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(url: str, kind: StoreKind, mode: Mode) -> zarr.Group:
    """Root group of the store at ``url``: to read it ("r"), to write into one that exists ("r+"), or to write and make
    it where it is missing ("a").

    ``url`` is a local path, ``memory://NAME`` (one store per name, in this process only) or any URL that fsspec opens.

    Raises:
        MissingStore: nothing is there, and mode is not "a".
        SchemaMismatch: another kind of store, another schema version, or no store of ours.
        UnreachableStore: the service at this URL answers errors, or there are no credentials for it.
        UnreadableStore: what Zarr knows of the store is damaged.
    """
    missing = MissingStore(f"there is no {kind} store at {safe_url(url)}; check the URL, or make the store first")
    path = local_path(url)
    # a local store makes its folder when it is opened to write
    if mode == "r+" and path is not None and not path.is_dir():
        raise missing
    if mode == "a" and path is not None and path.exists() and not path.is_dir():
        raise SchemaMismatch(f"{url} is a file, and a store is a folder: give another path")
    if mode == "a" and path is not None and not _is_group(path) and (around := store_around(path)) is not None:
        raise SchemaMismatch(
            f"{url} lies inside the store at {around}, whose parts it would be taken for: give a path outside"
        )
    store = _backend(url, read_only=mode == "r")
    try:
        with undamaged(url), _answering(url):
            root = zarr.open_group(store, mode="r" if mode == "r" else "r+", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError, ContainsArrayError):
        if mode != "a":
            raise missing from None
        root = zarr.open_group(
            store,
            mode="a",
            zarr_format=3,
            use_consolidated=False,
            attributes={"kind": kind, "schema_version": SCHEMA_VERSIONS[kind], "written_by": "vital-atlas"},
        )
        # a plain folder in a Zarr hierarchy makes every reader warn, an empty group does not
        root.require_group("runs")
    _check_root(root, kind, url)
    return root


def stored_kind(url: str) -> str | None:
    """Which kind of store lies at ``url``, as it says itself; None where there is none of ours."""
    try:
        with undamaged(url), _answering(url):
            root = zarr.open_group(_backend(url, read_only=True), mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError, ContainsArrayError):
        return None
    kind = root.attrs.get("kind")
    return kind if isinstance(kind, str) else None


@contextmanager
def undamaged(url: str) -> Iterator[None]:
    """What Zarr knows of a group or an array is read while the block lasts; raises UnreadableStore where it makes no
    sense."""
    try:
        yield
    except ContainsArrayError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if of_disk_or_service(error):
            raise
        file = _shown(url).rstrip("/") + "/zarr.json"
        raise UnreadableStore(f"{file} cannot be read ({first_line(error)}): {WAY_OUT}") from error


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """A service is asked while the block lasts."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if local_path(url) is not None or not of_disk_or_service(error):
            raise
        raise UnreachableStore(
            f"{safe_url(url)} cannot be opened ({type(error).__name__}: {first_line(error)}): check the "
            "address and the network, and give credentials in the environment"
        ) from error


def _shown(url: str) -> str:
    path = local_path(url)
    return safe_url(url) if path is None else str(path)


def store_around(path: Path) -> Path | None:
    """The local store that a path lies in, or is; none where there is none."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if _is_group(one) and stored_kind(str(one))), None)


def memory_group() -> zarr.Group:
    """An empty group in this process's memory, gone with the last that holds it."""
    return zarr.create_group(MemoryStore(), zarr_format=3)


def _is_group(folder: Path) -> bool:
    return (folder / "zarr.json").is_file()


def _backend(url: str, read_only: bool) -> Store:
    if url.startswith(MEMORY):
        with _memory_lock:
            store = _memory_stores.setdefault(url.removeprefix(MEMORY).strip("/"), MemoryStore())
        return store.with_read_only(read_only)
    if (path := local_path(url)) is not None:
        return LocalStore(path, read_only=read_only)
    # a cached listing would hide what another process has declared since
    options = {"asynchronous": True, "use_listings_cache": False}
    try:
        return FsspecStore.from_url(url, storage_options=options, read_only=read_only)
    except (ImportError, ValueError) as error:
        raise MissingStore(
            f"{safe_url(url)} cannot be opened ({error}); install what it needs, or use a path"
        ) from None


def _check_root(root: zarr.Group, kind: StoreKind, url: str) -> None:
    stored, version = root.attrs.get("kind"), root.attrs.get("schema_version")
    if stored != kind:
        raise SchemaMismatch(
            f"{safe_url(url)} is {'no store of this project' if stored is None else f'of kind {stored}'} but a "
            f"store of kind {kind} was expected; give another URL"
        )
    if version != SCHEMA_VERSIONS[kind]:
        raise SchemaMismatch(
            f"{safe_url(url)} has schema version {version} but this program reads version {SCHEMA_VERSIONS[kind]}; "
            "make the store anew, or use the version of the program that wrote it"
        )
