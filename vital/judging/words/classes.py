"""Which class of a network each class of a data set is: by WordNet id, by name, or by number, in that order of trust.

A folder of three of ImageNet's classes has classes 0, 1 and 2; a network of 1000 has them somewhere else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vital.errors import UnsuitableInput
from vital.network.neurons import folded, spellings

NONE = -1
"""The class of the network where a class of the data set is none of them."""
IMAGENET = 1000
WORDNET_ID = re.compile(r"n\d{8}")
_KNOWN = {0: "tench", 1: "goldfish", 207: "golden retriever", 701: "parachute", 948: "granny smith"}
"""Some of ImageNet's classes, by which its names are known however they are spelt."""


@dataclass(frozen=True)
class Matched:
    """The network's class of each class of a data set, `NONE` where it has none, and by what it was found."""

    numbers: tuple[int, ...]
    by: str


@cache
def wordnet_ids() -> Mapping[str, int]:
    """ImageNet's 1000 classes of 2012: WordNet id to number. Sorted ids are numbered from 0."""
    text = resources.files("vital.judging.words").joinpath("wordnet.txt").read_text("ascii")
    return {name: number for number, name in enumerate(text.split())}


def match_classes(given: Sequence[str], names: Sequence[str], classes: int) -> Matched:
    """The network's class of each of the ``given`` classes, which are named by number, "" where a number is not used.

    ``names`` are the network's, none where it has none, and ``classes`` is how many it tells apart. Of names, letter
    case, underscores and hyphens do not count, and one of several between commas will do, of either. Names that are
    all numbers are the network's, where they begin at 0.

    Raises:
        UnsuitableInput: most of the given classes are none of the network's, so that nothing can be said of any; or
            they are as many, numbered from 1.
    """
    used = [number for number, name in enumerate(given) if name]
    known = list(names) if len(names) == classes else []
    for by, table, says in (("WordNet id", _by_wordnet(known, classes), _id), ("name", _by_name(known), _spelt)):
        numbered = {number: next(filter(None, map(table.get, says(given[number]))), ()) for number in used}
        matched = {number: _one(numbers, given[number], known, number) for number, numbers in numbered.items()}
        if 2 * sum(matched[number] != NONE for number in used) > len(used):
            return Matched(tuple(matched.get(number, NONE) for number in range(len(given))), by)
    if all(given[number].isdecimal() and int(given[number]) == number for number in used):
        if used[0] == 1 and used[-1] == classes:
            raise UnsuitableInput(
                f"the data set's classes are numbered 1 to {classes}, and the network's 0 to {classes - 1}: say which "
                'is which with --labels map.json, as {"1": 0}, or take them as they stand with --labels number'
            )
        return _by_number(range(len(given)), given, classes)
    numbers = [int(name) if name.isdecimal() else NONE for name in given]
    if 0 in numbers and all(numbers[number] != NONE for number in used):  # a list of them that is sorted as text, say
        return _by_number(numbers, given, classes)
    if not known and len(given) == classes:
        return Matched(tuple(range(classes)), "number, of as many classes without names")
    of_network = f"the network's {classes}, such as {known[0]!r}" if known else f"the network's {classes} without names"
    raise UnsuitableInput(
        f"the data set's {len(used)} classes, such as {given[used[0]]!r}, cannot be found among {of_network}: say "
        f'which is which with --labels map.json, as {{"{given[used[0]]}": 0}}, or give --labels number or --labels '
        "ignore"
    )


def _by_number(numbers: Sequence[int], given: Sequence[str], classes: int) -> Matched:
    """By the ``numbers`` that the classes have, most of which must be the network's."""
    used = [number for number, name in zip(numbers, given, strict=True) if name]
    beyond = sum(number >= classes for number in used)
    if 2 * beyond >= len(used):
        raise UnsuitableInput(
            f"{beyond} of the data set's {len(used)} classes, which are numbered {min(used)} to {max(used)}, are "
            f"beyond the network's 0 to {classes - 1}: say which is which with --labels map.json, as "
            f'{{"{max(used)}": {classes - 1}}}, or give --labels ignore'
        )
    return Matched(tuple(number if number < classes else NONE for number in numbers), "number")


def words(names: Sequence[str], classes: int) -> dict[str, int]:
    """The network's class of every word that means one alone: WordNet ids, names, and each of several names."""
    known = list(names) if len(names) == classes else []
    table = _by_name(known) | _by_wordnet(known, classes)
    return {word: numbers[0] for word, numbers in table.items() if len(numbers) == 1}


def positions(given: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Where in ``given`` a class is that is called by its number among the network's ``names``, or by WordNet id."""
    own = {name: at for at, word in enumerate(given) for name in _id(word) if WORDNET_ID.fullmatch(name)}
    try:
        matched = match_classes(given, names, len(names)).numbers if names else ()
    except UnsuitableInput:  # they are other classes
        matched = ()
    at_number = {number: at for at, number in enumerate(matched) if number != NONE}
    known = _by_wordnet(names, len(names))
    ids = {name: at_number[number] for name, [number] in known.items() if number in at_number}
    return {str(number): at for number, at in at_number.items()} | ids | own


def _by_wordnet(names: Sequence[str], classes: int) -> dict[str, list[int]]:
    """Ids, of networks that tell ImageNet's classes apart; those without names do where they have as many."""
    if classes != IMAGENET:
        return {}
    alike = sum(word in spellings(names[number]) for number, word in _KNOWN.items()) if names else len(_KNOWN)
    return {name: [number] for name, number in wordnet_ids().items()} if alike > len(_KNOWN) // 2 else {}


def _by_name(names: Sequence[str]) -> dict[str, list[int]]:
    table: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        for spelling in spellings(name):
            table[spelling].append(number)
    return dict(table)


def _one(numbers: Sequence[int], name: str, names: Sequence[str], position: int) -> int:
    """Of several classes of one name: the one that is spelt alike, or is at the same position, or none."""
    if len(numbers) < 2:
        return numbers[0] if numbers else NONE
    alike = [number for number in numbers if names and name in (names[number], *re.split(", *", names[number]))]
    return alike[0] if len(alike) == 1 else position if position in numbers else NONE


def _id(name: str) -> tuple[str, ...]:
    """The WordNet id that a name is, or begins with, as ``n02085620-Chihuahua`` does."""
    return tuple(re.split(r"[_\W]", name.strip().casefold(), maxsplit=1)[:1])


def _spelt(name: str) -> tuple[str, ...]:
    """A name as a whole, then each of several between commas."""
    return folded(name), *map(folded, name.split(","))
