"""Which neurons a text means, against sets written out."""

from __future__ import annotations

import pytest

from flows.running.neurons import parse_neurons
from vital.errors import UnknownNeuron


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", range(9)),
        (":", range(9)),
        ("3", [3]),
        ("7:", [7, 8]),
        (":2", [0, 1]),
        ("5, 0:2 ,1:3", [0, 1, 2, 5]),
        ("8,8", [8]),
    ],
)
def test_numbers_and_ranges_are_sorted_and_each_once(text: str, meant: range | list[int]) -> None:
    assert parse_neurons(text, 9, "layer") == list(meant)


@pytest.mark.parametrize("text", ["5,", ",", "1,,2", "a", "0:2:1", "1.5", "0-3", "nan"])
def test_what_is_neither_is_refused_and_means_no_neuron(text: str) -> None:
    with pytest.raises(UnknownNeuron, match="is no neuron and no range: write numbers and ranges like 0:64,70"):
        parse_neurons(text, 9, "layer")


@pytest.mark.parametrize("text", ["9", "-1", "0:10", "4:4", "5:2", "9:"])
def test_what_lies_outside_is_refused(text: str) -> None:
    with pytest.raises(UnknownNeuron, match="is not within layer 'layer', which has neurons 0 to 8"):
        parse_neurons(text, 9, "layer")
