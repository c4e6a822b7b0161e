"""What lies beside shards: how many samples each should hold, and the names of the classes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from stores.errors import MissingShard, UnreadableShard
from stores.files import local_path, safe_url
from stores.shards.reading import ShardFile

BESIDE = "sizes.json"
"""What webdataset's own tools call it, and `stores.shards.writing` too."""
LIMIT = 64 << 20
"""Bytes of a manifest: a hundred for each of 600,000 shards."""


def stated(shards: Sequence[ShardFile], manifest: str | None) -> list[ShardFile]:
    """The shards with the number of samples that ``manifest`` states of each, or ``sizes.json`` beside them where none
    is given; shards of which nothing is stated stay as they are.

    Raises:
        MissingShard: the manifest is not there, or names a shard of these folders that is missing.
        UnreadableShard: it is no manifest.
    """
    if manifest is not None:
        counts = read_manifest(manifest)
        if not any(shard.name in counts for shard in shards):
            raise UnreadableShard(
                f"{safe_url(manifest)} states nothing of {shards[0].name} or any other of the {len(shards)} shards: "
                "give the manifest of these shards"
            )
    else:
        counts = {}
        for folder in dict.fromkeys(shard.url.rpartition("/")[0] for shard in shards):
            if "?" not in folder and _exists(f"{folder}/{BESIDE}"):
                counts |= read_manifest(f"{folder}/{BESIDE}")
    return [replace(shard, stated=counts.get(shard.name, -1)) for shard in shards]


def read_manifest(url: str) -> dict[str, int]:
    """Samples by base name of the shard.

    Two forms are known: ``{"000.tar": 1000, …}``, and the index that webdataset's ``widsindex`` writes,
    ``{"shardlist": [{"url": "000.tar", "nsamples": 1000}, …]}``.
    """
    try:
        with fsspec.open(url, "rb") as file:
            content = file.read(LIMIT + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise MissingShard(f"there is no manifest at {safe_url(url)}; check the path or URL") from None
    try:
        found = json.loads(content[: LIMIT + 1])
        pairs = (
            [(part["url"], part["nsamples"]) for part in found["shardlist"]] if "shardlist" in found else found.items()
        )
        return {PurePosixPath(urlsplit(str(name)).path).name: _count(count) for name, count in pairs}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableShard(
            f'{safe_url(url)} is no manifest ({error}): it should be JSON such as {{"000.tar": 1000}}, or an index '
            "with a shardlist of url and nsamples"
        ) from None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of samples")
    return value


def _exists(url: str) -> bool:
    path = local_path(url)
    if path is not None:
        return path.is_file()
    filesystem, remote = fsspec.core.url_to_fs(url)
    return bool(filesystem.exists(remote))


FILE = "classes.json"


def read_class_names(urls: Iterable[str]) -> list[str]:
    """Names by class number from the folder of the first shard that has them; none where no folder has a list.

    Shards of two folders with different lists have no common numbers, hence no names.
    """
    lists = [names for folder in sorted({url.rpartition("/")[0] for url in urls}) if (names := _list(folder))]
    return lists[0] if lists and all(names == lists[0] for names in lists) else []


def _list(folder: str) -> list[str]:
    place = f"{folder}/{FILE}" if folder else FILE
    path = local_path(place)
    try:
        if path is not None:
            text = path.read_text("utf-8")
        else:
            filesystem, remote = fsspec.core.url_to_fs(place)
            text = filesystem.cat_file(remote).decode("utf-8")
        found = json.loads(text)
    except (OSError, ValueError):
        return []
    return [str(name) for name in found] if isinstance(found, list) else []
