"""A step is the same operations each time, on a device alone: what recording it as a graph asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vital.pictures.recording import Device
from tests.vital.pictures.steps import EVERY, kinds_of, settings, target_of
from tests.vital.pictures.test_baselines import SPECTRUM, Normed
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.arithmetic import repeatable
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.nodes import default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import INPUT, Activations, Layout
from vital.pictures import optimise as optimiser
from vital.pictures import step
from vital.pictures.optimise import optimise
from vital.pictures.pixels import PixelPictures
from vital.pictures.step import Priors, Step, StepKind
from vital.pictures.transforms import draw
from vital.settings import ModelSettings, PictureSettings, RelevanceKind

pytestmark = pytest.mark.slow

FUSES = "_get_fused_kernels_supported_devices"
"""Where torch keeps the devices that its fused Adam takes; one without values is not among them."""


class _Enough(Exception):
    """As many steps as asked for."""


def counted(
    model: Model,
    target: Target,
    kind: RelevanceKind,
    wanted: PictureSettings,
    monkeypatch: pytest.MonkeyPatch,
    layouts: dict[str, Layout] | None = None,
) -> dict[StepKind, set[int]]:
    """How many operations each step of a kind has, save its first, on a device without values. Whatever a step had to
    do with the host would be an error."""
    found: dict[StepKind, set[int]] = {}

    @contextmanager
    def watched(one: Step, device: torch.device, kinds: Sequence[StepKind]) -> Iterator[Callable[[StepKind], None]]:
        left = wanted.steps

        def run(kind: StepKind) -> None:
            nonlocal left
            first = kind not in found  # resamples targets and uploads them, once a run
            with Device(strict=not first) as device:
                one(kind)
            found.setdefault(kind, set()).update(() if first else (device.operations,))
            left -= 1
            if not left:  # a finished picture would be looked at
                raise _Enough

        yield run

    monkeypatch.setattr(optimiser, "recorded", watched)
    monkeypatch.setattr(step, "recordable", lambda device: True)
    monkeypatch.setattr(import_module("torch.optim.optimizer"), FUSES, lambda: ["meta"])
    model = replace(model, network=copy.deepcopy(model.network).to("meta"))
    with pytest.raises(_Enough):
        optimise(model, target, wanted, layouts or {}, kind, spectrum=SPECTRUM)
    return found


@pytest.fixture
def model(tiny: Callable[..., Model]) -> Model:
    return tiny(network=Normed())


@EVERY
def test_no_step_has_to_do_with_the_host_or_more_operations_in_a_larger_batch(
    model: Model, read: str, kind: RelevanceKind, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (
        counted(model, target_of(model, read, kind, count), kind, settings(others, 6), monkeypatch) for count in (2, 32)
    )
    assert few == many
    assert len(few) == kinds_of(read, others)
    assert all(len(operations) == 1 for operations in few.values())  # each time the same


@pytest.mark.parametrize("read", ["channel", "class"])
def test_a_repeatable_step_has_nothing_to_do_with_the_host_either(
    model: Model, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repeatable():
        kinds = counted(model, target_of(model, read, "lrp"), "lrp", settings({}, 6), monkeypatch)
    assert len(kinds) == kinds_of(read, {})


def test_a_single_picture_takes_as_many_operations_give_or_take_a_copy(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture lies in more than one order of memory at once, so that a copy and its view may fall away."""
    one, eight = (
        counted(
            model, target_of(model, "channel", "lrp", count), "lrp", settings({"relevant_weight": 1.0}, 6), monkeypatch
        )
        for count in (1, 8)
    )
    for kind, [operations] in eight.items():
        assert one[kind] <= set(range(operations - 4, operations + 5))


@pytest.mark.parametrize(("name", "layer"), [("swin_t", "features.7.1"), ("resnet18", "layer4.1")])
def test_networks_with_attention_and_without_can_be_recorded(
    name: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 64
    model = load_model(ModelSettings(name=name, weights="random", input_size=side))
    found = survey(model)
    nodes, layouts = (INPUT, *default_nodes(found, layer, name)), found.layouts()
    target = measure(
        model,
        Attribution(layer, layouts=layouts),
        [0],
        [Crop(torch.zeros(3, side, side, dtype=torch.uint8), (0,))],
        nodes,
    )
    kinds = counted(model, target, "lrp", PictureSettings(steps=2, side=side), monkeypatch, layouts)
    assert list(kinds) == [StepKind()]
    assert len(kinds[StepKind()]) == 1  # the second step was looked at


@pytest.mark.parametrize(
    "asks",
    [
        lambda values: float(values.sum()),
        lambda values: values + torch.ones(3),
        lambda values: torch.tensor([1.0, 2.0, 3.0]).to(values.device),
        lambda values: values[values > 0],
        lambda values: values.numpy(force=True),
    ],
    ids=["value", "tensor of the host", "copy", "as many as are so", "array"],
)
def test_what_has_to_do_with_the_host_is_noticed(asks: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), Device():
        asks(torch.ones(3, device="meta"))


def test_a_picture_stops_where_its_loss_is_not_finite_and_its_neighbour_goes_on() -> None:
    """Adam would move it on by what it remembers."""
    settings = PictureSettings.model_validate({"method": "pixel", "steps": 5, "side": 16, "norm": 0.0})
    draws, preprocessing = draw(settings, "layer", [0, 1]), Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
    pictures, taken = PixelPictures(0.1 * draws.noise, preprocessing), []

    def judge(activations: Activations, random_crop: bool) -> Tensor:
        taken.append(pictures.parameters.detach().clone())
        loss = activations["input"].sum((1, 2))
        return loss * torch.tensor([1.0 if len(taken) < 3 else torch.nan, 1.0])

    running = Step(
        lambda shown: {"input": shown.flatten(2)}, judge, pictures, draws, settings, Priors(),
        preprocessing=preprocessing,
    )  # fmt: skip
    for _ in range(5):
        running(StepKind())
    assert running.alive.tolist() == [False, True]
    assert torch.equal(pictures.parameters[0], taken[2][0])
    assert not torch.equal(taken[2][0], taken[1][0])
    assert not torch.equal(pictures.parameters[1], taken[4][1])
