"""The figures of the published implementation, case by case: any folder named by VITAL_GOLDEN, else tests/golden."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden import recipe
from tests.reference.networks import uninitialised
from vital.measuring.rows import sort_rows
from vital.measuring.targets import node_relevance
from vital.network.models import load_model
from vital.network.neurons import Readout, importance, relevance_map
from vital.network.probe import Activations, probe
from vital.pictures.losses import frobenius, sort_matching, total_variation
from vital.propagation.mode import Relevance
from vital.settings import ModelSettings

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("VITAL_GOLDEN") or Path(__file__).parents[1] / "golden")
FILES = sorted([*FOLDER.glob("class_*.npz"), *FOLDER.glob("inner_*.npz")])
TOLERANCE = 1e-4
"""max|a − b| / max|b|; the cases themselves promise about 1e-5, another method is 1e-2 away."""
ANGLE, LENGTH = 1e-4, 1e-3
"""1 − cosine and relative norm of the gradient. Where two activations are almost equal the order of float32 sums
decides which comes first: single pixels then differ by up to 7e-3 between processors and numbers of threads, the
direction by 2e-6, the norm by 6e-5. Exactness is shown in float64, by test_exact_gradient.py."""


def disagreement(found: Any, expected: np.ndarray) -> tuple[float, float]:
    """The greatest and the median difference, as shares of the greatest expected value."""
    if isinstance(found, Tensor):
        found = found.detach().double().numpy()
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise AssertionError(f"shape {found.shape} instead of {expected.shape}")
    difference = np.abs(found - expected) / (np.abs(expected).max() or 1)
    return float(difference.max()), float(np.median(difference))


def misdirected(computed: Tensor, expected: np.ndarray) -> str | None:
    """What is wrong with the gradient as a vector, or nothing."""
    if computed.shape != expected.shape:
        return f"shape {tuple(computed.shape)} instead of {expected.shape}"
    ours, theirs = computed.detach().double().numpy().ravel(), expected.astype(np.float64).ravel()
    lengths = np.linalg.norm(ours), np.linalg.norm(theirs)
    angle = 1 - float(ours @ theirs / (lengths[0] * lengths[1]))
    length = abs(float(lengths[0] / lengths[1]) - 1)
    if angle <= ANGLE and length <= LENGTH:
        return None
    return f"1 − cosine {angle:.1e}, norm off by {length:.1e}; allowed {ANGLE:.0e} and {LENGTH:.0e}"


class Case:
    """One case file, computed by this project."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as stored:
            self.expected = {key: stored[key] for key in stored.files if key != "case"}
            self.case = json.loads(str(stored["case"]))
        self.inner = self.case["kind"] == "channel"
        self.weights: dict[str, float] = self.case["layer_weights"]
        self.nodes = list(self.weights)
        self.found: dict[str, Any] = {}

    def network(self) -> nn.Module:
        with uninitialised():
            model = load_model(ModelSettings(name=self.case["architecture"], weights="random"))
        network: Any = recipe.fill(model.network, self.case["weights_seed"])
        plain: nn.Module = network.to(memory_format=torch.contiguous_format)
        return plain

    def compute(self) -> None:
        network, picture = self.network(), recipe.images(self.case["picture_seed"], 1).requires_grad_()
        references = recipe.images(self.case["references_seed"], self.case["references"])
        losses = (self._channel if self.inner else self._class)(network, references, picture)
        features = torch.stack([self.weights[node] * loss for node, loss in losses.items()]).sum()
        variation, norm = total_variation(picture)[0], frobenius(picture)[0]
        total = features + self.case["tv"] * variation + self.case["l2"] * norm
        (gradient,) = torch.autograd.grad(total, picture)
        self.found |= {f"{node}/loss": loss for node, loss in losses.items()}
        self.found |= {"loss/features": features, "loss/total": total, "loss/tv": variation, "loss/l2": norm}
        self.found |= {"gradient": gradient[0, :, ::4, ::4], "gradient_norm": gradient.norm()}

    def _class(self, network: nn.Module, references: Tensor, picture: Tensor) -> dict[str, Tensor]:
        with probe(network, self.nodes) as run:
            with torch.no_grad():
                quantiles = {node: sort_rows(seen).mean(0) for node, seen in run(references).items()}
            pictured = run(picture)
        losses = {}
        for node in self.nodes:
            self._keep_quantiles(node, quantiles[node], 16)
            losses[node] = sort_matching(pictured[node], quantiles[node][None])[0]
        return losses

    def _channel(self, network: nn.Module, references: Tensor, picture: Tensor) -> dict[str, Tensor]:
        reference_seen, reference_relevance = self._relevance(network, references.requires_grad_())
        pictured, relevance = self._relevance(network, picture)
        losses = {}
        for node in self.nodes:
            matched = relevance_map(reference_relevance[node]) * reference_seen[node].detach()
            quantiles = sort_rows(matched).mean(0)
            weight = importance(reference_relevance[node]).mean(0)
            self._keep_quantiles(node, quantiles, 8)
            self._keep_relevance(node, relevance[node][0])
            self.found[f"{node}/relevance_sum"] = reference_relevance[node].sum((1, 2))
            self.found[f"{node}/importance"] = weight
            losses[node] = sort_matching(pictured[node], quantiles[None], weight[None], relevance[node])[0]
        return losses

    def _relevance(self, network: nn.Module, images: Tensor) -> tuple[Activations, Activations]:
        mode, layer = Relevance(), self.case["layer"]
        with probe(network, [*self.nodes, layer], mode=mode) as run:
            seen = run(images)
        neurons = torch.full((len(images),), self.case["channel"])
        return seen, node_relevance(mode, seen, Readout(layer), self.nodes, neurons, self.case["relevance"])

    def _keep_quantiles(self, node: str, quantiles: Tensor, channels: int) -> None:
        self.found[f"{node}/quantiles"] = quantiles[::channels, :: max(1, quantiles.shape[1] // 49)]

    def _keep_relevance(self, node: str, relevance: Tensor) -> None:
        side = round(relevance.shape[1] ** 0.5)
        whole = self.expected[f"{node}/relevance_picture"].shape[-1] == side
        step = 1 if whole else 2
        self.found[f"{node}/relevance_picture"] = relevance.unflatten(1, (side, side))[::16, ::step, ::step]


def test_there_are_golden_cases() -> None:
    assert FILES, f"no class_*.npz or inner_*.npz in {FOLDER}: VITAL_GOLDEN must name the folder of the golden cases"


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_agrees_with_the_published_implementation(file: Path) -> None:
    case = Case(file)
    case.compute()
    wrong = []
    for key, expected in case.expected.items():
        if key not in case.found:
            wrong.append(f"{key}: this test does not know how to compute it")
            continue
        if key == "gradient":
            reason = misdirected(case.found[key], expected)
            wrong += [f"{key}: {reason}"] if reason else []
            continue
        try:
            error, median = disagreement(case.found[key], expected)
        except AssertionError as shape:
            wrong.append(f"{key}: {shape}")
            continue
        allowed = LENGTH if key == "gradient_norm" else TOLERANCE
        if error > allowed:
            wrong.append(f"{key}: {error:.2e} relative (median {median:.1e}), allowed {allowed:.0e}")
    assert not wrong, f"{file.name} ({json.dumps(case.case)}):\n" + "\n".join(wrong)
    assert {f"{node}/loss" for node in case.nodes} <= case.expected.keys(), f"{file.name} lacks losses of its nodes"
