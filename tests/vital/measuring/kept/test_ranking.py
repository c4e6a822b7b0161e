import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vital.measuring.kept.ranking import NOBODY, ROOM, Ranker, Ranking
from vital.measuring.kept.sampling import unit_hash

NEURONS = 3
Entry = tuple[int, tuple[float, ...], tuple[int, ...]]
"""Image id, score of each neuron, site of each neuron."""

# Few values, so that ties are the rule; a score that is not a number, and infinities.
scores = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, 1e30, -1e30, float("inf"), float("-inf"), float("nan")])
entries = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.tuples(*[scores] * NEURONS),
        st.tuples(*[st.integers(0, 48)] * NEURONS),
    ),
    unique_by=lambda entry: entry[0],
    max_size=12,
)
ranks = st.integers(1, 5)


def ranking(of: list[Entry], count: int) -> Ranking:
    table = np.array([entry[1] for entry in of], np.float32).reshape(len(of), NEURONS)
    sites = np.array([entry[2] for entry in of], np.int64).reshape(len(of), NEURONS)
    return Ranking.of(table, np.array([entry[0] for entry in of], np.int64), sites, count)


def oracle(of: list[Entry], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort all candidates of every neuron in plain Python."""
    kept_scores = np.full((NEURONS, count), -np.inf)
    images, sites = np.full((NEURONS, count), -1), np.zeros((NEURONS, count), int)
    for neuron in range(NEURONS):
        candidates = [
            (-float(np.float32(entry[1][neuron])), entry[0], entry[2][neuron])
            for entry in of
            if entry[1][neuron] == entry[1][neuron] and entry[1][neuron] != float("-inf")
        ]
        for rank, (score, image, site) in enumerate(sorted(candidates)[:count]):
            kept_scores[neuron, rank], images[neuron, rank], sites[neuron, rank] = -score, image, site
    return kept_scores, images, sites


def assert_same(first: Ranking, second: Ranking) -> None:
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.images, second.images)
    taken = first.images != NOBODY  # the site of nobody means nothing
    np.testing.assert_array_equal(first.sites[taken], second.sites[taken])


@given(entries, ranks)
def test_a_ranking_is_what_sorting_everything_gives(of: list[Entry], count: int) -> None:
    result, (kept, images, sites) = ranking(of, count), oracle(of, count)
    np.testing.assert_array_equal(result.scores, kept)
    np.testing.assert_array_equal(result.images, images)
    np.testing.assert_array_equal(result.sites[images != NOBODY], sites[images != NOBODY])
    np.testing.assert_array_equal(result.taken, (images >= 0).sum(1))


@given(entries, st.lists(st.integers(0, 12), min_size=2, max_size=2), ranks)
def test_merging_rankings_of_disjoint_images_obeys_the_laws(of: list[Entry], cuts: list[int], count: int) -> None:
    first, second = sorted(cuts)
    a, b, c = (ranking(part, count) for part in (of[:first], of[first:second], of[second:]))
    assert_same((a + b) + c, a + (b + c))
    assert_same(a + b, b + a)
    assert_same(a + b + c, ranking(of, count))
    assert_same(c + b + a, ranking(of, count))


@given(entries, ranks)
def test_a_ranking_of_nobody_is_the_identity(of: list[Entry], count: int) -> None:
    some, none = ranking(of, count), Ranking.none(NEURONS, count)
    assert_same(some + none, some)
    assert_same(none + some, some)


@given(entries, ranks, st.integers(0, 1000))
def test_shifting_moves_ids_and_leaves_nobody(of: list[Entry], count: int, by: int) -> None:
    shifted = [(entry[0] + by, entry[1], entry[2]) for entry in of]
    assert_same(ranking(of, count).shifted(by), ranking(shifted, count))


many = st.lists(st.tuples(*[scores] * NEURONS), min_size=0, max_size=3 * ROOM)


@given(many, st.integers(1, 9), ranks, st.integers(0, 2**31))
def test_a_ranker_gives_the_ranking_of_all_its_batches(
    of: list[tuple[float, ...]], batch: int, count: int, seed: int
) -> None:
    stream = np.random.default_rng(seed)
    table = np.array(of, np.float32).reshape(len(of), NEURONS)
    sites = stream.integers(0, 1 << 24, table.shape)
    images = np.cumsum(stream.integers(1, 1 << 30, len(of)))
    ranker, begun = Ranker(NEURONS, count), 0

    def winners(image: int, neurons: np.ndarray) -> np.ndarray:
        found: np.ndarray = sites[begun + image, neurons]
        return found

    for begun in range(0, len(of), batch):
        ranker.add(table[begun : begun + batch], images[begun : begun + batch], winners)
    assert_same(ranker.ranking(), Ranking.of(table, images, sites, count))
    assert_same(ranker.ranking(), ranker.ranking())


def test_a_ranker_asks_for_the_sites_of_candidates_alone_and_goes_on_after_it_was_read() -> None:
    table = np.arange(400, dtype=np.float32).reshape(200, 2) * [[1, -1]]  # one neuron rises, the other falls
    asked: list[tuple[int, int]] = []

    def sites(image: int, neurons: np.ndarray) -> np.ndarray:
        asked.extend((image, int(neuron)) for neuron in neurons)
        return neurons + 7

    ranker = Ranker(2, 3)
    for row in range(200):
        ranker.add(table[row : row + 1].astype(np.float32), np.array([row]), sites)
        if row == 99:
            assert ranker.ranking().images.tolist() == [[99, 98, 97], [0, 1, 2]]
    assert ranker.ranking().images.tolist() == [[199, 198, 197], [0, 1, 2]]
    assert ranker.ranking().sites.tolist() == [[7, 7, 7], [8, 8, 8]]
    assert sum(neuron == 0 for _, neuron in asked) == 200
    assert sum(neuron == 1 for _, neuron in asked) <= ROOM + 1
    with pytest.raises(ValueError, match="come after image 199: give them in the order of their ids"):
        ranker.add(np.zeros((1, 2), np.float32), np.array([199]), sites)


@given(st.lists(st.tuples(st.integers(-2, 6), st.text(max_size=3)), max_size=30), ranks)
def test_members_are_what_ranking_their_lots_gives(of: list[tuple[int, str]], count: int) -> None:
    rows, labels, keys = np.arange(len(of)), np.array([one[0] for one in of], np.int64), [one[1] for one in of]
    drawn = np.full((len(of), 5), -np.inf)
    for row, (label, key) in enumerate(of):
        if 0 <= label < 5:
            drawn[row, label] = -unit_hash(key)
    expected = Ranking.of(drawn, rows, np.zeros(drawn.shape, np.int64), count)
    found = Ranking.of_members(5, count, rows, labels, keys)
    assert_same(found, expected)


def test_scores_that_are_no_numbers_are_no_candidates() -> None:
    result = Ranking.of(np.array([[np.nan], [2.0]]), np.array([0, 1]), np.array([[3], [4]]), 2)
    assert result.images.tolist() == [[1, NOBODY]]
    assert result.scores.tolist() == [[2.0, -np.inf]]
    assert result.taken.tolist() == [1]


def test_fewer_images_than_ranks_leave_the_last_ranks_empty() -> None:
    result = Ranking.of(np.array([[1.0], [5.0]]), np.array([7, 3]), np.array([[0], [1]]), 4)
    assert result.images.tolist() == [[3, 7, NOBODY, NOBODY]]
    assert result.sites[0, :2].tolist() == [1, 0]


def test_equal_scores_go_by_the_image_id_whatever_the_order_they_came_in() -> None:
    images = np.array([9, 2, 5])
    result = Ranking.of(np.ones((3, 1)), images, images[:, None] * 10, 2)
    assert result.images.tolist() == [[2, 5]]
    assert result.sites.tolist() == [[20, 50]]


def test_rankings_of_different_layers_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="3 and 4 neurons"):
        Ranking.none(3, 2) + Ranking.none(4, 2)


@given(st.text())
def test_a_lot_is_a_number_below_one_that_depends_on_the_key_alone(key: str) -> None:
    assert 0 <= unit_hash(key) < 1
    expected = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") / 2**64
    assert abs(unit_hash(key) - expected) < 2**-52


def test_lots_are_the_same_on_every_machine_and_spread_evenly() -> None:
    # BLAKE2b of the UTF-8 key, eight bytes as a little-endian fraction of 2⁶⁴
    assert unit_hash("n01440764_10026") == pytest.approx(0.467449055633266, abs=1e-15)
    drawn = np.array([unit_hash(f"image-{number}") for number in range(4000)])
    histogram, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert len(set(drawn)) == 4000
    assert abs(histogram - 400).max() < 80
