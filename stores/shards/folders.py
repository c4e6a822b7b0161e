"""Folders of images as people keep them: what is taken, under which class number, and what is left out and why.

A folder that is read without packing is a shard like a tar: its files lie end to end in the order of their names, and
an image's offset is where it begins among them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from stores.errors import UnsuitableFolder
from stores.shards.bands import ARRAYS
from stores.shards.labels import IMAGE_EXTENSIONS, NO_LABEL, ending

LEFTOVERS = {
    "__MACOSX",
    "@eaDir",
    "lost+found",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
}
"""What file managers and archivers leave in folders."""
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
LARGEST_NUMBER = 100_000
"""Folders named by numbers up to this are named by their class; dates and such are not."""
PER_PART = 1000
"""Images of a folder that are one shard."""


@dataclass(frozen=True)
class Surveyed:
    """A folder's images in the order of their names, each with its class number, −1 where the folder has no classes;
    the names of the classes by number; how many files and folders were left out, by reason."""

    folder: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]
    left_out: Counter[str]
    by_number: bool

    def lines(self) -> Iterator[str]:
        """What was found, for people."""
        named = sum(map(bool, self.classes))
        how = "by the numbers that are their names" if self.by_number else "in the order of their names"
        yield f"{len(self.images)} images, {f'{named} classes, numbered {how}' if named else 'without classes'}"
        if self.left_out:
            yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))


def survey(folder: Path) -> Surveyed:
    """The images of a folder: in class folders, however deep, or all in one. Links are followed, as torchvision's
    ImageFolder does.

    Class folders whose names are all numbers have these numbers; others are counted from 0 in the order of their names.

    Raises:
        UnsuitableFolder: no images, images both in and beside class folders, folders of folders of classes, or a folder
            whose name is not UTF-8.
    """
    if not folder.is_dir():
        raise UnsuitableFolder(f"{folder} is no folder; give one that holds images, or one folder of images per class")
    left_out: Counter[str] = Counter()
    entries = list(_entries(folder, left_out))
    loose = [Path(entry) for entry in entries if not entry.is_dir() and _is_image(entry, left_out)]
    loose = _without_arrays(loose, left_out, any(entry.is_dir() for entry in entries))
    # a class without images keeps its number, as in torchvision's ImageFolder with allow_empty
    folders = [Path(entry) for entry in entries if entry.is_dir()]
    filed = {path.name: _without_arrays(list(_images(path, left_out, (folder,))), left_out) for path in folders}
    count = sum(map(len, filed.values()))
    if loose and count:
        raise UnsuitableFolder(
            f"{folder} holds {len(loose)} images beside its class folders; move them into a class, or pack them alone"
        )
    if not loose and not count:
        if any(entry.name.endswith(".tar") for entry in entries):
            raise UnsuitableFolder(
                f"{folder} holds no images but tars, which need no packing: give them to `vital references`, or a "
                "folder of images"
            )
        raise UnsuitableFolder(f"{folder} holds no images ({', '.join(IMAGE_EXTENSIONS)}); give a folder that does")
    if loose:
        return Surveyed(folder, (), tuple((path, NO_LABEL) for path in loose), left_out, False)
    _refuse_splits(folder, filed)
    numbers, by_number = _numbers(folder, [path.name for path in folders])
    classes = [""] * (max(numbers.values()) + 1)
    for name, number in numbers.items():
        classes[number] = name
    images = [(path, numbers[name]) for name in sorted(filed, key=numbers.__getitem__) for path in filed[name]]
    return Surveyed(folder, tuple(classes), tuple(images), left_out, by_number)


def _numbers(folder: Path, names: Sequence[str]) -> tuple[dict[str, int], bool]:
    digits = all(name.isascii() and name.isdigit() for name in names)
    if not digits or max(map(int, names)) > LARGEST_NUMBER:
        return {name: number for number, name in enumerate(sorted(names))}, False
    numbers = {name: int(name) for name in names}
    if len(set(numbers.values())) < len(names):
        raise UnsuitableFolder(f"{folder} holds two folders of one number, such as 1 and 01: rename or join them")
    return numbers, True


def _refuse_splits(folder: Path, filed: dict[str, list[Path]]) -> None:
    if {name.lower() for name in filed} <= SPLITS and all(
        path.parent != folder / name for name, paths in filed.items() for path in paths
    ):
        first = next(name for name, paths in filed.items() if paths)
        raise UnsuitableFolder(
            f"{folder} holds {', '.join(filed)}, parts of a data set and not its classes: give {folder / first}"
        )


def _entries(folder: Path, left_out: Counter[str]) -> Iterator[os.DirEntry[str]]:
    # scandir knows what an entry is without asking the disk again, which counts where there are millions
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name in LEFTOVERS:
            left_out["left by other programs"] += 1
        elif entry.name.startswith("."):
            left_out["hidden"] += 1
        elif entry.is_symlink() and not Path(entry).exists():
            left_out["broken links"] += 1
        elif not _is_text(entry.name):
            if entry.is_dir():
                raise UnsuitableFolder(f"{folder} holds a folder whose name is not UTF-8, {entry.name!a}: rename it")
            left_out["with names that are not UTF-8"] += 1
        else:
            yield entry


def _is_text(name: str) -> bool:
    """Whether a name can be a key, which is text; the names of old archives may be bytes of another encoding."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _images(folder: Path, left_out: Counter[str], above: tuple[Path, ...]) -> Iterator[Path]:
    """Images of a folder and of those below, in the order of their names, each folder by its own."""
    if any(folder.samefile(one) for one in above):
        left_out["links to a folder above"] += 1
        return
    for entry in _entries(folder, left_out):
        if entry.is_dir():
            yield from _images(Path(entry), left_out, (*above, folder))
        elif _is_image(entry, left_out):
            yield Path(entry)


