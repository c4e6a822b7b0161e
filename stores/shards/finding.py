"""Shards found: what paths, folders, patterns and URLs name.

A path that exists is that path, whatever characters it has. The rest of one that does not may hold braces
(``{000..003}``) and globs. ``~`` is the home folder, and only ``file://`` is percent-encoded, as for every location
(`stores.files.local_path`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from webdataset.shardlists import expand_urls

from stores.errors import MissingShard, StoreError, UnreachableStore, UnreadableShard, UnsuitableFolder
from stores.files import first_line, local_path, safe_url
from stores.shards.folders import PER_PART, class_folders, laid_out, survey
from stores.shards.labels import NO_LABEL, ending
from stores.shards.tar import compressed_refusal, is_compressed, is_tar

SHORT = (".tgz", ".tzst", ".tbz", ".tbz2", ".tb2", ".txz", ".tlz", ".taz")
"""Endings of compressed tars in one word."""
COMPRESSED = (*SHORT, ".gz", ".zst", ".bz2", ".xz", ".lzma", ".lz4", ".lz", ".br", ".zip", ".7z", ".rar", ".tar.z")

ASKED = 32
"""Requests for shards' sizes that are under way together."""
GONE = (404, 410)
"""What a web server answers of a file that it does not have."""


@dataclass(frozen=True)
class ShardFile:
    """A tar to read, or some images of a folder. ``url`` may hold credentials and is for reading only; ``size`` in
    bytes, −1 where unknown; ``digest`` is the SHA-256 that its bytes must have, where it was read before. ``version``
    is what the disk or service tells of its last change; ``stated`` how many samples a manifest says it has, −1 where
    none does. Of a folder, ``part`` is which of its images are meant, and ``label`` their class, −1 where unknown."""

    name: str
    url: str
    size: int
    digest: str = ""
    version: str = ""
    stated: int = -1
    part: tuple[int, int] | None = None
    label: int = NO_LABEL


def expand(patterns: Sequence[str]) -> list[ShardFile]:
    """The shards that paths, folders, braces (``{000..003}``), globs and URLs name, sorted by base name.

    A folder stands for the tars in it; one that holds images instead, for these, up to a thousand a shard.

    Raises:
        MissingShard: a pattern names nothing.
        UnreadableShard: a compressed tar, or two shards of one base name.
    """
    shards: dict[str, ShardFile] = {}
    for pattern in patterns:
        for shard in _matches(pattern):
            if _is_compressed(shard.name) and shard.part is None:
                raise UnreadableShard(compressed_refusal(shard.name))
            if shard.name in shards:
                raise UnreadableShard(
                    f"{safe_url(shard.url)} and {safe_url(shards[shard.name].url)} have the same base name, by which a "
                    "store knows its shards; name each shard once, or rename one"
                )
            shards[shard.name] = shard
    if not shards:
        raise MissingShard("no shards were given; name at least one tar, folder, pattern or URL")
    return [shards[name] for name in sorted(shards)]


def class_names_of(shards: Sequence[ShardFile]) -> list[str]:
    """The names of the classes by number of folders that are read without packing; none of tars."""
    named = {shard.label: Path(shard.url).name for shard in shards if shard.label != NO_LABEL}
    return [named.get(number, "") for number in range(max(named, default=-1) + 1)]


def missing(url: str) -> MissingShard:
    """The sentence that there is nothing at ``url``."""
    return MissingShard(f"there is no shard at {safe_url(url)}; check the path or URL")


def gone(url: str) -> MissingShard:
    """The sentence that a shard is no longer at ``url``, where a store has it from."""
    return MissingShard(
        f"there is no shard at {safe_url(url)}, from which the store was made: say where it is now with --shards "
        "(shards=)"
    )


def _matches(pattern: str) -> Iterator[ShardFile]:
    if pattern.startswith("pipe:"):
        raise MissingShard("the output of a command cannot be read twice: give its files as paths or URLs, not pipe:")
    path = local_path(pattern)
    if path is None:
        yield from _remote(_braces(pattern) if "{" in pattern and "::" not in pattern else [pattern])
        return
    for existing in _local(path, pattern):
        yield from _in_folder(existing) if existing.is_dir() else [_local_tar(existing)]


def _local(path: Path, pattern: str) -> Iterator[Path]:
    """The paths that a pattern names: what of it exists is meant as it stands, the rest may hold braces and globs."""
    base = path
    while not base.exists() and base != base.parent:
        base = base.parent
    rest = str(path.relative_to(base)) if base != path else ""
    if not rest:
        yield path
        return
    for one in _braces(rest) if "{" in rest else [rest]:
        names = sorted(glob.glob(one, root_dir=base, recursive=True))  # noqa: PTH207 - Path.glob refuses some patterns
        if not names:
            raise missing(str(base / one) if "{" in rest else pattern)
        yield from (base / name for name in names)


