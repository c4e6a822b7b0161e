"""Networks that look at pictures where memory runs out look at fewer together, and see the same."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference.networks import SIDE
from vital.errors import DoesNotFit
from vital.judging.judges import Judge, JudgeOutput
from vital.judging.metrics import peak_ranks
from vital.judging.trust.processing import passed
from vital.memory import by_parts
from vital.network.layers import survey
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.preprocessing import Preprocessing

MOST = 2
SAID = "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"


def refuse(count: int) -> None:
    if count > MOST:
        raise RuntimeError(SAID)


def looking(refusing: bool) -> Judge:
    def forward(images: Tensor) -> JudgeOutput:
        if refusing:
            refuse(len(images))
        return JudgeOutput(images.mean((2, 3)), images.amax((2, 3)))

    half = (0.5, 0.5, 0.5)
    return Judge("judge", Preprocessing(4, half, half), (), 3, forward)


def test_a_judge_looks_at_fewer_together_and_says_the_same() -> None:
    pixels = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, expected = (looking(refusing).outputs(pixels) for refusing in (True, False))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.features, expected.features)
    assert looking(True).outputs(pixels[:0]).logits.shape == (0, 3)


def test_one_that_does_not_fit_is_said_so_and_other_errors_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    def never(part: slice) -> None:
        raise RuntimeError(SAID)

    with caplog.at_level(logging.WARNING), pytest.raises(DoesNotFit, match="one picture does not fit into memory"):
        by_parts(2, never)
    assert "2 pictures together did not fit into memory" in caplog.text
    with pytest.raises(RuntimeError, match="another"):
        by_parts(2, lambda part: (_ for _ in ()).throw(RuntimeError("another")))


def test_what_is_to_be_deterministic_is_not_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(RuntimeError, match=SAID):
        by_parts(MOST + 1, lambda part: refuse(part.stop - part.start))


def test_the_network_itself_sees_the_same_by_fewer(tiny: Callable[..., Model]) -> None:
    model, layer = tiny(), "1"
    layouts = survey(model).layouts()
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    usual = (np.zeros(survey(model).layer(layer).channels),) * 2

    def seen() -> tuple[np.ndarray, np.ndarray]:
        return passed(model, [layer], images, layouts)[layer], peak_ranks(
            model, Readout(layer), [0] * 5, pixels, layouts, (usual[0], usual[1] + 1)
        ).peak

    whole = seen()
    hook = model.network.register_forward_pre_hook(lambda module, given: refuse(len(given[0])))
    try:
        halved = seen()
    finally:
        hook.remove()
    for found, expected in zip(halved, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
