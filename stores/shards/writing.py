"""Shards written: from a folder of images, and parts of shards held out."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stores.errors import UnsuitableFolder
from stores.shards.bands import is_array
from stores.shards.beside import CLASS_NAMES, read_class_names
from stores.shards.decoding import format_of
from stores.shards.finding import class_names_of, expand
from stores.shards.folders import Surveyed, survey
from stores.shards.labels import LABEL_EXTENSION, NO_LABEL, LabelRule, folded
from stores.shards.reading import ShardReader, ShardSample


@dataclass(frozen=True)
class _Item:
    """An image to pack: its file, key and class number, −1 in a folder without classes."""

    path: Path
    key: str
    label: int


def pack(
    folder: Path | Surveyed,
    out: Path,
    per_shard: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the images of ``folder`` as ``OUT/NAME-000000.tar`` and so on, ``per_shard`` images each; returns the tars.

    Sub-folders are classes: `stores.shards.folders.survey` says how they are numbered and what is left out, and
    ``OUT/classes.json`` lists their names by number. A flat folder has no labels and an empty list. ``OUT/sizes.json``
    says how many images each tar holds.
    ``progress(done, total)`` is called after every image. The output appears whole, by rename.

    Raises:
        UnsuitableFolder: no images, images both in and beside class folders, or an output that exists.
    """
    if per_shard < 1:
        raise UnsuitableFolder(f"shards of {per_shard} images were asked for; a shard holds at least one")
    if out.exists():
        raise UnsuitableFolder(f"{out} exists already; remove it or choose another output")
    surveyed = survey(folder) if isinstance(folder, Path) else folder
    items = _items(surveyed)
    name = _safe(surveyed.folder.resolve().name) or "images"
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    names = []
    for number, start in enumerate(range(0, len(items), per_shard)):
        names.append(f"{name}-{number:06d}.tar")
        with tarfile.open(unfinished / names[-1], "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
            for position, item in enumerate(items[start : start + per_shard], start):
                _add(archive, item)
                if progress is not None:
                    progress(position + 1, len(items))
    counts = {name: min(per_shard, len(items) - number * per_shard) for number, name in enumerate(names)}
    (unfinished / "sizes.json").write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
    (unfinished / CLASS_NAMES).write_text(json.dumps(surveyed.classes, ensure_ascii=False, indent=1) + "\n", "utf-8")
    unfinished.rename(out)
    return [out / name for name in names]


def _items(surveyed: Surveyed) -> list[_Item]:
    taken: set[str] = set()
    named = (
        (path, f"{surveyed.classes[label]}__{path.stem}" if surveyed.classes else path.stem, label)
        for path, label in surveyed.images
    )
    return [_Item(path, _key(name, taken), label) for path, name, label in named]


def _key(name: str, taken: set[str]) -> str:
    """A key that is not taken yet: without dots, at which a tar's reader would split it."""
    first = key = _safe(name) or "image"
    number = 2
    while key in taken:
        key = f"{first}-{number}"
        number += 1
    taken.add(key)
    return key


def _safe(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-")


def _add(archive: tarfile.TarFile, item: _Item) -> None:
    if item.label != NO_LABEL:
        add_file(archive, f"{item.key}.{LABEL_EXTENSION}", str(item.label).encode())
    add_file(archive, f"{item.key}{item.path.suffix.lower()}", item.path.read_bytes())


def add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member of which only its name and its bytes are known."""
    # a new TarInfo has time 0, owner 0 and mode 0644: nothing of this machine
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def hold_out(shards: Sequence[str], out: Path, key: str = LABEL_EXTENSION) -> tuple[Path, Path]:
    """Write ``OUT/references.tar`` and ``OUT/held-out.tar``, with the same bytes for the same shards.

    Of every class with at least two images, half of them, rounded down, are held out: those whose keys have the
    highest hash, so that the choice depends neither on the shards nor on their order. All others are references; the
    only image of a class loses its label, since nothing could be held out to compare its picture with. Labels stand
    under ``key``, as `stores.shards.labels.LabelRule` has it, and are written as ``.cls``. All images are in memory at
    once: this is for small sets.

    Raises:
        MissingShard, UnreadableShard: as for any shard.
    """
    files = expand(shards)
    names = class_names_of(files) or read_class_names(shard.url for shard in files)
    rule = LabelRule(key, {folded(name): number for number, name in enumerate(names) if name})
    samples = [sample for shard in files for sample in ShardReader(shard, rule) if sample.image is not None]
    classes: dict[int, list[ShardSample]] = defaultdict(list)
    for sample in samples:
        if sample.label >= 0:
            classes[sample.label].append(sample)
    chosen = {
        sample.key
        for of_class in classes.values()
        for sample in sorted(of_class, key=_key_digest)[len(of_class) - len(of_class) // 2 :]
    }
    out.mkdir(parents=True, exist_ok=True)
    if names:
        (out / CLASS_NAMES).write_text(json.dumps(names, ensure_ascii=False) + "\n", "utf-8")
    paths = out / "references.tar", out / "held-out.tar"
    for path, held in zip(paths, (False, True), strict=True):
        unfinished = path.with_suffix(".unfinished")
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
            for sample in samples:
                if (sample.key in chosen) is held:
                    _add_kept(archive, sample, len(classes.get(sample.label, ())) > 1)
        unfinished.rename(path)
    return paths


def _key_digest(sample: ShardSample) -> bytes:
    return hashlib.sha256(f"held out {sample.key}".encode()).digest()


def _add_kept(archive: tarfile.TarFile, sample: ShardSample, labelled: bool) -> None:
    assert sample.image is not None
    if labelled:
        add_file(archive, f"{sample.key}.{LABEL_EXTENSION}", str(sample.label).encode())
    # readers go by the bytes, people by the name
    extension = "npy" if is_array(sample.image) else (format_of(sample.image) or "JPEG").lower().replace("jpeg", "jpg")
    add_file(archive, f"{sample.key}.{extension}", sample.image)


def members(shard: Path) -> list[ShardSample]:
    """All images of a small shard."""
    return [sample for file in expand([str(shard)]) for sample in ShardReader(file) if sample.image is not None]
