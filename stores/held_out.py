"""Shards parted in two, so that some labelled photographs are held out: none of them becomes a reference."""

import hashlib
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from stores.packing import add_file
from stores.shards import LABEL_EXTENSION, Sample, ShardReader, expand


def hold_out(shards: Sequence[str], out: Path) -> tuple[Path, Path]:
    """Write ``OUT/references.tar`` and ``OUT/held-out.tar``, with the same bytes for the same shards.

    Of every class with at least two images, half of them, rounded down, are held out: those whose keys have the
    highest hash, so that the choice depends neither on the shards nor on their order. All others are references; the
    only image of a class loses its label, since nothing could be held out to compare its picture with. All images are
    in memory at once: this is for small sets.

    Raises:
        MissingShard, UnreadableShard: as for any shard.
    """
    samples = [sample for shard in expand(shards) for sample in ShardReader(shard) if sample.image is not None]
    classes: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.label >= 0:
            classes[sample.label].append(sample)
    chosen = {
        sample.key
        for members in classes.values()
        for sample in sorted(members, key=_lot)[len(members) - len(members) // 2 :]
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = out / "references.tar", out / "held-out.tar"
    for path, held in zip(paths, (False, True), strict=True):
        unfinished = path.with_suffix(".unfinished")
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
            for sample in samples:
                if (sample.key in chosen) is held:
                    _add(archive, sample, len(classes.get(sample.label, ())) > 1)
        unfinished.rename(path)
    return paths


def _lot(sample: Sample) -> bytes:
    return hashlib.sha256(f"held out {sample.key}".encode()).digest()


def _add(archive: tarfile.TarFile, sample: Sample, labelled: bool) -> None:
    assert sample.image is not None
    if labelled:
        add_file(archive, f"{sample.key}.{LABEL_EXTENSION}", str(sample.label).encode())
    add_file(archive, f"{sample.key}.{_ending(sample.image)}", sample.image)


def _ending(data: bytes) -> str:
    """The extension that belongs to an image's first bytes; readers go by the bytes, people by the name."""
    kinds = {b"\\xff\\xd8": "jpg", b"\\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
    return next((ending for start, ending in kinds.items() if data.startswith(start)), "jpg")


def members(shard: Path) -> list[Sample]:
    """All images of a small shard."""
    return [sample for file in expand([str(shard)]) for sample in ShardReader(file) if sample.image is not None]
