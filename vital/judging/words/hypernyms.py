"""Broader words of classes that have a WordNet id, from WordNet's own file of nouns (`data.noun`, see wndb(5WN)).

The number in an id, as 2085620 in ``n02085620``, is the place of the line in the file of WordNet 3.0 in bytes. So
nothing is searched for, and a file of another version is known by having something else there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vital.errors import UnsuitableInput
from vital.network.neurons import folded, spellings

_LINE = re.compile(rb"^\d{8} \d\d n [0-9a-f]{2} ", re.MULTILINE)
_BEGINNING = 10_000
"""Bytes in which the first noun stands, behind the licence."""
_ABOVE = ("@", "@i")
"""Pointers to what a noun is a kind of, and is one of."""


@dataclass(frozen=True)
class _Synset:
    words: list[str]
    above: list[int]


def has_nouns(content: bytes) -> bool:
    """Whether it is WordNet's file of nouns, of any version."""
    return _LINE.search(content[:_BEGINNING]) is not None


def hypernyms(content: bytes, positions: Mapping[str, int], taken: Collection[str] = ()) -> dict[str, list[int]]:
    """What stands in WordNet above the ids in ``positions``, and the sorted positions of those that it stands above.

    A word is called by its first name, or by all of them where two have the same first. One that is spelt like a name
    that is ``taken`` (`vital.network.neurons.spellings`) means something else there: what it is a kind of stands behind
    it, as in "amphibian (vertebrate)", since a class of that name is a vehicle. Words that stand above one position
    alone or above all of them are left out, and of several above the same ones all but the nearest.

    Raises:
        UnsuitableInput: half of the ids or more are not where they are in WordNet 3.0.
    """
    synsets: dict[int, _Synset] = {}
    below: dict[int, set[int]] = defaultdict(set)
    missing = 0
    for name, position in positions.items():
        open_ = [int(name[1:])]
        missing += not _read(content, open_[0], synsets)
        while open_:
            if (at := open_.pop()) in synsets and position not in below[at]:
                below[at].add(position)
                open_ += [above for above in synsets[at].above if _read(content, above, synsets)]
    if 2 * missing >= len(positions):
        raise UnsuitableInput(
            f"{missing} of {len(positions)} WordNet ids, such as {next(iter(positions), '')!r}, are not in this file "
            "of nouns: give data.noun of WordNet 3.0, from which ImageNet's ids are"
        )
    depths: dict[int, int] = {}
    every, chosen = set(positions.values()), dict[frozenset[int], int]()
    for at in sorted(below, key=lambda at: (-_depth(at, synsets, depths), at)):
        if 1 < len(below[at]) < len(every):
            chosen.setdefault(frozenset(below[at]), at)
    first = [synsets[at].words[0] for at in chosen.values()]
    called = [
        word if first.count(word) == 1 else ", ".join(synsets[at].words)
        for word, at in zip(first, chosen.values(), strict=True)
    ]
    theirs = {name for names in taken for name in spellings(names)}
    return {
        _told_apart(word, synsets[at], synsets) if folded(word) in theirs else word: sorted(found)
        for word, (found, at) in zip(called, chosen.items(), strict=True)
    }


def _told_apart(word: str, synset: _Synset, synsets: Mapping[int, _Synset]) -> str:
    kind = next((synsets[above].words[0] for above in synset.above if above in synsets), "broader")
    return f"{word} ({kind})"


def _read(content: bytes, offset: int, synsets: dict[int, _Synset]) -> bool:
    """Put the line at ``offset`` among the ``synsets``; false where none begins there."""
    if offset in synsets:
        return True
    if not content.startswith(b"%08d " % offset, offset):
        return False
    fields = content[offset : content.find(b" |", offset)].decode("utf-8", "replace").split()
    last = 4 + 2 * int(fields[3], 16)  # words, each with a number, from the fourth field on; then a count, and pointers
    words, pointers = fields[4:last:2], fields[last + 1 :]
    above = [int(to) for kind, to in zip(pointers[::4], pointers[1::4], strict=True) if kind in _ABOVE]
    synsets[offset] = _Synset([word.replace("_", " ") for word in words], above)
    return True


def _depth(at: int, synsets: Mapping[int, _Synset], depths: dict[int, int]) -> int:
    """How many stand above it on the longest way."""
    if at not in depths:
        depths[at] = 0  # a file that goes in circles ends, too
        above = [one for one in synsets[at].above if one in synsets]
        depths[at] = 1 + max((_depth(one, synsets, depths) for one in above), default=-1)
    return depths[at]
