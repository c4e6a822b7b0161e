"""How a network treats pictures: natural ones have no gap, those of other neurons one, and it is Spearman's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.reference.networks import SIDE
from vital.judging.trust.processing import held_out_gaps, joined, passed, processing_gap
from vital.network.layers import survey
from vital.network.models import Model

NEURONS, REFERENCES = 30, 6
CHANNELS = {"early": 12, "late": 50}


def world() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
    """References around a centre for every neuron; more of them as its pictures; their rows; and the centres."""
    stream = np.random.default_rng(0)
    centres = {node: stream.normal(size=(NEURONS, 1, count)) for node, count in CHANNELS.items()}

    def drawn(each: int) -> dict[str, np.ndarray]:
        return {
            node: (mean + 0.7 * stream.normal(size=(NEURONS, each, mean.shape[2]))).reshape(-1, mean.shape[2])
            for node, mean in centres.items()
        }

    rows = [REFERENCES * neuron + np.arange(REFERENCES) for neuron in range(NEURONS)]
    return drawn(REFERENCES), drawn(1), rows, {node: mean[:, 0] for node, mean in centres.items()}


def test_photographs_have_no_gap_and_those_of_other_neurons_a_gap_of_one() -> None:
    references, more, rows, _ = world()
    assert processing_gap(more, references, rows).mean() == pytest.approx(0, abs=0.1)
    others = {node: np.roll(values, 1, axis=0) for node, values in more.items()}
    assert processing_gap(others, references, rows).mean() == pytest.approx(1, abs=0.1)
    against = {node: -values for node, values in more.items()}
    assert processing_gap(against, references, rows).mean() > 1.5


def test_contrast_makes_no_gap() -> None:
    references, more, rows, _ = world()
    stronger = {node: np.exp(3 * values) for node, values in more.items()}
    np.testing.assert_allclose(processing_gap(stronger, references, rows), processing_gap(more, references, rows))


def test_it_is_spearman_s_correlation_written_out() -> None:
    stream = np.random.default_rng(1)
    values = stream.integers(0, 4, (5, 9)).astype(float)  # ties
    picture, rows = stream.integers(0, 4, (2, 9)).astype(float), [np.array([0, 1]), np.array([2, 3, 4])]

    def ranks(row: np.ndarray) -> list[float]:
        return [sum(other < one for other in row) + (sum(other == one for other in row) + 1) / 2 for one in row]

    def similar(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.corrcoef(ranks(one), ranks(other))[0, 1])

    near, among, apart = [], [], []
    for neuron, own in enumerate(rows):
        others = [row for row in range(5) if row not in own]
        near.append(np.mean([similar(picture[neuron], values[row]) for row in own]))
        among.append(np.mean([similar(values[a], values[b]) for a in own for b in own if a != b]))
        apart.append(np.mean([similar(values[a], values[b]) for a in own for b in others]))
    scale = np.mean(np.subtract(among, apart))
    gaps = processing_gap({"node": picture}, {"node": values}, rows)
    if scale > 0:
        np.testing.assert_allclose(gaps, np.subtract(among, near) / scale)
    else:
        assert np.isnan(gaps).all()


def test_a_held_out_photograph_has_the_gap_that_it_has_as_a_picture_beside_the_others() -> None:
    references, _, rows, _ = world()
    gaps = held_out_gaps(references, rows)
    assert np.concatenate(gaps).mean() == pytest.approx(0, abs=1e-9)  # of all pairs each counts twice
    neuron, rank = 4, 2
    rest = [np.delete(own, rank) if number == neuron else own for number, own in enumerate(rows)]
    picture = {node: values[[own[0] for own in rows]] for node, values in references.items()}
    for node, values in references.items():
        picture[node][neuron] = values[rows[neuron][rank]]
    # the scale is a mean over neurons, which the one photograph less of one of them hardly moves
    assert gaps[neuron][rank] == pytest.approx(processing_gap(picture, references, rest)[neuron], rel=0.01)
    [two, *_] = held_out_gaps(references, [rows[0][:2], *rows[1:]])
    assert np.isnan(two).all()


def test_each_of_several_pictures_of_a_neuron_has_its_own_gap() -> None:
    references, more, rows, _ = world()
    of = np.array([3, 3, 7])
    both = {node: values[[3, 9, 7]] for node, values in more.items()}
    plain = processing_gap(more, references, rows)
    gaps = processing_gap(both, references, rows, of)
    np.testing.assert_allclose(gaps[[0, 2]], plain[[3, 7]])
    assert gaps[1] > gaps[0] + 0.5


def test_what_cannot_be_known_is_not_a_number_and_a_warning_where_it_is_so_of_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    references, more, rows, _ = world()
    gaps = processing_gap(more, references, [rows[0][:1], *rows[1:]])
    assert np.isnan(gaps[0])
    assert np.isfinite(gaps[1:]).all()
    assert np.isnan(processing_gap({}, {}, rows)).all()
    assert not caplog.records
    alike = {node: np.ones_like(values) for node, values in references.items()}
    assert np.isnan(processing_gap(more, alike, rows)).all()
    assert np.isnan(processing_gap(more, references, [one[:1] for one in rows])).all()
    assert [record.getMessage().split(", since ")[1][:32] for record in caplog.records] == [
        "on the way to a neuron its refer",
        "no two neurons have references t",
    ]


def test_what_images_give_at_nodes_are_means_over_sites(tiny: Callable[..., Model]) -> None:
    model = tiny()
    pixels = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    layouts = survey(model).layouts()
    nodes = ("input", "0", "1")
    means = joined([passed(model, nodes, part, layouts) for part in (pixels[:2], pixels[2:])])
    assert means.keys() == {"0", "1"}
    maps = torch.nn.Sequential(*list(model.network.children())[:2])(model.preprocessing.normalise(pixels))
    np.testing.assert_allclose(means["1"], maps.mean((2, 3)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert passed(model, ("input",), pixels, layouts) == {}
