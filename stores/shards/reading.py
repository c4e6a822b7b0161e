"""Tars of images, or folders of them: streamed once, and single images read again.

Nothing is ever unpacked: names inside a tar are keys, never paths.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import upath
from fsspec.utils import merge_offset_ranges
from webdataset.tariterators import group_by_keys

from stores.errors import Status, UnreachableStore, UnreadableShard, of_disk_or_service
from stores.files import first_line, local_path, safe_url, universal_path
from stores.shards.finding import ShardFile, gone, missing
from stores.shards.folders import laid_out
from stores.shards.labels import IMAGE_EXTENSIONS, MAX_LABEL_BYTES, NO_LABEL, Fields, LabelRule, ending, image_of
from stores.shards.tar import ByteSource, HashedStream, TarMembers

MAX_IMAGE_BYTES = 256 << 20
GAP = 128 << 10
"""Bytes between two images that are read with them, at most: a request of its own usually takes longer."""
MOST = 8 << 20
"""Bytes of a request for several images, at most."""
ASKED = 16
"""Shards that are looked for at a time."""


@dataclass(frozen=True)
class ShardSample:
    """What a shard holds of one image: the image as it lies there, and what stands beside it.

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


@dataclass(frozen=True)
class _Known:
    """What was met under a key: whether an image, and which label."""

    image: bool
    label: int


class ShardReader:
    """Iterates over the samples of a shard, streaming its bytes once; of a sample that holds several kinds of images,
    ``photographs`` or those of other channels.

    A damaged shard ends early: what came before the damage is yielded, and ``summary.short`` says why.

    Raises, while iterating:
        MissingShard: there is no such file.
        UnreachableStore: the disk or service answers errors.
        UnreadableShard: the file is no tar from its first byte, or at its end has not the digest that it must have.
    """

    def __init__(self, file: ShardFile, rule: LabelRule = LabelRule(), photographs: bool = True) -> None:  # noqa: B008
        self.file, self._rule, self._photographs = file, rule, photographs
        self._summary: ShardSummary | None = None

    @property
    def summary(self) -> ShardSummary:
        """What was read; raises RuntimeError before the iteration has ended."""
        if self._summary is None:
            raise RuntimeError(f"the summary of {self.file.name} is known after all of its samples are read")
        return self._summary

    def __iter__(self) -> Iterator[ShardSample]:
        self._summary = None
        yield from self._folder(*self.file.part) if self.file.part is not None else self._tar()

    def _tar(self) -> Iterator[ShardSample]:
        with _opened(self.file.url) as raw:
            stream = HashedStream(raw)
            members = TarMembers(stream, self.file.name, self._is_read)
            known: dict[str, _Known] = {}
            row = 0
            for group in group_by_keys(iter(members)):
                yield self._sample(row, group, known)
                row += 1
            stream.drain()
            digest = self._checked(stream.digest.hexdigest())
            short = members.short()
            # some tools count files
            if short is None and self.file.stated not in (-1, row, members.files):
                short = f"it holds {row} samples and its manifest states {self.file.stated}"
            if short is None and members.files and not row:
                short = f"none of its {members.files} files has a name with an ending, such as 0001.jpg"
            self._summary = ShardSummary(row, digest, short, stream.length)

    def _folder(self, start: int, stop: int) -> Iterator[ShardSample]:
        """Some images of a folder, whose bytes lie end to end."""
        laid = laid_out(_folder_at(self.file.url))
        digest = hashlib.sha256()
        for row, number in enumerate(range(start, min(stop, len(laid.paths)))):
            with _reached(str(laid.paths[number])):
                data = laid.paths[number].read_bytes()
            digest.update(data)
            key = laid.key(number).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            status = Status.TOO_LARGE if len(data) > MAX_IMAGE_BYTES else Status.OK
            image = data if status is Status.OK else None
            yield ShardSample(row, key, self.file.label, laid.begins[number], len(data), image, status)
        held = min(stop, len(laid.paths)) - start
        short = None if held == stop - start else f"its folder holds {held} of {stop - start} images that were listed"
        self._summary = ShardSummary(held, self._checked(digest.hexdigest()), short, self.file.size)

    def _checked(self, digest: str) -> str:
        """The digest, unless the bytes were others when they were read before."""
        if self.file.digest not in ("", digest):
            raise UnreadableShard(
                f"{self.file.name} holds other bytes than when the store read it: SHA-256 {digest} now, "
                f"{self.file.digest} then, though name and size may agree; give the shard that was read, or "
                "another store"
            )
        return digest

    def _is_read(self, extension: str, size: int) -> bool:
        if ending(extension) in IMAGE_EXTENSIONS:
            return size <= MAX_IMAGE_BYTES
        return size <= MAX_LABEL_BYTES and self._rule.reads(extension)

    def _sample(self, row: int, group: dict[str, Any], known: dict[str, _Known]) -> ShardSample:
        # tarfile keeps bytes that are no UTF-8 as surrogates, which no store can hold
        key = str(group["__key__"]).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        fields: Fields = {name: member for name, member in group.items() if not name.startswith("__")}
        label, valid = self._rule.label(fields)
        image, status = image_of(fields, self._photographs)
        before = known.get(key)
        if before is not None and image is None:
            status = Status.APART
        elif before is not None and before.image:
            status = Status.DUPLICATE_KEY
        elif image is not None and not image.there:
            status = Status.LINK
        elif image is not None and image.data is None:
            status = Status.TOO_LARGE
        elif image is not None and not valid:
            status = Status.WRONG_LABEL
        elif before is not None and label == NO_LABEL:
            label = before.label  # its label came before, apart from it
        known[key] = _Known(image is not None or (before is not None and before.image), label)
        offset, size = (0, 0) if image is None else (image.offset, image.size)
        data = image.data if image is not None and status is Status.OK else None
        return ShardSample(row, key, label, offset, size, data, status)


