"""What a GPU needs of the optimiser, on the CPU: arithmetic of less precision, and steps that wait for nothing."""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reference.networks import SIDE
from vital.measuring.targets import Crop, Target, measure
from vital.network.models import Model
from vital.network.probe import CLASSES
from vital.pictures import losses
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings, Precision

pytestmark = pytest.mark.slow

LAYER, NODES = "2", ("0", "1")
WHERE = pytest.mark.parametrize("layer", [LAYER, CLASSES])


def target_of(model: Model, layer: str) -> Target:
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return measure(model, layer, [1, 5], [Crop(one, (row % 2,)) for row, one in enumerate(images)], NODES, {})


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses as a GPU computes them."""
    monkeypatch.setattr(losses, "_match_on_cpu", losses._match)


ASK = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class Waits(TorchDispatchMode):
    """Counts the operations that make the host wait for the device's values. Adam's own step count is on the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASK and not any("torch/optim" in frame.filename for frame in traceback.extract_stack()):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_wait_is_noticed() -> None:
    with Waits() as waits:
        bool(torch.ones(3).sum() > 2)
    assert waits.count == 1


@WHERE
@pytest.mark.parametrize("preset", ["natural", "paper"])
@pytest.mark.usefixtures("on_a_device")
def test_no_step_waits_for_the_device(tiny: Callable[..., Model], layer: str, preset: str) -> None:
    model = tiny()
    target = target_of(model, layer)
    with Waits() as waits:
        optimise(model, target, PictureSettings(preset=preset, steps=5, side=SIDE, total_variation=1e-6))
    assert waits.count == 0


@WHERE
def test_the_loss_of_a_device_is_that_of_the_cpu(
    tiny: Callable[..., Model], layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    target, settings = target_of(model, layer), PictureSettings(steps=5, side=SIDE)
    on_cpu = optimise(model, target, settings)
    monkeypatch.setattr(losses, "_match_on_cpu", losses._match)
    np.testing.assert_allclose(optimise(model, target, settings).loss, on_cpu.loss, rtol=1e-4)


@WHERE
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_less_precision_gives_nearly_the_same_loss(
    tiny: Callable[..., Model], layer: str, precision: Precision
) -> None:
    """bfloat16 has 8 bits: 0.4 % an operation, some operations deep; tf32 changes nothing on a CPU."""
    model = tiny()
    target = target_of(model, layer)
    exact = optimise(model, target, PictureSettings(steps=40, side=SIDE))
    rough = optimise(model, target, PictureSettings(steps=40, side=SIDE, precision=precision))
    assert rough.finite.all()
    np.testing.assert_allclose(rough.loss[:, 0], exact.loss[:, 0], rtol=0.03 if precision == "bfloat16" else 0)
    if precision == "bfloat16":  # paths part, but end as far down, give or take
        assert (rough.loss[:, -1] < 1.6 * exact.loss[:, -1]).all()
