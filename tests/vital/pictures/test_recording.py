"""Recorded steps do what steps do, and a recording that fails leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.vital.pictures.recording import stand_in
from tests.vital.pictures.steps import EVERY, kinds_of, settings, target_of
from tests.vital.pictures.test_baselines import SPECTRUM, Normed
from tests.vital.pictures.test_optimise import assert_same, double
from vital.measuring.targets import Target
from vital.memory import RanOut
from vital.network.models import Model
from vital.pictures import step
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.step import WARM_UP, Begun, Step, StepKind
from vital.settings import PictureSettings, RelevanceKind

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny: Callable[..., Model]) -> Model:
    return tiny(network=Normed())


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
