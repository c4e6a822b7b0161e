"""What the pages' search reads, and how much of it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores.pages.content import AtlasPage, Column, Photo
from stores.pages.folder import SITE_FOLDER
from stores.pages.website import Site
from tests.stores.pages.test_pages import EVIL, LAYER, Jpeg, data, layer, neuron, write


def part_named(key: str, parts: int) -> int:
    """Taken modulo once at the end, not after each step: the same."""
    units = memoryview(key.encode("utf-16-le")).cast("H").tolist()
    return int(sum(unit * 31**power for power, unit in enumerate(reversed(units))) % 1_000_003 % parts)


def indexed(folder: Path, name: str) -> dict[str, Any]:
    """What an index has by key, each in the part that its key names."""
    parts = data(folder / "layer.js")["indexes"][name]
    assert parts == len(list(folder.glob(f"{name}-[0-9]*.js")))
    found = {}
    for number in range(parts):
        for key, value in data(folder / f"{name}-{number}.js"):
            assert part_named(key, parts) == number
            found[key] = value
    return found


def test_photographs_lie_in_the_order_of_their_names_and_each_part_says_where_it_begins(
    tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.pages.data.values.PER_PART", 100)
    keys = {f"image{number}": [number % 2] for number in range(10)} | {"слон, \U0001f418": [1, 0], "__proto__": [0]}
    keys |= {"a/IMAGE3": [1], "b/image3": [0], "image10": [1], "\uffee": [0], "\U0001f418": [1]}
    asked = [(Photo("ab12", key, 0.0, "bee"), neurons) for key, neurons in keys.items()]
    write(tmp_path, pool, [neuron(0), neuron(1)], layer(photographs=asked), {"ab12": jpeg(9)})
    folder = tmp_path / SITE_FOLDER / "0" / LAYER
    first = data(folder / "layer.js")
    begins = first["begins"]
    assert len(begins) == first["indexes"]["photographs"] > 2
    parts = [data(folder / f"photographs-{part}.js") for part in range(len(begins))]
    assert {key: value for part in parts for key, value in part} == {key: ["ab12", "bee", n] for key, n in keys.items()}

    def order(key: str) -> list[int]:
        text = key.rpartition("/")[2].lower() + "\n" + key
        return list(memoryview(text.encode("utf-16-le")).cast("H"))

    assert [key for part in parts for key, _ in part] == sorted(keys, key=order)
    for begin, before, part in zip(begins[1:], parts, parts[1:], strict=False):
        units = list(memoryview(begin.encode("utf-16-le")).cast("H"))
        assert order(before[-1][0]) < units <= order(part[0][0])


def test_every_part_of_a_word_finds_its_neurons(
    tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a look at every name: whatever two letters or more, or one that a word begins with."""
    monkeypatch.setattr("stores.pages.data.values.PER_PART", 100)
    names = ["Goldfish", "gold finch", "owl", "", "Owl's  Eye", "ein Ölfink", "owl", EVIL.replace("\udcff", "")]
    page = layer([1] * 8, names=names, labels=[("gold fish", 5, 3), ("fish", 2, 4), ("fish", 5, 1)])
    write(tmp_path, pool, [neuron(number) for number in range(8)], page, {"ab12": jpeg(9)})
    folder = tmp_path / SITE_FOLDER / "0" / LAYER

    indexes = {name: indexed(folder, name) for name in ("names", "labels")}

    def found(word: str, index: str) -> dict[int, int]:
        counts: Counter[int] = Counter()
        for end, steps, *weights in indexes[index].get(word[:2], []):
            if end.startswith(word):
                for neuron_, weight in zip(np.cumsum(steps).tolist(), *(weights or [[1] * len(steps)]), strict=True):
                    counts[neuron_] += weight
        return dict(counts)

    words = {word for name in names for word in name.lower().split()}
    asked = {word[first:last] for word in words for first in range(len(word)) for last in range(first + 2, 99)}
    for part in asked | {"zz", "fishy"}:
        if len(part) > 1:
            assert set(found(part, "names")) == {number for number, name in enumerate(names) if part in name.lower()}
    assert set(found("o", "names")) == {2, 4, 6, 7}
    assert found("fi", "labels") == {5: 4, 2: 4}
    assert found("old", "labels") == {5: 3}


def test_what_is_read_first_does_not_grow_with_the_layer(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    def size(count: int) -> int:
        values = np.random.default_rng(0).random(count)
        page = layer([1] * count, names=[f"name {number}" for number in range(count)])
        page = replace(
            page, columns=[Column("one", "", values), Column("two", "", values)], coordinates=np.ones((count, 2))
        )
        site = Site(tmp_path / str(count), "Atlas", [AtlasPage("one", "one.zarr")], pool)
        site.layer(0, page)
        files = {path.name: path.stat().st_size for path in (tmp_path / str(count)).rglob(f"{LAYER}/*.js")}
        assert max(size for name, size in files.items() if name.startswith(("captions-", "values-"))) < 4000
        return files["layer.js"]

    # one more digit each of the count and of the number of an index's parts
    assert abs(size(3000) - size(100)) <= 20
