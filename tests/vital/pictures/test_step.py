"""A step is the same operations each time, on a device alone: what recording it as a graph asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference.networks import SIDE
from tests.vital.pictures.recording import Device, stand_in
from tests.vital.pictures.test_baselines import SPECTRUM, Normed
from tests.vital.pictures.test_optimise import NODES, assert_same, double
from vital.measuring.targets import Attribution, Crop, NodeTarget, Target, measure
from vital.memory import RanOut
from vital.network.arithmetic import repeatable
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.neurons import Readout
from vital.network.neurons.dictionaries import Dictionary
from vital.network.nodes import default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT, Activations, Layout
from vital.pictures import optimise as optimiser
from vital.pictures import step
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.pixels import PixelPictures
from vital.pictures.step import WARM_UP, Begun, Priors, Step, StepKind
from vital.pictures.transforms import draw
from vital.settings import ModelSettings, PictureSettings, RelevanceKind

pytestmark = pytest.mark.slow

CHANNELS = 16
DIRECTIONS = np.random.default_rng(5).standard_normal((40, CHANNELS)).astype(np.float32)
BIAS, NEVER = np.zeros(40, np.float32), np.full(40, -np.inf, np.float32)
"""Of features: nothing added, and no threshold, where only the greatest of a site are kept."""
READS = {
    "channel": Readout("2"),
    "site": Readout("2", 6, sites=64),
    "direction": Readout("2", directions=DIRECTIONS),
    "site of a direction": Readout("2", 6, DIRECTIONS, 64),
    "class": Readout(CLASSES),
    "feature": Readout("2", dictionary=Dictionary(DIRECTIONS, BIAS, BIAS)),
    "feature among the greatest": Readout(
        "2", dictionary=Dictionary(DIRECTIONS, BIAS, NEVER, k=8, normalisation="layer")
    ).of([3, 7]),
}
"""A site, a direction or a feature reads a layer in its own way; a facet is one more target of a neuron, and two of the
pictures below are of one neuron each."""
STEPS: list[tuple[str, RelevanceKind, dict[str, Any]]] = [
    ("channel", "lrp", {"preset": "natural"}),
    *((read, "lrp", {"relevant_weight": 1.0}) for read in READS),
    ("channel", "lrp-gamma", {"relevant_weight": 1.0}),
    *((read, "lrp-restricted", {"relevant_weight": 1.0}) for read in ("channel", "direction")),
    *(
        (read, "gradient-x-activation", {"relevant_weight": 1.0})
        for read in ("channel", "direction", "feature among the greatest")
    ),
    *((read, "lrp", {"preset": "paper"}) for read in ("channel", "class")),
    *(
        (read, "lrp", {"method": method})
        for read in ("direction", "class")
        for method in ("pixel", "fourier", "maco", "deepinversion")
    ),
    *((read, "lrp", {"precision": "bfloat16"}) for read in ("channel", "class")),
    ("channel", "lrp", {"total_variation": 1e-4, "norm": 1e-4, "own_weight": 0.0}),
]
EVERY = pytest.mark.parametrize(
    ("read", "kind", "others"),
    STEPS,
    ids=[f"{read}-{kind}-{'-'.join(map(str, o.values()))}" for read, kind, o in STEPS],
)


FUSES = "_get_fused_kernels_supported_devices"
"""Where torch keeps the devices that its fused Adam takes; one without values is not among them."""


def kinds_of(read: str, others: dict[str, Any]) -> int:
    """How many kinds of steps there are: natural pictures of classes are cropped in some, others in none."""
    return 2 if read == "class" and "method" not in others and others.get("preset") != "paper" else 1


class _Enough(Exception):
    """As many steps as asked for."""


def target_of(model: Model, read: str, kind: RelevanceKind, count: int = 2) -> Target:
    """Of ``count`` neurons, each with the same two references."""
    stream = torch.Generator().manual_seed(1)
    crops = [
        Crop(torch.randint(0, 256, (3, SIDE, SIDE), generator=stream, dtype=torch.uint8), (0, 1)) for _ in range(2)
    ]
    layer, reads = (CLASSES, None) if read == "class" else ("some", READS[read])
    target = measure(model, Attribution(layer, kind, readout=reads), (3, 7), crops, NODES)
    rows = np.arange(count) % 2

    def repeated(node: NodeTarget) -> NodeTarget:
        relevant, importance = (None if part is None else part[rows] for part in (node.relevant, node.importance))
        return replace(node, quantiles=node.quantiles[rows], relevant=relevant, importance=importance)

    nodes = {name: repeated(node) for name, node in target.nodes.items()}
    return replace(target, neurons=target.neurons[rows], nodes=nodes, own=target.own[rows], count=target.count[rows])


def settings(others: dict[str, Any], steps: int = 10) -> PictureSettings:
    return PictureSettings.model_validate({"steps": steps, "side": SIDE, **others})


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


def made(model: Model, target: Target, kind: RelevanceKind, wanted: PictureSettings, record: bool) -> Pictures:
    return optimise(model, target, wanted, {}, kind, spectrum=SPECTRUM, record=record)


@EVERY
def test_recorded_steps_do_what_steps_do(
    model: Model, read: str, kind: RelevanceKind, others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with a recording that repeats operations and nothing of Python's."""
    target, wanted = target_of(model, read, kind), settings(others, 24)
    recordings = stand_in(monkeypatch)
    calls = recordings.calls
    eager = made(model, target, kind, wanted, False)
    assert not calls
    assert_same(made(model, target, kind, wanted, True), eager)
    assert calls.count("record") == kinds_of(read, others)
    assert calls.count("replay") == wanted.steps - kinds_of(read, others) * WARM_UP
    assert (calls[0], calls[-1]) == ("wait", "done")
    assert not any(recordings.pools.values())  # a graph goes with the last step of its kind
    assert len(recordings.pools) == 1  # kinds alternate, and share their memory


