"""Names: a planted word is found, noise gets none, and what does not matter does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vital.errors import UnsuitableInput
from vital.judging.words.naming import (
    EVIDENCE,
    NO_WORD,
    Names,
    WordScores,
    _error,
    average_precision,
    choosing,
    name_neurons,
    strongest,
)

IMAGES, WORDS = 240, 30
KEYS = [f"photo{number}" for number in range(IMAGES)]
CHOOSES = choosing(KEYS)


def drawn(seed: int, neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of words, and noise for peaks."""
    stream = np.random.default_rng(seed)
    words, noise = stream.normal(size=(IMAGES, WORDS)), stream.normal(size=(IMAGES, neurons))
    return words.astype(np.float32), noise.astype(np.float32)


def test_a_planted_word_is_the_name_and_noise_has_none() -> None:
    words, peaks = drawn(0, 40)
    planted = np.arange(10)
    peaks[:, planted] += 2 * words[:, 2 * planted]
    names = name_neurons(peaks, words, CHOOSES)
    assert names.named[planted].all()
    np.testing.assert_array_equal(names.word[planted, 0], 2 * planted)
    # the bound is of the best of all words and a name is one word chosen elsewhere: by far less than 5 % are taken
    assert not names.named[10:].any()
    assert (names.score[planted, 0] > 0.8).all()
    assert (names.bound < 0.45).all()
    assert (names.bound > 0.2).all()


def test_scores_are_those_of_the_images_that_had_no_part_in_the_choice() -> None:
    words, peaks = drawn(1, 6)
    peaks[:, 0] += words[:, 3]
    names, others = name_neurons(peaks, words, CHOOSES, ranks=2), np.flatnonzero(~CHOOSES)
    for neuron in range(6):
        by_hand = [np.corrcoef(peaks[CHOOSES, neuron], words[CHOOSES, word])[0, 1] for word in range(WORDS)]
        best = np.argsort(by_hand)[::-1][:2]
        np.testing.assert_array_equal(names.word[neuron], best)
        np.testing.assert_allclose(names.chosen[neuron], np.sort(by_hand)[::-1][:2], atol=1e-5)
        for rank, word in enumerate(best):
            np.testing.assert_allclose(
                names.score[neuron, rank], np.corrcoef(peaks[others, neuron], words[others, word])[0, 1], atol=1e-5
            )
        strong = others[np.argsort(-peaks[others, neuron])]
        np.testing.assert_array_equal(names.evidence[neuron], strong[:EVIDENCE])
        np.testing.assert_allclose(names.shown[neuron], words[strong[:EVIDENCE], best[0]])
        found = np.isin(others, strong[: round(0.05 * len(others))])
        assert names.precision[neuron, 0] == pytest.approx(average_precision(found, words[others, best[0]]))


def test_a_word_that_chance_chose_is_not_confirmed() -> None:
    """Planted on the images that choose alone: chosen with certainty, and no name."""
    words, peaks = drawn(2, 1)
    peaks[CHOOSES, 0] = words[CHOOSES, 5]
    names = name_neurons(peaks, words, CHOOSES)
    assert names.word[0, 0] == 5
    assert names.chosen[0, 0] == pytest.approx(1, abs=1e-5)
    assert not names.named[0]


def test_the_bound_is_what_the_best_of_all_words_reaches_by_chance() -> None:
    """Against independent draws: of as many words and images, the quantile of the greatest correlation."""
    stream = np.random.default_rng(3)
    words, peaks = drawn(3, 4)
    bound = name_neurons(peaks, words, CHOOSES, shuffles=400).bound
    count, best = int((~CHOOSES).sum()), []
    for _ in range(400):
        one, many = stream.normal(size=count), stream.normal(size=(count, WORDS))
        best.append(np.corrcoef(one, many.T)[0, 1:].max())
    np.testing.assert_allclose(bound, np.quantile(best, 0.95), atol=0.05)


