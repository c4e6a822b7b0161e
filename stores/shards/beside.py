"""What lies beside shards: how many samples each should hold, and the names of the classes."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from stores.errors import MissingShard, UnreadableShard
from stores.files import read_bytes, safe_url, universal_path
from stores.shards.finding import ShardFile

MANIFEST = "sizes.json"
"""What webdataset's own tools call it, and `stores.shards.writing` too."""
MANIFEST_BYTES = 64 << 20
"""At most: a hundred for each of 600,000 shards."""
CLASS_NAMES = "classes.json"


def stated(shards: Sequence[ShardFile], manifest: str | None) -> list[ShardFile]:
    """The shards with the number of samples that ``manifest`` states of each, or ``sizes.json`` beside them where none
    is given; shards of which nothing is stated stay as they are.

    Raises:
        MissingShard: the manifest is not there, or names a shard of these folders that is missing.
        UnreadableShard: it is no manifest.
    """
    counts: dict[str, int] = {}
    if manifest is not None:
        counts = read_manifest(manifest)
        if not any(shard.name in counts for shard in shards):
            raise UnreadableShard(
                f"{safe_url(manifest)} states nothing of {shards[0].name} or any other of the {len(shards)} shards: "
                "give the manifest of these shards"
            )
    else:
        for folder in dict.fromkeys(shard.url.rpartition("/")[0] for shard in shards):
            if "?" not in folder:
                with contextlib.suppress(MissingShard):
                    counts |= read_manifest(f"{folder}/{MANIFEST}")
    return [replace(shard, stated=counts.get(shard.name, -1)) for shard in shards]


def read_manifest(url: str) -> dict[str, int]:
    """Samples by base name of the shard.

    Two forms are known: ``{"000.tar": 1000, …}``, and the index that webdataset's ``widsindex`` writes,
    ``{"shardlist": [{"url": "000.tar", "nsamples": 1000}, …]}``.
    """
    try:
        with universal_path(url).open("rb") as file:
            content = file.read(MANIFEST_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise MissingShard(f"there is no manifest at {safe_url(url)}; check the path or URL") from None
    try:
        stated = json.loads(content)
        pairs = (
            [(part["url"], part["nsamples"]) for part in stated["shardlist"]]
            if "shardlist" in stated
            else stated.items()
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


def read_class_names(urls: Iterable[str]) -> list[str]:
    """Names by class number from the folder of the first shard that has them; none where no folder has a list.

    Shards of two folders with different lists have no common numbers, hence no names.
    """
    lists = [names for folder in sorted({url.rpartition("/")[0] for url in urls}) if (names := _class_names(folder))]
    return lists[0] if lists and all(names == lists[0] for names in lists) else []


def _class_names(folder: str) -> list[str]:
    try:
        names = json.loads(read_bytes(f"{folder}/{CLASS_NAMES}" if folder else CLASS_NAMES) or b"[]")
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
