"""Tars of images: finding them, streaming them once, and reading single images again.

Nothing is ever unpacked: names inside a tar are keys, never paths.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys

from stores.errors import MissingShard, Status, UnreadableShard
from stores.files import local_path, safe_url, universal_path
from stores.shards.tar import HashedStream, TarMember, TarMembers, compressed_refusal

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "pbm", "pnm", "gif", "bmp")
LABEL_EXTENSION = "cls"
COMPRESSED = (".gz", ".tgz", ".zst", ".bz2", ".tbz2", ".xz", ".txz", ".lz4", ".zip")
MAX_IMAGE_BYTES = 256 << 20
MAX_LABEL = 2**31 - 1


@dataclass(frozen=True)
class ShardFile:
    """A tar to read. ``url`` may hold credentials and is for reading only; ``size`` in bytes, −1 where unknown;
    ``digest`` is the SHA-256 that its bytes must have, where it was read before. ``version`` is what the disk or
    service tells of its last change; ``stated`` how many samples a manifest says it has, −1 where none does."""

    name: str
    url: str
    size: int
    digest: str = ""
    version: str = ""
    stated: int = -1


@dataclass(frozen=True)
class Sample:
    """One sample of a shard.

    ``row`` counts from 0; ``label`` is −1 where unknown; ``offset`` and ``size`` are the image's bytes in the tar,
    0 where there is no image; ``image`` holds them when ``status`` is OK and is None otherwise.
    """

    row: int
    key: str
    label: int
    offset: int
    size: int
    image: bytes | None
    status: Status


@dataclass(frozen=True)
class ShardSummary:
    """What a shard held: samples, the SHA-256 of all its bytes, why it ends too early (None for a whole one), and the
    number of its bytes.
    """

    images: int
    digest: str
    short: str | None
    size: int


def expand(patterns: Sequence[str]) -> list[ShardFile]:
    """The shards that paths, folders, braces (``{000..003}``), globs and URLs name, sorted by base name.

    Raises:
        MissingShard: a pattern names nothing.
        UnreadableShard: a compressed tar, or two shards of one base name.
    """
    shards: dict[str, ShardFile] = {}
    for pattern in patterns:
        for shard in _matches(pattern):
            if shard.name.lower().endswith(COMPRESSED):
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


class ShardReader:
    """Iterates over the samples of a shard, streaming its bytes once.

    A damaged shard ends early: what came before the damage is yielded, and ``summary.short`` says why.

    Raises, while iterating:
        MissingShard: there is no such file.
        UnreadableShard: the file is no tar from its first byte, or at its end has not the digest that it must have.
    """

    def __init__(self, file: ShardFile) -> None:
        self.file = file
        self._summary: ShardSummary | None = None

    @property
    def summary(self) -> ShardSummary:
        """What was read; raises RuntimeError before the iteration has ended."""
        if self._summary is None:
            raise RuntimeError(f"the summary of {self.file.name} is known after all of its samples are read")
        return self._summary

    def __iter__(self) -> Iterator[Sample]:
        self._summary = None
        try:
            opened = universal_path(self.file.url).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise _missing(self.file.url) from None
        with opened as raw:
            stream = HashedStream(raw)
            members = TarMembers(stream, self.file.name, _is_read)
            keys: set[str] = set()
            row = 0
            for group in group_by_keys(iter(members)):
                yield _sample(row, group, keys)
                row += 1
            stream.drain()
            digest = stream.digest.hexdigest()
            if self.file.digest not in ("", digest):
                raise UnreadableShard(
                    f"{self.file.name} holds other bytes than when the store read it: SHA-256 {digest} now, "
                    f"{self.file.digest} then, though name and size may agree; give the shard that was read, or "
                    "another store"
                )
            short = members.short()
            if short is None and self.file.stated not in (-1, row):
                short = f"it holds {row} samples and its manifest states {self.file.stated}"
            self._summary = ShardSummary(row, digest, short, stream.length)


def read_images(url: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Bytes at each (offset, size) of a shard, in the order of ``spans``.

    Raises:
        MissingShard: there is no such file.
        UnreadableShard: the file ends before a span does.
    """
    path = universal_path(url)
    starts = [offset for offset, _ in spans]
    ends = [offset + size for offset, size in spans]
    try:
        contents = list(path.fs.cat_ranges([path.path] * len(spans), starts, ends, on_error="raise"))
    except (FileNotFoundError, IsADirectoryError):
        raise _missing(url) from None
    for (offset, size), content in zip(spans, contents, strict=True):
        if len(content) != size:
            raise UnreadableShard(
                f"{safe_url(url)} holds {len(content)} of {size} bytes at {offset}; it is not the file that was read "
                "first, so give that one with --shards"
            )
    return contents


