"""Classes of a data set found among a network's: by WordNet id, by name, by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vital.errors import UnsuitableInput
from vital.judging.words.classes import match_classes, wordnet_ids, words
from vital.network.sources import torchvision_models

IMAGENET = torchvision_models().ResNet50_Weights.DEFAULT.meta["categories"]
"""torchvision's names: an oracle of their own of the classes' order."""


def test_ids_are_in_the_order_of_torchvision_s_names() -> None:
    ids = wordnet_ids()
    assert list(ids) == sorted(ids)
    known = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n03888257": "parachute",
        "n15075141": "toilet tissue",
    }
    assert {wordnet: IMAGENET[ids[wordnet]] for wordnet in known} == known
    assert len(ids) == len(IMAGENET) == 1000


@pytest.mark.parametrize("names", [IMAGENET, []], ids=["named", "nameless"])
def test_three_folders_of_imagenet_are_found_by_their_ids(names: list[str]) -> None:
    matched = match_classes(["n01440764", "n02102040", "n03888257"], names, 1000)
    assert (matched.numbers, matched.by) == ((0, 217, 701), "WordNet id")


def test_ids_with_a_name_behind_them_are_ids_and_a_foreign_one_is_none() -> None:
    """As the folders of Stanford Dogs are named, and of many selections of ImageNet."""
    dogs = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel"]
    given_ = [*dogs, "n01440764 tench", "n03888257_parachute", "n00000001"]
    matched = match_classes(given_, IMAGENET, 1000)
    assert ([*map(IMAGENET.__getitem__, matched.numbers[:4])], matched.numbers[4]) == (
        ["Chihuahua", "Japanese spaniel", "tench", "parachute"],
        -1,
    )
    assert matched.by == "WordNet id"


def test_as_many_classes_numbered_from_1_are_not_taken_for_those_from_0() -> None:
    from_1 = ["", *map(str, range(1, 11))]
    for names in ([], [f"kind {number}" for number in range(10)]):
        with pytest.raises(UnsuitableInput, match=r"numbered 1 to 10, and the network's 0 to 9.*--labels number"):
            match_classes(from_1, names, 10)
    assert match_classes(from_1, [], 12).numbers == tuple(range(11)), "some of the classes may be left out"


def test_ids_of_another_network_s_thousand_classes_are_not_assumed() -> None:
    with pytest.raises(UnsuitableInput, match=r"n01440764.*--labels map\.json.*--labels number.*--labels ignore"):
        match_classes(["n01440764"], [f"kind {number}" for number in range(1000)], 1000)


def test_names_are_found_however_they_are_spelt() -> None:
    given_ = ["Parachute", "english_springer", "", "Tench", "unicorn", "crane"]
    matched = match_classes(given_, IMAGENET, 1000)
    assert matched.by == "name"
    assert matched.numbers[:5] == (701, 217, -1, 0, -1)
    assert match_classes(["white shark", "goldfish"], ["goldfish", "great white shark, white shark"], 2).numbers == (
        1,
        0,
    )


def test_one_of_several_names_between_commas_will_do_of_the_data_set_s_too() -> None:
    """As Hugging Face's imagenet-1k and ImageNet's own list of synsets call them."""
    given_ = ["tench, Tinca tinca", "parachute, chute", "great white shark, white shark, man-eater"]
    matched = match_classes(given_, IMAGENET, 1000)
    assert (matched.by, [IMAGENET[number] for number in matched.numbers]) == (
        "name",
        ["tench", "parachute", "great white shark"],
    )


def test_a_list_of_numbers_that_begins_at_0_is_the_network_s_numbers() -> None:
    """Folders 0 to 11 that another tool has sorted as text: its class 2 is called 10."""
    as_text = sorted(map(str, range(12)))
    named: list[list[str]] = [IMAGENET, []]
    for names in named:
        matched = match_classes(as_text, names, 1000)
        assert (matched.by, matched.numbers) == ("number", (0, 1, 10, 11, *range(2, 10)))
        assert match_classes(["0", "217", "5000"], names, 1000).numbers == (0, 217, -1)
        with pytest.raises(UnsuitableInput, match="--labels number"):  # it may count from 1
            match_classes(["1", "2", "3"], names, 1000)


def test_two_classes_of_one_name_are_told_apart_by_place_or_not_at_all() -> None:
    assert (IMAGENET[264], IMAGENET[474]) == ("Cardigan", "cardigan")
    assert match_classes(IMAGENET, IMAGENET, 1000).numbers == tuple(range(1000))
    assert match_classes(["cardigan", "tench", "Cardigan"], IMAGENET, 1000).numbers == (474, 0, 264)
    assert match_classes(["CARDIGAN", "tench", "goldfish"], IMAGENET, 1000).numbers == (-1, 0, 1)
    assert match_classes(["missile", "a", "missile"], ["missile", "a", "missile"], 3).numbers == (0, 1, 2)
    table = words(IMAGENET, 1000)
    assert "cardigan" not in table
    assert table["n01440764"] == table["tench"] == 0


def test_numbers_that_are_mostly_beyond_the_network_s_are_refused() -> None:
    """A folder ``8``, ``9``, ``10`` and a network of five classes: nothing could be said of any image."""
    used = ["" for _ in range(8)] + ["8", "9", "10"]
    for names, of in ((used, "3 of the data set's 3"), ([str(n) for n in range(10)], "5 of the data set's 10")):
        with pytest.raises(
            UnsuitableInput, match=rf"{of} classes.* numbered .* the network's 0 to 4.*--labels map\.json"
        ):
            match_classes(names, [], 5)
    with pytest.raises(UnsuitableInput, match="2 of the data set's 3 classes"):
        match_classes(["7", "0", "12"], [], 5)
    assert match_classes([str(number) for number in range(9)], [], 5).numbers == (0, 1, 2, 3, 4, -1, -1, -1, -1)


def test_numbers_are_themselves_and_as_many_nameless_classes_too() -> None:
    matched = match_classes(["0", "", "2", *[""] * 8, "11"], [], 10)
    assert (matched.numbers, matched.by) == ((*range(10), -1, -1), "number")
    assert match_classes(["cat", "dog"], [], 2).numbers == (0, 1)
    for names in ([], [f"kind {number}" for number in range(10)]):
        with pytest.raises(UnsuitableInput, match="'cat'"):
            match_classes(["cat", "dog"], names, 10)
    with pytest.raises(UnsuitableInput):
        match_classes(["chat", "chien"], ["cat", "dog"], 2)  # as many, but others


@given(st.data())
def test_any_selection_of_classes_is_found(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text("abcdefg", min_size=3, max_size=8), min_size=1, max_size=12, unique=True))
    chosen = data.draw(st.permutations(range(len(names))))[: data.draw(st.integers(1, len(names)))]
    assert match_classes([names[number].upper() for number in chosen], names, len(names)).numbers == tuple(chosen)
