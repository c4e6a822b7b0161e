"""What a GPU needs of the optimiser, on the CPU: arithmetic of less precision, and steps that wait for nothing."""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reference.networks import SIDE
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.models import Model
from vital.network.probe import CLASSES, probe
from vital.pictures import losses
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings, Precision

pytestmark = pytest.mark.slow

LAYER, NODES = "2", ("0", "1")
WHERE = pytest.mark.parametrize("layer", [LAYER, CLASSES])


def target_of(model: Model, layer: str) -> Target:
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return measure(model, Attribution(layer), [1, 5], [Crop(one, (row % 2,)) for row, one in enumerate(images)], NODES)


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


class Rounded(TorchDispatchMode):
    """What convolutions and matrix products read, rounded to tf32's 10 bits of mantissa, as a GPU does it."""

    PRODUCTS = ("convolution", "mkldnn_convolution", "mm", "addmm", "bmm", "baddbmm")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").removesuffix("_backward")
        return func(*(rounded(one) if name in self.PRODUCTS else one for one in args), **(kwargs or {}))


def rounded(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32).view_as(value)


def test_a_number_is_rounded_to_ten_bits() -> None:
    values = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 0.6 * 2**-10, 0.0])
    assert rounded(values).tolist() == [1, 1 + 2**-10, 1, 1 + 2 * 2**-10, -1 - 2**-10, 0]


def reached(model: Model, target: Target, pixels: np.ndarray) -> np.ndarray:
    """How far pictures activate their neurons in single precision."""
    images = model.preprocessing.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode(), probe(model.network, [target.reads.layer]) as run:
        own = target.reads.own(run(images)[target.reads.layer], torch.from_numpy(target.neurons))
    return own.amax(-1).numpy()


@WHERE
def test_less_precision_changes_pictures_less_than_another_seed(tiny: Callable[..., Model], layer: str) -> None:
    """What makes bfloat16 fit to be a GPU's default: paths part in any rounding, as they do under another seed. Both
    numbers of a product, and what comes of it, are rounded: by 2⁻⁹ of bfloat16, by 2⁻¹¹ of tf32 the former alone."""
    model = tiny()
    images = torch.randint(0, 256, (8, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    crops = [Crop(one, (row % 4,)) for row, one in enumerate(images)]
    target = measure(model, Attribution(layer), [1, 3, 5, 7], crops, NODES)

    def made(**changes: object) -> tuple[np.ndarray, np.ndarray]:
        settings = PictureSettings.model_validate({"steps": 40, "side": SIDE, "precision": "float32", **changes})
        pictures = optimise(model, target, settings)
        return pictures.loss[:, 0], reached(model, target, pictures.pixels)

    first, exact = made()
    _, other = made(seed=1)
    apart = np.abs(other - exact).mean()
    near, half = made(precision="bfloat16")
    np.testing.assert_allclose(near, first, rtol=3 * 2**-9)
    assert np.abs(half - exact).mean() < apart
    with Rounded():
        near, tenth = made()
    assert not np.array_equal(near, first)
    np.testing.assert_allclose(near, first, rtol=2 * 2**-11)
    assert np.abs(tenth - exact).mean() < apart