@pytest.mark.parametrize("read", ["channel", "class"])
@pytest.mark.parametrize("preset", ["natural", "paper"])
def test_a_gpu_s_optimiser_goes_the_way_of_the_cpu_s(
    model: Model, read: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision, in which rounding does not make paths part."""
    target, wanted = target_of(model, read, "lrp"), settings({"preset": preset, "learning_rate": 0.05}, 20)
    double(model)
    on_cpu = optimise(model, target, wanted, {})
    stand_in(monkeypatch)
    recorded = optimise(model, target, wanted, {})
    np.testing.assert_allclose(recorded.loss, on_cpu.loss, rtol=1e-4)


def test_steps_that_cannot_be_recorded_run_as_they_are_and_say_so(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second kind cannot: the first is not replayed any more either, since graphs hold memory."""
    target, wanted = target_of(model, "class", "lrp"), settings({}, 16)
    recordings = stand_in(monkeypatch)
    eager = made(model, target, "lrp", wanted, False)
    recordings.fails = RuntimeError("operation not permitted when stream is capturing\nmore of it")
    with pytest.warns(
        UserWarning, match=r"could not be recorded \(operation not permitted when stream is capturing\)$"
    ):
        assert_same(made(model, target, "lrp", wanted, True), eager)
    assert recordings.calls.count("record") == 1
    assert "replay" not in recordings.calls


def test_a_few_steps_are_not_worth_recording(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch).calls
    made(model, target_of(model, "class", "lrp"), "lrp", settings({"preset": "paper"}, 2 * WARM_UP), True)
    assert calls == ["wait", "done"]


def test_a_recording_without_memory_is_told_and_gone_on_from(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the step was carried out, so the state is that after the warm-up."""
    target, wanted = target_of(model, "channel", "lrp"), settings({}, 16)
    recordings = stand_in(monkeypatch)
    whole = optimise(model, target, wanted, {})
    recordings.fails = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RanOut, match="Tried to allocate") as error:
        optimise(model, target, wanted, {})
    begun, recordings.fails = error.value.begun, None
    assert isinstance(begun, Begun)
    assert begun.done == WARM_UP
    assert_same(optimise(model, target, wanted, {}, begun=begun), whole)


def test_no_kind_of_step_runs_by_itself_beside_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording keeps its memory from other steps, so both together would need twice what was measured for one."""
    whole, crop = StepKind(), StepKind(random_crop=True)
    kinds = [*[whole] * 5, *[crop, whole] * 6, *[crop] * 3]
    calls = stand_in(monkeypatch).calls

    class Steps(Step):
        def __init__(self) -> None:
            self.whole = True

        def __call__(self, kind: StepKind) -> None:
            calls.append(f"eager {kind.random_crop:d}")

    with step.recorded(Steps(), torch.device("cpu"), kinds) as run:
        for kind in kinds:
            run(kind)
    recorded = [place for place, call in enumerate(calls) if call == "record"]
    assert len(recorded) == 2
    first, second = recorded
    assert sorted(calls[1:first]) == ["eager 0"] * 7 + ["eager 1"] * WARM_UP
    # the steps that are recorded are called, too: one in each recording
    assert [call for call in calls[first:] if call.startswith("eager")] == ["eager 0", "eager 1"]
    assert calls[second + 1].startswith("eager")


def test_an_interrupted_recording_ends_the_run(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = stand_in(monkeypatch)
    recordings.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        made(model, target_of(model, "channel", "lrp"), "lrp", settings({}, 16), True)
    assert recordings.calls[-1] == "done"


def test_a_picture_stops_where_its_loss_is_not_finite_and_its_neighbour_goes_on() -> None:
    """Adam would move it on by what it remembers."""
    settings = PictureSettings.model_validate({"method": "pixel", "steps": 5, "side": 16, "norm": 0.0})
    draws, preprocessing = draw(settings, "layer", [0, 1]), Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
    pictures, taken = PixelPictures(0.1 * draws.noise, preprocessing), []

    def judge(activations: Activations, random_crop: bool) -> Tensor:
        taken.append(pictures.parameters.detach().clone())
        loss = activations["input"].sum((1, 2))
        return loss * torch.tensor([1.0 if len(taken) < 3 else torch.nan, 1.0])

    running = Step(lambda shown: {"input": shown.flatten(2)}, judge, pictures, draws, settings, Priors())
    for _ in range(5):
        running(StepKind())
    assert running.alive.tolist() == [False, True]
    assert torch.equal(pictures.parameters[0], taken[2][0])
    assert not torch.equal(taken[2][0], taken[1][0])
    assert not torch.equal(pictures.parameters[1], taken[4][1])