def first_fields(file: ShardFile, count: int) -> list[Fields]:
    """The files of the first samples of a tar, those that are no images read: what there is to find labels in."""
    if file.part is not None:
        return []
    with _opened(file.url) as raw:
        members = TarMembers(
            HashedStream(raw),
            file.name,
            lambda extension, size: ending(extension) not in IMAGE_EXTENSIONS and size <= MAX_LABEL_BYTES,
        )
        groups = islice(group_by_keys(iter(members)), count)
        return [{name: member for name, member in group.items() if not name.startswith("__")} for group in groups]


def first_images(file: ShardFile, count: int, photographs: bool = True) -> Iterator[bytes]:
    """The images of the first ``count`` samples of a shard, of those that have one, as they lie there.

    Raises, while iterating, as `ShardReader` does.
    """
    for sample in islice(ShardReader(file, LabelRule(""), photographs), count):
        if sample.image is not None:
            yield sample.image


@contextmanager
def _opened(url: str) -> Iterator[ByteSource]:
    """A shard to stream while the block lasts."""
    with _reached(url):
        try:
            opened = universal_path(url).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise missing(url) from None
        with opened as raw:
            yield raw


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """What a disk or a service answers while the block lasts, told with the shard's URL: a store has another."""
    try:
        yield
    except Exception as error:
        if not of_disk_or_service(error):
            raise
        raise UnreachableStore(
            f"{safe_url(url)} cannot be read ({type(error).__name__}: {first_line(error)}): what is finished stays; "
            "run the same command again when it can be, which makes what is missing"
        ) from error


def absent(urls: Sequence[str]) -> str | None:
    """The first of some shards that is not there, None where all are; many are asked for at a time.

    Raises UnreachableStore: a service answers errors.
    """
    with ThreadPoolExecutor(ASKED, thread_name_prefix="ask") as pool:
        return next((url for url, there in zip(urls, pool.map(_is_there, urls), strict=True) if not there), None)


def _is_there(url: str) -> bool:
    if (path := local_path(url)) is not None:
        return path.exists()
    with _reached(url):
        return bool(universal_path(url).exists())


def read_images(url: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Bytes at each (offset, size) of a shard, in the order of ``spans``; as `read_spans`."""
    return read_spans([(url, offset, size) for offset, size in spans])


def read_spans(spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Bytes at each (shard's URL, offset, size), in the order of ``spans``.

    Neighbours in a tar are one request: each request that this saves costs the bytes between two of them, `GAP` at
    most. All requests to a service are under way together.

    Raises:
        MissingShard: there is no such file.
        UnreachableStore: the disk or service answers errors.
        UnreadableShard: the file ends before a span does, or its server gives it as a whole alone.
    """
    contents: dict[int, bytes] = {}
    paths: dict[str, upath.UPath] = {}
    systems: dict[int, list[int]] = {}
    for number, (url, offset, size) in enumerate(spans):
        if (folder := local_path(url)) is not None and folder.is_dir():
            [contents[number]] = _read_folder(folder, url, [(offset, size)])
            continue
        if url not in paths:
            paths[url] = universal_path(url)
        systems.setdefault(id(paths[url].fs), []).append(number)
    for numbers in systems.values():
        contents |= _of_system([(paths[spans[number][0]], *spans[number]) for number in numbers], numbers)
    return [contents[number] for number in range(len(spans))]


def _of_system(spans: Sequence[tuple[upath.UPath, str, int, int]], numbers: Sequence[int]) -> dict[int, bytes]:
    """The bytes of spans of one file system, by their numbers."""
    first, last = [offset for _, _, offset, _ in spans], [offset + size for _, _, offset, size in spans]
    every = [path.path for path, *_ in spans]
    names, starts, ends = merge_offset_ranges(every, first, last, max_gap=GAP, max_block=MOST)
    blocks: dict[str, list[tuple[int, int, Any]]] = {}
    read = spans[0][0].fs.cat_ranges(names, starts, ends, on_error="return")
    for name, start, end, block in zip(names, starts, ends, read, strict=True):
        blocks.setdefault(name, []).append((start, end, block))
    contents = {}
    for number, (path, url, offset, size) in zip(numbers, spans, strict=True):
        of_file = blocks[path.path]
        start, end, block = of_file[bisect_right(of_file, offset, key=itemgetter(0)) - 1]
        if isinstance(block, (FileNotFoundError, IsADirectoryError)):
            raise gone(url)
        if isinstance(block, BaseException):
            with _reached(url):
                raise block
        if len(block) > end - start:
            raise UnreadableShard(
                f"{safe_url(url)} comes as a whole where {end - start} of its bytes are asked for, as from a web "
                "server that knows no ranges: copy the shards where parts can be read, and say where with --shards"
            )
        contents[number] = bytes(block[offset - start : offset - start + size])
        if len(contents[number]) != size:
            raise UnreadableShard(
                f"{safe_url(url)} holds {len(contents[number])} of {size} bytes at {offset}; it is not the file that "
                "was read first, so give that one with --shards"
            )
    return contents


def _read_folder(folder: Path, url: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    laid = laid_out(folder)
    contents = []
    for offset, size in spans:
        try:
            number = laid.number_at(offset)
            data = laid.paths[number].read_bytes()
        except (IndexError, FileNotFoundError):
            data = b""
        if len(data) != size:
            raise UnreadableShard(
                f"{safe_url(url)} holds other images than when it was read first: give that folder with --shards, or "
                "make another store"
            )
        contents.append(data)
    return contents


def _folder_at(url: str) -> Path:
    folder = local_path(url)
    if folder is None or not folder.is_dir():
        raise missing(url)
    return folder