def _is_read(extension: str, size: int) -> bool:
    return extension in (*IMAGE_EXTENSIONS, LABEL_EXTENSION) and size <= MAX_IMAGE_BYTES


def _sample(row: int, group: dict[str, Any], keys: set[str]) -> Sample:
    # tarfile keeps bytes that are no UTF-8 as surrogates, which no store can hold
    key = str(group["__key__"]).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    label, valid = _label(group.get(LABEL_EXTENSION))
    image: TarMember | None = next((group[name] for name in IMAGE_EXTENSIONS if name in group), None)
    if key in keys:
        status = Status.DUPLICATE_KEY
    elif image is None:
        status = Status.NO_IMAGE
    elif image.data is None:
        status = Status.TOO_LARGE
    else:
        status = Status.OK if valid else Status.WRONG_LABEL
    keys.add(key)
    offset, size = (0, 0) if image is None else (image.offset, image.size)
    data = image.data if image is not None and status is Status.OK else None
    return Sample(row, key, label, offset, size, data, status)


def _label(member: TarMember | None) -> tuple[int, bool]:
    """Label and whether it is valid; −1 where there is none."""
    if member is None:
        return -1, True
    text = (member.data or b"").strip()
    if re.fullmatch(rb"[0-9]{1,10}", text) and int(text) <= MAX_LABEL:
        return int(text), True
    return -1, False


def _matches(pattern: str) -> Iterator[ShardFile]:
    for url in _braces(pattern):
        try:
            # not UPath, whose glob wants a folder and a pattern apart
            filesystem, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise MissingShard(
                f"{safe_url(url)} cannot be opened ({error}); install what it needs, or use a path"
            ) from None
        # a listing cached earlier in this process would hide shards that were added since
        filesystem.invalidate_cache()
        # a query is no glob, and web servers have no listings to match
        if url.startswith(("http://", "https://")) or filesystem.isfile(path):
            yield _shard(filesystem, path, url)
            continue
        listed = sorted(filesystem.glob(f"{path.rstrip('/')}/*.tar" if filesystem.isdir(path) else path))
        if not listed:
            raise _missing(url)
        for entry in listed:
            yield _shard(
                filesystem, entry, entry if local_path(url) is not None else filesystem.unstrip_protocol(entry)
            )


def _braces(pattern: str) -> list[str]:
    literal = local_path(pattern)
    # a path that exists is meant as it stands, whatever characters it has; "::" chains URLs in fsspec but splits in
    # webdataset
    if "{" not in pattern or "::" in pattern or (literal is not None and literal.exists()):
        return [pattern]
    try:
        return list(expand_urls(pattern))
    except ValueError as error:
        raise MissingShard(f"{safe_url(pattern)} cannot be expanded ({error}); balance its braces") from None


def _shard(filesystem: Any, path: str, url: str) -> ShardFile:
    try:
        known = filesystem.info(path)
    except FileNotFoundError:
        raise _missing(url) from None
    local = local_path(url)
    name = PurePosixPath(urlsplit(url).path).name if local is None else local.name
    size, location = known.get("size"), url if local is None else str(local.absolute())
    version = next((str(known[part]) for part in ("ETag", "mtime", "LastModified") if known.get(part)), "")
    return ShardFile(name, location, -1 if size is None else int(size), version=version)


def _missing(url: str) -> MissingShard:
    return MissingShard(f"there is no shard at {safe_url(url)}; check the path or URL")
