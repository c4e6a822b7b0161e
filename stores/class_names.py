"""Names of the classes that shards are labelled with, from the ``classes.json`` that `stores.packing.pack` leaves
beside them."""

import json
from collections.abc import Iterable

import fsspec

from stores.locations import local_path

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
