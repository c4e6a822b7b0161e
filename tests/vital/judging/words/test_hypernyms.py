"""Broader words from lines as WordNet 3.0 has them, planted in a file of their own."""

from __future__ import annotations

import pytest

from vital.errors import UnsuitableInput
from vital.judging.words.hypernyms import has_nouns, hypernyms

LICENCE = b"  1 This software and database is being provided to you, the LICENSEE, by  \n"
KINDS = {
    "entity": [], "animal animate_being": ["entity"], "canine canid": ["animal"], "gun-dog sporting_dog": ["canine"],
    "cat": ["animal"], "car auto": ["entity"], "car railcar": ["entity"], "pug": ["gun"], "beagle": ["gun"],
    "tabby": ["cat"], "cab": ["car auto"], "jeep": ["car auto"], "diner": ["car railcar"], "sleeper": ["car railcar"],
}  # fmt: skip
"""What each is a kind of; names are told apart by how they begin."""


def noun_file() -> tuple[bytes, dict[str, str]]:
    """The file, and the WordNet id of each."""
    content, ids = LICENCE, dict[str, str]()
    for names, above in KINDS.items():
        ids[names] = f"n{len(content):08d}"
        # a part (%p) beside what it is a kind of, as a dog has a flag
        found = ["@ " + next(ids[name] for name in ids if name.startswith(one))[1:] for one in above] + ["%p 02158846"]
        words = names.split()
        line = f"{ids[names][1:]} 05 n {len(words):02x} {' '.join(f'{word} 0' for word in words)} {len(found):03d} "
        content += (line + " ".join(f"{pointer} n 0000" for pointer in found) + ' | "a | b"  \n').encode()
    return content, ids


def test_what_stands_above_several() -> None:
    content, ids = noun_file()
    narrow = ["pug", "beagle", "tabby", "cab", "jeep", "diner", "sleeper"]
    assert has_nouns(content)
    # above all is no word for some, above one says nothing more, and of a gun dog and a canine the dog is nearer
    assert hypernyms(content, {ids[name]: at for at, name in enumerate(narrow)}) == {
        "gun-dog": [0, 1], "animal": [0, 1, 2], "car, auto": [3, 4], "car, railcar": [5, 6],
    }  # fmt: skip


def test_a_class_spelt_alike_is_told_apart() -> None:
    content, ids = noun_file()
    positions = {ids[name]: at for at, name in enumerate(["pug", "beagle", "tabby", "cab"])}
    assert list(hypernyms(content, positions, ["pug", "gun"])) == ["gun-dog", "animal"]
    for spelt in ("gun-dog", "Gun_Dog", "gun dog", "hound, gun dog"):
        assert list(hypernyms(content, positions, ["pug", spelt])) == ["gun-dog (canine)", "animal"]


def test_another_version_is_refused() -> None:
    content, ids = noun_file()
    positions = {ids["pug"]: 0, ids["tabby"]: 1}
    with pytest.raises(UnsuitableInput, match=r"2 of 2 WordNet ids, such as 'n\d{8}', are not in this file"):
        hypernyms(b" " + content, positions)
    with pytest.raises(UnsuitableInput, match=r"WordNet 3\.0"):
        hypernyms(content.replace(b"\n", b"\r\n"), positions)


def test_other_files_are_none_of_nouns() -> None:
    assert not has_nouns(b'{"dog": ["n02085620"]}')
    assert not has_nouns(LICENCE + b"00001740 00 a 01 able 0 005 = 05200169 n 0000\n")


def test_a_circle_ends() -> None:
    content, ids = noun_file()
    circle = content.replace(
        b"animate_being 0 002 @ " + ids["entity"][1:].encode(), b"animate_being 0 002 @ " + ids["cat"][1:].encode()
    )
    assert circle != content
    assert hypernyms(circle, {ids["pug"]: 0, ids["tabby"]: 1, ids["cab"]: 2}) == {"animal": [0, 1]}
