"""The search box's index: which neurons have a text that a word is part of, in parts that are read by what is typed."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from stores.pages.data.values import steps

KEY = 2
"""Characters of what is typed that name the part which is read."""
LONGEST = 40
"""Characters of a word that are looked at."""


def text_index(texts: Iterable[tuple[str, int, int]], weighed: bool = False) -> list[tuple[str, Any]]:
    """An index of texts, each with a neuron and how much it counts: by the first `KEY` characters all ends of words
    that begin with them, and the neurons of each; `weighed` adds what each counts, in the neurons' order.

    What is typed is part of a word where it begins one of the word's ends. Under a single character stand the words
    that begin with it: any one is part of nearly all.

    >>> dict(text_index([("Goldfish", 4, 1), ("fish", 2, 1)]))["fi"]
    [['fish', [2, 2]]]
    """
    by_text: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for text, neuron, weight in texts:
        by_text[text][neuron] += weight
    by_word: dict[str, list[_Counted]] = defaultdict(list)
    for text, counts in by_text.items():
        counted = np.array(list(counts)), np.array(list(counts.values()))
        for word in dict.fromkeys(text.lower().split()):
            by_word[word[:LONGEST]].append(counted)
    by_end: dict[tuple[str, str], list[_Counted]] = defaultdict(list)
    for word, several in by_word.items():
        whole = _joined(several)
        by_end[word[0], word].append(whole)
        for start in range(len(word) - KEY + 1):
            by_end[word[start : start + KEY], word[start:]].append(whole)
    keys: dict[str, list[list[Any]]] = defaultdict(list)
    for (key, end), several in sorted(by_end.items()):
        neurons, weights = _joined(several)
        keys[key].append([end, steps(neurons.tolist()), *([weights.tolist()] if weighed else [])])
    return list(keys.items())


_Counted = tuple[Int[np.ndarray, "_neuron"], Int[np.ndarray, "_neuron"]]


def _joined(several: list[_Counted]) -> _Counted:
    """Neurons in ascending order, each once, and the sum of what each counts."""
    neurons, weights = (np.concatenate(part) for part in zip(*several, strict=True))
    each, of_neuron = np.unique(neurons, return_inverse=True)
    return each, np.bincount(of_neuron, weights).astype(np.int64)
