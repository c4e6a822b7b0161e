"""What lies beside shards: how many samples each should hold, and the names of the classes."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from stores.errors import MissingShard, StoreError, UnreachableStore, UnreadableShard
from stores.files import first_line, parsed, read_bytes, safe_url, universal_path
from stores.shards.finding import ShardFile

MANIFESTS = ("sizes.json", "_info.json")
"""What webdataset's own tools call it, and `stores.shards.writing` too; and what shards on Hugging Face have."""
MANIFEST_BYTES = 64 << 20
"""At most: a hundred for each of 600,000 shards."""
CLASS_NAMES = "classes.json"
MOST_CLASSES = 1_000_000


def stated(shards: Sequence[ShardFile], manifest: str | None) -> list[ShardFile]:
    """The shards with the number of samples that ``manifest`` states of each, or one of `MANIFESTS` beside them where
    none is given; shards of which nothing is stated stay as they are.

    Raises:
        MissingShard: the manifest is not there.
        UnreadableShard: it is no manifest. What lies beside the shards may be another tool's, of which nothing is read.
    """
    names = {shard.name for shard in shards}
    if manifest is not None:
        counts = read_manifest(manifest)
        if not names & counts.keys():
            raise UnreadableShard(
                f"{safe_url(manifest)} states nothing of {shards[0].name} or any other of the {len(shards)} shards: "
                "give the manifest of these shards"
            )
    else:
        counts = {}
        for folder in dict.fromkeys(shard.url.rpartition("/")[0] for shard in shards if shard.part is None):
            for name in MANIFESTS if "?" not in folder else ():
                counted = _beside(f"{folder}/{name}", names)
                counts |= {shard: count for shard, count in counted.items() if shard not in counts}
    return [replace(shard, stated=counts.get(shard.name, -1)) for shard in shards]


def read_manifest(url: str) -> dict[str, int]:
    """Samples by base name of the shard.

    Three forms are known: ``{"000.tar": 1000, …}``; the index that webdataset's ``widsindex`` writes,
    ``{"shardlist": [{"url": "000.tar", "nsamples": 1000}, …]}``; and the ``_info.json`` of shards on Hugging Face,
    ``{"splits": {"train": {"filenames": ["000.tar", …], "shard_lengths": [1000, …]}}}``.

    Raises:
        MissingShard: there is nothing.
        UnreadableShard: it is no manifest.
    """
    content = _content(url)
    if content is None:
        raise MissingShard(f"there is no manifest at {safe_url(url)}; check the path or URL")
    try:
        return {name: _count(count) for name, count in _stated(parsed(content)).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableShard(
            f'{safe_url(url)} is no manifest ({error}): it should be JSON such as {{"000.tar": 1000}}, or an index '
            "with a shardlist of url and nsamples"
        ) from None


def _beside(url: str, names: Set[str]) -> dict[str, int]:
    """What a file beside the shards states of them; nothing where it is of another form."""
    content = _optional(_content, url)
    if content is None:
        return {}
    try:
        told = parsed(content)
        try:
            table = _stated(told)
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}
        return {name: _count(count) for name, count in table.items() if name in names}
    except (ValueError, TypeError) as error:
        raise UnreadableShard(
            f"{safe_url(url)} lies beside the shards and states no numbers of samples ({error}): rename it, or say how "
            "many there are with --manifest"
        ) from None


def _content(url: str) -> bytes | None:
    try:
        with universal_path(url).open("rb") as file:
            return bytes(file.read(MANIFEST_BYTES + 1))
    except (FileNotFoundError, IsADirectoryError):
        return None


def _optional(read: Callable[[str], bytes | None], url: str) -> bytes | None:
    """What ``read`` finds at ``url``, None where there is nothing.

    To who may not list a bucket, its service says of what is not there that it is forbidden. Anything else that goes
    wrong is told: without the file, labels would mean something else.
    """
    try:
        return read(url)
    except (PermissionError, NotADirectoryError, IsADirectoryError):
        return None
    except StoreError:
        raise
    except Exception as error:  # every service has errors of its own
        if getattr(error, "status", None) in (401, 403, 404):  # of a web server
            return None
        raise UnreachableStore(
            f"{safe_url(url)}, which may lie beside the shards, cannot be read ({first_line(error)}): check the "
            "network, and run the same command again"
        ) from error


def _stated(table: Any) -> dict[str, Any]:
    if "shardlist" in table:
        pairs = [(part["url"], part["nsamples"]) for part in table["shardlist"]]
    elif "splits" in table:
        parts = [part for part in table["splits"].values() if "shard_lengths" in part]
        pairs = [pair for part in parts for pair in zip(part["filenames"], part["shard_lengths"], strict=True)]
    else:
        pairs = list(table.items())
    paths = ((str(name), count) for name, count in pairs)
    return {PurePosixPath(urlsplit(path).path if "://" in path else path).name: count for path, count in paths}


def _count(value: Any) -> int:
    """A whole number, also as other tools write it: as text, or with a decimal point."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number of samples")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not number.is_integer() or number < 0:
        raise ValueError(f"{value!r} is no number of samples")
    return int(number)


def read_class_names(urls: Iterable[str]) -> list[str]:
    """Names by class number from the folder of the first shard that has them; none where no folder has a list.

    A list by number, or an object of numbers and names, either way round; of several names of a class the first.
    Shards of two folders with different lists have no common numbers, hence no names.

    Raises UnreadableShard: the list is none. Without it, labels would mean something else.
    """
    lists = [names for folder in sorted({url.rpartition("/")[0] for url in urls}) if (names := _class_names(folder))]
    return lists[0] if lists and all(names == lists[0] for names in lists) else []


def _class_names(folder: str) -> list[str]:
    url = f"{folder}/{CLASS_NAMES}" if folder else CLASS_NAMES
    try:
        content = parsed(_optional(read_bytes, url) or b"[]", once=True)
        if not isinstance(content, list | dict):
            raise TypeError(f"a {type(content).__name__} is no list")
        pairs: list[tuple[Any, Any]] = list(content.items() if isinstance(content, dict) else enumerate(content))
        if not all(str(number).isdecimal() for number, _ in pairs):
            pairs = [(number, name) for name, number in pairs]  # as torchvision's class_to_idx
        table = {int(str(number)): _first(name) for number, name in pairs}
        if len(table) < len(pairs) or min(table, default=0) < 0 or max(table, default=0) > MOST_CLASSES:
            raise ValueError("a number stands twice, or is none of a class")
    except (ValueError, TypeError) as error:
        raise UnreadableShard(
            f'{safe_url(url)} says not which class is called what ({error}): give ["tench", "shark"] or '
            '{"tench": 0, "shark": 1}, or take the file away'
        ) from None
    return [table.get(number, "") for number in range(max(table, default=-1) + 1)]


def _first(name: Any) -> str:
    """A name, or the first of several, as the WordNet id of ``["n01440764", "tench"]``."""
    first = name[0] if isinstance(name, list) and name else name
    if first is not None and not isinstance(first, str | int | float):
        raise TypeError(f"{first!r} is no name")
    return "" if first is None else str(first)