def _in_folder(folder: Path) -> Iterator[ShardFile]:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    if compressed := [path for path in files if _is_compressed_tar(path.name)]:
        raise UnreadableShard(compressed_refusal(f"{compressed[0].name} in {folder}"))
    if tars := [path for path in files if ending(path.name) == "tar"]:
        yield from map(_local_tar, tars)
        return
    try:
        classes = class_folders(survey(folder))
    except UnsuitableFolder as error:
        deeper = next(folder.rglob("*.tar"), None)
        if deeper is not None:
            raise MissingShard(
                f"there is no tar in {folder} itself, but in folders below: give {deeper.parent}, or "
                f"'{folder}/**/*.tar'"
            ) from None
        unnamed = next((path.name for path in files if is_tar(path)), None)
        if unnamed is not None:
            raise MissingShard(
                f"{unnamed} in {folder} is a tar without the ending .tar: rename it, or name it by itself"
            ) from None
        packed = next((path.name for path in files if _is_compressed(path.name) or is_compressed(path)), None)
        if packed is not None:
            raise UnreadableShard(compressed_refusal(f"{packed} in {folder}")) from None
        raise MissingShard(f"there is no shard at {folder}, and it cannot be read as images: {error}") from None
    for below, label in classes:
        yield from _parts(below.absolute(), label)


def _parts(folder: Path, label: int) -> Iterator[ShardFile]:
    laid = laid_out(folder)
    for start in range(0, len(laid.paths), PER_PART):
        stop = min(start + PER_PART, len(laid.paths))
        newest = max(path.stat().st_mtime_ns for path in laid.paths[start:stop])
        size = laid.begins[stop] - laid.begins[start]
        name = f"{folder.name}-{start // PER_PART:06d}"
        yield ShardFile(name, str(folder), size, version=str(newest), part=(start, stop), label=label)


def _is_compressed(name: str) -> bool:
    return name.lower().endswith(COMPRESSED)


def _is_compressed_tar(name: str) -> bool:
    return name.lower().endswith(SHORT) or (_is_compressed(name) and ".tar." in name.lower())


def _local_tar(path: Path) -> ShardFile:
    known = path.stat()
    # as fsspec tells it, so that partials of earlier versions stay
    return ShardFile(path.name, str(path.absolute()), known.st_size, version=str(known.st_mtime))


def _remote(urls: Sequence[str]) -> Iterator[ShardFile]:
    """What each of some URLs names, in their order; as many as `ASKED` are asked for at a time, each once."""
    opened = []
    for url in urls:
        with _reached(url):
            try:
                # not UPath, whose glob wants a folder and a pattern apart; not in threads, which would get one each
                opened.append((*fsspec.core.url_to_fs(url), url))
            except (ImportError, ValueError) as error:
                raise MissingShard(
                    f"{safe_url(url)} cannot be opened ({error}); install what it needs, or use a path"
                ) from None
            if len(opened) == 1:
                # a listing cached earlier in this process would hide shards that were added since
                opened[0][0].invalidate_cache()
    with ThreadPoolExecutor(ASKED, thread_name_prefix="shards") as pool:
        for shards in pool.map(lambda one: _at(*one), opened):
            yield from shards


@contextmanager
def _reached(url: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # every service has errors of its own, of credentials and of the network alike
        raise UnreachableStore(
            f"{safe_url(url)} cannot be listed ({type(error).__name__}: {first_line(error)}): check the "
            "address and the network, and give credentials in the environment"
        ) from error


def _at(filesystem: Any, path: str, url: str) -> list[ShardFile]:
    with _reached(url):
        return _listed(filesystem, path, url)


def _listed(filesystem: Any, path: str, url: str) -> list[ShardFile]:
    # a query is no glob, and web servers have no listings to match
    of_web = url.startswith(("http://", "https://"))
    try:
        known = filesystem.info(path)
    except OSError as error:
        if of_web and isinstance(error, FileNotFoundError):
            cause = error.__cause__  # fsspec says of every trouble with a server that there is no file
            if cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in GONE:
                raise missing(url) from None
            raise cause from None
        if of_web:
            raise
        listed = filesystem.glob(path, detail=True)
    else:
        if of_web or known["type"] == "file":
            return [_remote_tar(known, url)]
        # listed, not matched: the name of the folder may hold what a glob takes for a pattern
        inside = {str(entry["name"]): entry for entry in filesystem.ls(path, detail=True)}
        if compressed := [name for name in sorted(inside) if _is_compressed_tar(name)]:
            raise UnreadableShard(compressed_refusal(f"{PurePosixPath(compressed[0]).name} at {safe_url(url)}"))
        listed = {name: entry for name, entry in inside.items() if ending(name) == "tar"}
    if not listed:
        raise missing(url)
    return [_remote_tar(listed[name], filesystem.unstrip_protocol(name)) for name in sorted(listed)]


def _braces(pattern: str) -> list[str]:
    try:
        return list(expand_urls(pattern))
    except ValueError as error:
        raise MissingShard(f"{safe_url(pattern)} cannot be expanded ({error}); balance its braces") from None


def _remote_tar(known: Mapping[str, Any], url: str) -> ShardFile:
    size = known.get("size")
    version = next((str(known[part]) for part in ("ETag", "mtime", "LastModified") if known.get(part)), "")
    name = PurePosixPath(safe_url(url)).name  # which alone says where a name ends and a query begins
    return ShardFile(name, url, -1 if size is None else int(size), version=version)
