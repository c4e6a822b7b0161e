"""Files of words that neurons may be called by, as people write them: a list, and which words stand for several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flows.jobs import CLASS_WORDS
from stores.files import parsed, read_bytes, safe_url
from stores.shards.labels import folded
from vital.errors import UnsuitableInput
from vital.judging.words.classes import WORDNET_ID, positions
from vital.judging.words.hypernyms import has_nouns, hypernyms

LONGEST = 200
"""Characters of a word: a longer line is no word, and the file no list of them."""
COLUMNS = re.compile(r"\S[,;\t]\S|\t")
"""In a line of a table; a word may have a comma with a space behind it, as many names of ImageNet's classes have."""


def read_vocabulary(url: str) -> list[str]:
    """The words of a text file, one a line; a word that is there twice, whatever its letters' case, counts once.

    Raises:
        UnsuitableInput: there is no such file, it is no text in UTF-8, or it has no word or a line too long to be one.
    """
    try:
        content = read_bytes(url)
    except OSError as error:  # a folder, or a host that does not answer
        raise UnsuitableInput(
            f"the vocabulary at {safe_url(url)} cannot be read ({error.strerror or error}): give a text file of words"
        ) from None
    if content is None:
        raise UnsuitableInput(f"there is no vocabulary at {safe_url(url)}: give a text file of words, or {CLASS_WORDS}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnsuitableInput(
            f"{safe_url(url)} is no text in UTF-8 ({error.reason}): save the words, one a line, in UTF-8"
        ) from None
    lines = list(filter(None, (" ".join(line.split()) for line in text.splitlines())))
    rows = [line for line in text.splitlines() if line.strip()]
    if rows and ("\0" in text or lines[0][0] in "[{" or all(map(COLUMNS.search, rows))):
        raise UnsuitableInput(
            f"{safe_url(url)} is no list of words but a table or JSON: write one word a line, in UTF-8"
        )
    words: dict[str, str] = {}
    for line in lines:
        words.setdefault(line.casefold(), line)
    if not words:
        raise UnsuitableInput(f"{safe_url(url)} has no word in it: write one a line")
    if long := [line for line in words.values() if len(line) > LONGEST]:
        raise UnsuitableInput(
            f"{safe_url(url)} has a line of {len(long[0])} characters, and {LONGEST} are the longest word: write one a "
            "line"
        )
    return list(words.values())


def read_broader(url: str, words: Sequence[str], classes: Sequence[str] = ()) -> dict[str, list[int]]:
    """Broader words, and the positions of the ``words`` that each stands for, from a JSON file or WordNet's of nouns.

    A JSON file names narrower words as they are spelt, by WordNet id, or by number among the network's ``classes``;
    those that are not among ``words`` are left out. A broader word that is one of the ``words`` as well stands for
    that one, too; WordNet's are told apart from words that are spelt alike.

    Raises:
        UnsuitableInput: there is no such file, it is none of words, or stands for none of these.
    """
    content = read_bytes(url)
    if content is None:
        raise UnsuitableInput(
            f"there are no broader words at {safe_url(url)}: give a JSON file or WordNet's data.noun, or leave it out"
        )
    numbered = positions(words, classes)
    try:
        broader = _of_wordnet(content, words, numbered) if has_nouns(content) else _of_table(content, words, numbered)
    except UnsuitableInput as error:
        raise UnsuitableInput(f"{safe_url(url)}: {error}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UnsuitableInput(
            f'{safe_url(url)} is no table of broader words ({error}): it should be JSON such as {{"dog": ["pug"]}}, or '
            "data.noun of WordNet 3.0"
        ) from None
    if not broader:
        raise UnsuitableInput(
            f"{safe_url(url)} stands for none of the {len(words)} words, such as {words[0]!r}: name these in its lists"
        )
    return broader


def _of_wordnet(content: bytes, words: Sequence[str], numbered: Mapping[str, int]) -> dict[str, list[int]]:
    ids = {name: at for name, at in numbered.items() if WORDNET_ID.fullmatch(name)}
    if not ids:
        raise UnsuitableInput(
            "WordNet's nouns are found by the ids of ImageNet's classes, and none of these words is one of them: give "
            'a JSON file such as {"dog": ["pug"]}'
        )
    return hypernyms(content, ids, words)


def _of_table(content: bytes, words: Sequence[str], numbered: Mapping[str, int]) -> dict[str, list[int]]:
    spelt = {folded(name): number for number, word in enumerate(words) for name in (word, *word.split(","))}
    known = {**numbered, **spelt}
    broader = {
        str(word): sorted({known[folded(str(one))] for one in narrower if folded(str(one)) in known})
        for word, narrower in parsed(content).items()
        if not isinstance(narrower, str)
    }
    own = {folded(word): number for number, word in enumerate(words)}
    return {
        word: sorted({*numbers, *([own[folded(word)]] if folded(word) in own else [])})
        for word, numbers in broader.items()
        if word.strip() and numbers
    }