def _without_arrays(paths: Sequence[Path], left_out: Counter[str], classes: bool = False) -> list[Path]:
    """Images of a folder. Arrays (.npy) are some where there are no others, and else, as beside folders of ``classes``,
    something about these."""
    photos = [path for path in paths if ending(path.name) not in ARRAYS]
    if len(photos) == len(paths) or not (photos or classes):
        return list(paths)
    left_out["arrays beside images (.npy)"] += len(paths) - len(photos)
    return photos


def _is_image(entry: os.DirEntry[str], left_out: Counter[str]) -> bool:
    if "." in entry.name and ending(entry.name) in IMAGE_EXTENSIONS and entry.is_file():
        return True
    left_out[f"no images by their ending ({Path(entry).suffix or 'none'})"] += 1
    return False


@dataclass(frozen=True)
class Laid:
    """The images of one folder end to end: their paths, and where each begins in bytes; the last entry is the end."""

    folder: Path
    paths: tuple[Path, ...]
    begins: tuple[int, ...]

    def key(self, number: int) -> str:
        """The path of an image below the folder's parent, without its ending."""
        return self.paths[number].relative_to(self.folder.parent).with_suffix("").as_posix()

    def number_at(self, offset: int) -> int:
        """The image in which a byte lies; raises IndexError beyond the end."""
        number = bisect_right(self.begins, offset) - 1
        # empty files begin where the next one does
        if not 0 <= number < len(self.paths):
            raise IndexError(offset)
        return number


def laid_out(folder: Path) -> Laid:
    """The images of a folder, with those of the folders below; remembered as long as the folder's own list does not
    change."""
    return _laid_out(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _laid_out(folder: Path, _changed: int) -> Laid:
    # a link to what holds the class folders is not followed, as in `survey`: it would put every image into this class
    paths = tuple(_without_arrays(list(_images(folder, Counter(), (folder.parent,))), Counter()))
    return Laid(folder, paths, tuple(accumulate((path.stat().st_size for path in paths), initial=0)))


def class_folders(surveyed: Surveyed) -> list[tuple[Path, int]]:
    """The folders that are read, each with the class of its images, −1 where there are no classes."""
    if not surveyed.classes:
        return [(surveyed.folder, NO_LABEL)]
    held = {label for _, label in surveyed.images}
    return [(surveyed.folder / name, number) for number, name in enumerate(surveyed.classes) if number in held]
