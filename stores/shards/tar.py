"""A tar as a stream: its files with their positions, the digest of its bytes, and whether it is whole.

``tarfile`` ends silently at a damaged header and at a missing end mark, so the bytes that pass are watched here.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from webdataset.tariterators import base_plus_ext

from stores.errors import UnreadableShard

MAGIC = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x04\x22\x4d\x18", b"\x1f\x9d",
    b"7z\xbc\xaf", b"Rar!", b"]\x00\x00", b"LZIP",
)  # fmt: skip
"""How gzip, zstd, bzip2, xz, zip, lz4, compress, 7-Zip, RAR, lzma and lzip begin."""
LFS = b"version https://git-lfs"
TAR_BLOCK = 512
END_MARK = 2 * TAR_BLOCK
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class TarMember:
    """A file of a tar: where its bytes begin, how many they are, and the bytes where they were read.

    ``there`` is false for a link and for a sparse file: what the file holds does not lie at its place.
    """

    offset: int
    size: int
    data: bytes | None
    there: bool = True


@runtime_checkable
class ByteSource(Protocol):
    """What fsspec opens; its remote files are no BinaryIO to a type checker."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most ``size``; none at the end."""
        ...


class HashedStream:
    """Bytes that pass once, from the first to the last, as tarfile asks for them. They are hashed and counted, and the
    position of the last one that was not zero is remembered.

    They are read by large blocks, of which tarfile's own stream copies all that is left with each header.
    """

    def __init__(self, raw: ByteSource) -> None:
        self._raw, self._block, self._at = raw, b"", 0
        self.digest = hashlib.sha256()
        self.length = 0
        """Bytes read so far, of which some may not have been asked for."""
        self.content_end = 0
        self.head = b""

    def tell(self) -> int:
        """How many bytes were given."""
        return self.length - len(self._block) + self._at

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer at the end."""
        parts = [self._taken(count)]
        while (count := count - len(parts[-1])) > 0 and self._advance():
            parts.append(self._taken(count))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, position: int) -> None:
        """Let everything before ``position`` pass, as far as there is something. Raises StreamError where that was
        given already."""
        if position < self.tell():
            raise tarfile.StreamError("seeking backwards is not allowed")
        while self.length < position and self._advance():
            pass
        self._at = min(len(self._block), len(self._block) - self.length + position)

    def drain(self) -> None:
        """Let the rest pass, so that the digest is that of the whole file."""
        while self._advance():
            pass

    def _taken(self, count: int) -> bytes:
        begun, self._at = self._at, min(len(self._block), self._at + max(count, 0))
        return self._block[begun : self._at]

    def _advance(self) -> bool:
        """Whether there is another block; what is left of the one before is forgotten."""
        data = self._block = self._raw.read(READ_BYTES)
        self._at = 0
        self.digest.update(data)
        if len(self.head) < TAR_BLOCK:
            self.head += data[:TAR_BLOCK]
        if filled := len(data.rstrip(b"\0")):
            self.content_end = self.length + filled
        self.length += len(data)
        return bool(data)


class TarMembers:
    """Iterates over a tar's files as ``group_by_keys`` takes them, and can say afterwards whether the tar was whole.

    Files are read where ``wanted(extension, size)`` says so, and only their position is given otherwise. Raises
    UnreadableShard, while iterating, for what is no tar from its first byte.
    """

    def __init__(self, stream: HashedStream, name: str, wanted: Callable[[str, int], bool]) -> None:
        self._stream = stream
        self._name = name
        self._wanted = wanted
        self._end = 0
        self._cut: str | None = None
        self.files = 0
        """Files seen, those without an ending included."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        key: str | None = None
        extensions: set[str] = set()
        with self._archive() as archive:
            while True:
                try:
                    info = archive.next()
                    self._end = archive.offset
                    if info is None:
                        break
                    there = info.isreg() and not info.issparse()
                    if not (there or info.isreg() or info.islnk() or info.issym()):
                        continue
                    self.files += 1
                    stem, extension = base_plus_ext(info.name)
                    if info.name.rpartition("/")[2].startswith(".") or (extension or "").startswith("__"):
                        # of another program, such as macOS's "._0001.jpg" beside each file; or what webdataset keeps of
                        # a sample, such as "0001.__url__"
                        stem = extension = None
                    wanted = there and extension is not None and self._wanted(extension.lower(), info.size)
                    data = self._content(info) if wanted else None
                    member = TarMember(info.offset_data, info.size, data, there)
                # caught here and not around the loop: group_by_keys would lose the sample it is about to yield
                # ValueError: damaged numbers in extended headers
                except (tarfile.TarError, ValueError) as error:
                    self._cut = f"ends inside a file at byte {self._stream.length} ({error})"
                    break
                finally:
                    # tarfile keeps every header it has seen
                    archive.members = []
                if stem is None:
                    continue
                if stem != key:
                    key, extensions = stem, set()
                elif extension.lower() in extensions:
                    # the same name again: a sample of its own, which group_by_keys would refuse
                    extensions = set()
                    yield {}
                extensions.add(extension.lower())
                yield {"fname": info.name, "data": member, "__url__": self._name}

    def _archive(self) -> Any:
        try:
            return tarfile.TarFile(fileobj=cast(Any, self._stream), encoding="utf-8")
        except (tarfile.TarError, ValueError) as error:
            raise UnreadableShard(self._refusal(str(error))) from None

    def _content(self, info: tarfile.TarInfo) -> bytes:
        self._stream.seek(info.offset_data)
        data = self._stream.read(info.size)
        if len(data) != info.size:
            raise tarfile.ReadError(f"{len(data)} of {info.size} bytes")
        return data

    def short(self) -> str | None:
        """Why the tar ends too early, once all of its bytes have passed."""
        if self._cut is not None:
            return self._cut
        if self._stream.content_end > self._end:
            return f"holds bytes after its end, byte {self._end}: a damaged header, or tars joined into one file"
        if self._stream.length < self._end + END_MARK:
            return f"ends at byte {self._stream.length} without an end mark"
        return None

    def _refusal(self, reason: str) -> str:
        head = self._stream.head
        if any(head.startswith(magic) for magic in MAGIC):
            return compressed_refusal(self._name)
        if head.startswith(LFS):
            return (
                f"{self._name} is no tar but the pointer of Git LFS to one: fetch the file itself, as with git lfs pull"
            )
        return f"{self._name} is no tar ({reason}); give a plain tar, such as vital pack writes"


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar does, whatever its name is."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(TAR_BLOCK)[257:262] == b"ustar"
    return False


def is_compressed(path: Path) -> bool:
    """Whether a file begins as compressed ones do, whatever its name is."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(max(map(len, MAGIC))).startswith(MAGIC)
    return False


def compressed_refusal(name: str) -> str:
    """The sentence that refuses the compressed tar called ``name``."""
    return (
        f"{name} is compressed, but images are read by their position in a plain tar; decompress it first (for "
        "example with gunzip or zstd -d)"
    )
