"""Whatever a program told torch, what is written is computed in the arithmetic that is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from tests.reference.networks import SIDE
from vital.errors import UnsuitableInput
from vital.judging.judges import own_judge
from vital.judging.metrics import matched_curves, peak_ranks
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.maps import relevance
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.arithmetic import ON_GPU, arithmetic, repeatable, resolved, rounding
from vital.network.layers import survey
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import CLASSES
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings, Precision

LAYER, NODES = "2", ("0", "1")
B: Any = torch.backends
UNTOLD = "the two sets disagree"


def flags() -> dict[str, object]:
    """All that torch knows of single precision; what its two sets of flags disagree on is not told."""

    def old(read: Callable[[], object]) -> object:
        try:
            return read()
        except RuntimeError:
            return UNTOLD

    ops = {"matmul": B.cuda.matmul, "conv": B.cudnn.conv, "rnn": B.cudnn.rnn}
    cpu = {"cpu matmul": B.mkldnn.matmul, "cpu conv": B.mkldnn.conv, "cpu rnn": B.mkldnn.rnn}
    return {
        **{name: one.fp32_precision for name, one in {**ops, **cpu}.items()},
        "old matmul": old(lambda: B.cuda.matmul.allow_tf32),
        "old cudnn": old(lambda: B.cudnn.allow_tf32),
        "old name": old(torch.get_float32_matmul_precision),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
    }


ON_GPU_FLAGS = ("matmul", "conv", "rnn")
EXACT = {"ieee"}


def untouched() -> None:
    """As torch begins."""


def old_flags() -> None:
    B.cuda.matmul.allow_tf32 = B.cudnn.allow_tf32 = True


def by_name() -> None:
    torch.set_float32_matmul_precision("medium")


def new_flags() -> None:
    B.cuda.matmul.fp32_precision = B.cudnn.conv.fp32_precision = "tf32"
    B.mkldnn.conv.fp32_precision = "bf16"


def general_flag() -> None:
    B.fp32_precision = "tf32"


@pytest.fixture(params=[untouched, old_flags, by_name, new_flags, general_flag], ids=lambda one: one.__name__)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a program may have told torch before it called us."""
    general, kept = B.fp32_precision, [(one, one.fp32_precision) for one in (B.cudnn.conv, B.cudnn.rnn)]
    request.param()
    yield
    B.fp32_precision = general
    torch.set_float32_matmul_precision("highest")
    B.cudnn.allow_tf32 = True
    for one in (B.cuda.matmul, B.mkldnn.matmul, B.mkldnn.conv, B.mkldnn.rnn):
        one.fp32_precision = "none"
    for one, value in kept:
        one.fp32_precision = value


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(("precision", "on_gpu"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")])
def test_single_precision_is_what_was_asked_for_and_all_is_as_before_afterwards(
    precision: Precision, on_gpu: str
) -> None:
    before = flags()
    with torch.autocast("cpu", torch.bfloat16):
        with rounding(precision):
            inside = flags()
        with pytest.raises(ZeroDivisionError), rounding(precision):
            raise ZeroDivisionError
        assert torch.is_autocast_enabled("cpu")
    assert {inside[name] for name in ON_GPU_FLAGS} == {on_gpu}
    assert {inside[name] for name in ("cpu matmul", "cpu conv", "cpu rnn")} == EXACT
    assert (inside["old matmul"], inside["old cudnn"]) == (on_gpu == "tf32",) * 2
    assert inside["autocast"] == (False, False)
    after = flags()
    assert {name: after[name] for name, value in before.items() if value != UNTOLD} == {
        name: value for name, value in before.items() if value != UNTOLD
    }


@contextmanager
def seen_by(model: Model) -> Iterator[list[dict[str, object]]]:
    """The flags at every pass of the network."""
    seen: list[dict[str, object]] = []
    handle = model.network[0].register_forward_hook(lambda *_: seen.append(flags()))  # type: ignore[index]
    try:
        yield seen
    finally:
        handle.remove()


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def crops() -> list[Crop]:
    return [Crop(one, (row % 2,)) for row, one in enumerate(images(4))]


def measured(model: Model, precision: Precision = "float32") -> Target:
    return measure(model, Attribution(LAYER, precision=precision), [1, 5], crops(), NODES)


def gathered(model: Model, precision: Precision = "float32") -> dict[str, np.ndarray]:
    plan, rows = Plan((LAYER, CLASSES), NODES, 3, 8, precision), np.arange(4)
    return gather(model, survey(model), plan, Batch(images(4), rows, rows, [str(row) for row in rows])).arrays()


def judged(model: Model) -> None:
    own_judge(model).outputs(images(2))


def looked_at(model: Model) -> None:
    pixels = images(2).permute(0, 2, 3, 1).numpy()
    peak_ranks(model, Readout(LAYER), [1, 5], pixels, {}, (np.zeros(12), np.ones(12)))
    matched_curves(model, measured(model), pixels, {})


def optimised(model: Model) -> None:
    optimise(model, measured(model), PictureSettings(steps=2, side=SIDE, precision="float32"))


def mapped(model: Model) -> None:
    relevance(model, f"{LAYER}:1", [image.permute(1, 2, 0).numpy() for image in images(2)])


@pytest.mark.parametrize("work", [gathered, measured, judged, looked_at, optimised, mapped])
def test_everything_whose_numbers_are_kept_computes_in_single_precision(
    tiny: Callable[..., Model], work: Callable[[Model], object]
) -> None:
    """torch lets cuDNN round to tf32, and this program lets everything else round, too."""
    model = tiny()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), seen_by(model) as seen:
            seen.clear()
            work(model)
    finally:
        torch.set_float32_matmul_precision("highest")
        B.cuda.matmul.fp32_precision = B.mkldnn.matmul.fp32_precision = "none"
    kept = [one for one in seen if one["autocast"] == (False, False)]  # surveys and dry runs write nothing
    assert kept
    for one in kept:
        assert {one[name] for name in (*ON_GPU_FLAGS, "cpu matmul", "cpu conv")} == EXACT


def test_statistics_and_targets_of_less_precision_are_near_those_of_single(tiny: Callable[..., Model]) -> None:
    """bfloat16 has 8 bits: 0.4 % an operation, three layers deep; what is added up is of single precision again."""
    model = tiny()
    exact, rough = gathered(model), gathered(model, "bfloat16")
    assert exact.keys() == rough.keys()
    best, nearly = (found["rankings/2/scores"][:, 0] for found in (exact, rough))
    assert not np.array_equal(best, nearly)
    np.testing.assert_allclose(nearly, best, atol=0.03 * np.abs(best).max())
    for node, one in measured(model).nodes.items():
        other = measured(model, "bfloat16").nodes[node]
        for name in ("quantiles", "relevant", "importance"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=0.03 * getattr(one, name).max())
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}