def test_a_word_that_misses_the_strongest_images_is_no_name() -> None:
    """It goes along with all but the twentieth of the images that excites the neuron most."""
    words, peaks = drawn(5, 2)
    peaks += 4 * words[:, [9]]
    for half in (CHOOSES, ~CHOOSES):
        rows = np.flatnonzero(half)
        strong = rows[np.argsort(words[rows, 9])[len(rows) // 2 :][: round(0.05 * len(rows))]]
        peaks[strong, 1] = peaks[:, 1].max() + 1 + np.arange(len(strong)) / 10
    names = name_neurons(peaks, words, CHOOSES)
    assert names.word[:, 0].tolist() == [9, 9]
    assert (names.score[:, 0] > names.bound + 0.4).all()
    assert names.precision[0, 0] > names.precise[0] > 0.1
    assert names.precision[1, 0] < 0.1
    assert names.named.tolist() == [True, False]


def test_a_word_that_another_outdoes_on_the_other_images_is_no_name_and_its_like_takes_nothing_from_it() -> None:
    """Two neurons that go along with a word, more so with another on the images that had no part in the choice; the
    other word is one of its own, or nearly the same word."""
    words, peaks = drawn(6, 2)
    noise = np.random.default_rng(7).normal(size=IMAGES)
    words[:, 11] = words[:, 10] + 0.2 * noise
    peaks[:, 0] += 2 * words[:, 3] + np.where(CHOOSES, 1, 3) * words[:, 4]
    peaks[:, 1] += 2 * words[:, 11] - np.where(CHOOSES, 0.3, 0.22) * noise
    names = name_neurons(peaks.astype(np.float32), words, CHOOSES)
    assert names.word[:, 0].tolist() == [3, 10]
    assert (names.score[:, 0] > names.bound).all()
    assert (names.precision[:, 0] > names.precise).all()
    assert (names.score[:, 1] > names.score[:, 0]).all()
    assert names.named.tolist() == [False, True]
    assert name_neurons(peaks.astype(np.float32), words, CHOOSES, ranks=1).named.tolist() == [False, True]


def test_the_standard_error_of_a_difference_is_that_of_draws() -> None:
    stream, images = np.random.default_rng(8), 200
    covariance = np.array([[1, 0.6, 0.5], [0.6, 1, 0.8], [0.5, 0.8, 1]])
    differences = []
    for _ in range(1500):
        own, one, other = stream.multivariate_normal(np.zeros(3), covariance, images).T
        differences.append(np.corrcoef(own, one)[0, 1] - np.corrcoef(own, other)[0, 1])
    assert _error(0.6, 0.5, 0.8, images) == pytest.approx(np.std(differences), rel=0.08)


def test_more_words_make_a_higher_bound() -> None:
    words, peaks = drawn(4, 3)
    few, all_ = (name_neurons(peaks, words[:, :count], CHOOSES).bound for count in (2, WORDS))
    assert (all_ > few).all()


@settings(deadline=None, max_examples=15)
@given(scale=st.floats(0.01, 1000), shift=st.floats(-100, 100), stretch=st.floats(0.01, 100), seed=st.integers(0, 5))
def test_scale_and_shift_change_nothing(scale: float, shift: float, stretch: float, seed: int) -> None:
    words, peaks = drawn(seed, 5)
    peaks[:, 0] += 3 * words[:, 7]
    before = name_neurons(peaks, words, CHOOSES, shuffles=20)
    moved = (peaks * np.float32(scale) + np.float32(shift)).astype(np.float32)
    after = name_neurons(moved, (words * np.float32(stretch)).astype(np.float32), CHOOSES, shuffles=20)
    assert after.word[0, 0] == before.word[0, 0] == 7
    assert after.named[0]
    np.testing.assert_allclose(after.score[0, 0], before.score[0, 0], atol=5e-3)
    np.testing.assert_allclose(after.bound, before.bound, atol=5e-3)


def test_the_order_of_images_and_of_words_changes_nothing() -> None:
    words, peaks = drawn(5, 5)
    peaks[:, :3] += words[:, :3]
    before = name_neurons(peaks, words, CHOOSES)
    order, turned = np.random.default_rng(0).permutation(IMAGES), np.arange(WORDS)[::-1]
    after = name_neurons(peaks[order], words[order][:, turned], CHOOSES[order])
    np.testing.assert_array_equal(turned[after.word[:3, 0]], before.word[:3, 0])
    np.testing.assert_array_equal(order[after.evidence], before.evidence)
    np.testing.assert_allclose(after.score[:3, 0], before.score[:3, 0], atol=1e-5)


def test_vocabularies_larger_than_what_is_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    words, peaks = drawn(6, 8)
    whole = name_neurons(peaks, words, CHOOSES)
    monkeypatch.setattr("vital.judging.words.naming.TOGETHER", 7)
    parts = name_neurons(peaks, words, CHOOSES)
    np.testing.assert_array_equal(parts.word, whole.word)
    np.testing.assert_allclose(parts.bound, whole.bound, atol=1e-6)


def test_neurons_and_words_that_do_not_differ_take_no_part() -> None:
    words, peaks = drawn(7, 5)
    peaks[:, 0] = 0.1  # no number of single precision: its mean is not exactly itself
    peaks[3, 1] = np.inf
    peaks[:, 2] = words[:, 4]
    words[:, 8] = 0.3
    words[:, 9] = 0
    words[np.flatnonzero(CHOOSES)[0], 9] = 1  # of one half alone: nothing could be said of it on the other
    names = name_neurons(peaks, words, CHOOSES)
    assert (names.word[:2] == NO_WORD).all()
    assert np.isnan(names.score[:2]).all()
    assert not names.named[:2].any()
    assert names.named[2]
    assert not np.isin(names.word, (8, 9)).any()


def test_too_little_is_refused_in_one_sentence() -> None:
    words, peaks = drawn(8, 2)
    with pytest.raises(UnsuitableInput, match="5 images would choose names and 7 others score them, but each takes 8"):
        name_neurons(peaks[:12], words[:12], np.arange(12) < 5)
    with pytest.raises(UnsuitableInput, match="none of 30 words differs between images"):
        name_neurons(peaks, np.ones_like(words), CHOOSES)


def test_average_precision_by_hand_and_with_ties() -> None:
    assert average_precision(np.array([1, 1, 0, 0], bool), np.array([4.0, 3, 2, 1])) == 1
    assert average_precision(np.array([0, 1, 0, 1], bool), np.array([4.0, 3, 2, 1])) == pytest.approx(0.5)
    # images of one score stand together, wherever they stand: as good as guessing
    for found in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert average_precision(np.array(found, bool), np.ones(4)) == pytest.approx(0.25)
    assert np.isnan(average_precision(np.zeros(3, bool), np.ones(3)))


def test_the_strongest_are_a_twentieth_and_never_the_weakest() -> None:
    assert strongest(np.arange(100.0)).sum() == 5
    assert strongest(np.arange(4.0)).tolist() == [False, False, False, True]
    silent = np.zeros(100)
    silent[7] = 1
    assert np.flatnonzero(strongest(silent)).tolist() == [7]
    assert not strongest(np.zeros(3)).any()


def test_about_half_choose_and_the_best_can_be_cut() -> None:
    assert 0.35 < CHOOSES.mean() < 0.65
    np.testing.assert_array_equal(choosing(KEYS[::-1]), CHOOSES[::-1])
    words, peaks = drawn(9, 2)
    names = name_neurons(peaks, WordScores([*map(str, range(WORDS))], words).scores, CHOOSES)
    assert isinstance(names.best(1), Names)
    np.testing.assert_array_equal(names.best(1).word, names.word[:, :1])