def test_a_network_of_less_precision_is_copied_once(tiny: Callable[..., Model]) -> None:
    model = tiny()
    with arithmetic(model, "bfloat16") as one, arithmetic(model, "bfloat16") as other:
        assert one.network is other.network is not model.network
        assert {weight.dtype for weight in one.network.parameters()} == {torch.bfloat16}
    for precision in ("auto", "tf32", "float32"):
        with arithmetic(model, precision) as same:
            assert same is model


def test_auto_is_less_than_single_only_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert resolved("auto", torch.device("cuda")) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolved("auto", torch.device("cuda", 1)) == ON_GPU != "float32"
    assert resolved("auto", torch.device("cpu")) == "float32"
    assert resolved("tf32", torch.device("cuda")) == "tf32"


def test_repeatable_is_asked_of_torch_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is taken back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(B.cudnn, "benchmark", True)
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert (B.cudnn.deterministic, B.cudnn.benchmark) == (True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(ZeroDivisionError), repeatable():
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    assert (B.cudnn.deterministic, B.cudnn.benchmark) == (False, True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set 'torch.use_…'",
            "but grid_sampler_2d_backward_cuda does not have a deterministic implementation: leave it out",
        ),
        (
            "Deterministic behavior was enabled with either `…`, but this operation is not deterministic because it "
            "uses CuBLAS and you have CUDA >= 10.2. To enable it set CUBLAS_WORKSPACE_CONFIG=:4096:8",
            "run the same in a new one, or start it with CUBLAS_WORKSPACE_CONFIG=:4096:8",
        ),
    ],
)
def test_what_cannot_be_repeated_is_one_sentence(said: str, told: str) -> None:
    with pytest.raises(UnsuitableInput, match=told), repeatable():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes"), repeatable():
        raise RuntimeError("shapes do not match")
