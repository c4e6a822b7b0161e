"""One step of a run: operations on tensors that stay where they are.

A step takes nothing from the host and gives it nothing. It is counted on the device, and what differs from step to step
is read from tables there. So a GPU records the steps of each kind once, as a CUDA graph, and replays them: one call of
the host instead of a thousand. Everywhere else the same function runs operation by operation.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.optim.adam import adam

from vital.memory import RanOut, first_line, out_of_memory
from vital.network.preprocessing import Preprocessing
from vital.network.probe import Activations
from vital.pictures.losses import frobenius, total_variation
from vital.pictures.pixels import Parametrisation
from vital.pictures.transforms import Draws, blur, rate, shift, warp
from vital.settings import PictureSettings

WARM_UP = 3
"""Steps of a kind that run before one is recorded: libraries set themselves up in them, and targets are resampled."""


Judge = Callable[[Activations, bool], Float[Tensor, "picture"]]
"""The loss of every picture from their activations, in a step with a random crop or without."""


@dataclass(frozen=True)
class StepKind:
    """What makes steps differ in their operations, and not in their values alone."""

    random_crop: bool = False


@dataclass(frozen=True)
class Priors:
    """Weights of the total variation and of the norm."""

    variation: float = 0.0
    norm: float = 0.0


@dataclass(frozen=True)
class Begun:
    """A run after some steps, on the host: what the later ones need of the earlier."""

    done: int
    losses: Sequence[Float[Tensor, "picture"]]
    """Those that were recorded."""
    state: Mapping[str, Shaped[Tensor, "picture ..."]]
    count: Tensor
    """Adam's own, of its steps."""

    def take(self, rows: slice) -> Begun:
        """What was begun of the pictures in these ``rows`` alone."""
        state = {name: values[rows] for name, values in self.state.items()}
        return Begun(self.done, [loss[rows] for loss in self.losses], state, self.count)


class _Adam:
    """What Adam keeps of its parameters. Its step is PyTorch's own function: the class around that imports PyTorch's
    compiler, a second of every process that makes pictures."""

    def __init__(self, parameters: Tensor, betas: tuple[float, float]) -> None:
        self._parameters, self._betas, self._on_gpu = parameters, betas, recordable(parameters.device)
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.count = torch.zeros(
            (),
            dtype=torch.float32 if self._on_gpu else None,
            device=parameters.device if self._on_gpu else "cpu",
        )
        """Of steps that were taken."""

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters against a gradient, by Adam, at a rate given as a tensor: a recorded graph reads it."""
        adam(
            [self._parameters], [gradient], [self.mean], [self.square], [], [self.count],
            foreach=False, capturable=self._on_gpu, fused=self._on_gpu, amsgrad=False, beta1=self._betas[0],
            beta2=self._betas[1], lr=rate, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip


class Step:
    """The state of a run, and the step that moves it on."""

    def __init__(
        self,
        run: Callable[[Tensor], Activations],
        judge: Judge,
        pictures: Parametrisation,
        draws: Draws,
        settings: PictureSettings,
        priors: Priors,
        *,
        preprocessing: Preprocessing,
    ) -> None:
        """``run`` is the network, whatever its precision."""
        self._run, self._judge, self._pictures, self._priors = run, judge, pictures, priors
        self._preprocessing = preprocessing
        parameters, steps = pictures.parameters, settings.steps
        device = parameters.device

        def table(values: Shaped[np.ndarray, "step ..."]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        on_gpu = recordable(device)
        # A fused Adam takes a rate of single precision; on a CPU it is exact, as a number of Python's is.
        rates = np.array([settings.learning_rate * rate(step, settings) for step in range(steps)])
        self._rates = table(rates.astype(np.float32 if on_gpu else np.float64))
        self._rate = torch.zeros((), dtype=self._rates.dtype, device=device)
        self._adam = _Adam(parameters, settings.betas)
        self._shifts = table(draws.shifts.swapaxes(0, 1))
        self._blurs = table(draws.blurs.swapaxes(0, 1)) if settings.softness else None
        self._warps = None if draws.warps is None else table(draws.warps.swapaxes(0, 1))
        self._noise_shifts = None if draws.noise_shifts is None else table(draws.noise_shifts.swapaxes(0, 1))
        self._always_noisy = settings.method != "vital"
        self._noise = draws.noise.to(device)
        self._deviations = table(np.array([settings.noise * (1 - step / steps) for step in range(steps)], np.float32))
        self._done = torch.zeros(1, dtype=torch.long, device=device)
        count = len(self._noise)
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        """Pictures whose loss and gradient were finite in every step."""
        self.saliency = torch.zeros_like(self._noise)
        """Sum over the steps of |gradient of each pixel|."""
        self.loss = torch.zeros(count, dtype=parameters.dtype, device=device)
        """Of the last step without a random crop; random crops have another loss."""
        self.whole = True
        """Whether the state is that after a step, and not that in the middle of one."""

    def begun(self, losses: Sequence[Float[Tensor, "picture"]]) -> Begun | None:
        """How far the run is, with the losses that were recorded of it; None where a step was left in its middle."""
        done = int(self._done)
        if not self.whole or not done:
            return None
        state = {"parameters": self._pictures.parameters, "alive": self.alive, "saliency": self.saliency}
        state |= {"loss": self.loss, "mean": self._adam.mean, "square": self._adam.square}
        return Begun(
            done,
            [loss.cpu() for loss in losses],
            {name: values.detach().to("cpu", copy=True) for name, values in state.items()},
            self._adam.count.to("cpu", copy=True),
        )

    def go_on(self, begun: Begun) -> None:
        """Go on from where a run on the same pictures was broken off: with its parameters and the state of Adam."""
        parameters, state = self._pictures.parameters, begun.state
        moments = (("mean", self._adam.mean), ("square", self._adam.square))
        for name, tensor in (("alive", self.alive), ("saliency", self.saliency), ("loss", self.loss), *moments):
            tensor.copy_(state[name])
        with torch.no_grad():
            parameters.copy_(state["parameters"])
        self._adam.count.copy_(begun.count)
        self._done.fill_(begun.done)

    def _now(self, table: Tensor) -> Tensor:
        """The entry of the step that is under way."""
        return table.index_select(0, self._done)[0]

    def __call__(self, kind: StepKind) -> None:
        """Run the next step, which is of this kind."""
        parameters = self._pictures.parameters
        self._rate.copy_(self._now(self._rates))
        shown = self._pictures.pictures()
        loss = self._judge(self._run(self._moved(shown, kind)), kind.random_crop)
        if self._priors.variation:
            loss = loss + self._priors.variation * total_variation(self._preprocessing.to_published(shown))
        if self._priors.norm:
            loss = loss + self._priors.norm * frobenius(self._preprocessing.to_published(shown))
        if not kind.random_crop:
            self.loss.copy_(loss.detach())
        gradient, of_picture = torch.autograd.grad(loss.sum(), [parameters, shown])
        self.whole = False
        self.alive &= torch.isfinite(loss) & torch.isfinite(gradient).flatten(1).all(1)
        self.saliency += torch.where(self.alive.view(-1, 1, 1, 1), of_picture.abs(), 0)
        alive = self.alive.view(-1, *[1] * (gradient.dim() - 1))
        moving = torch.where(alive, gradient, 0)
        self._adam.mean *= alive  # else Adam moves a stopped picture on by the gradients that it remembers
        self._adam.step(moving.contiguous(), self._rate)  # fused, it reads memory in order, whatever the strides
        self._pictures.settle()
        self._done += 1
        self.whole = True

    def _moved(self, shown: Tensor, kind: StepKind) -> Tensor:
        """What the network sees of the pictures."""
        blurred = shown if self._blurs is None else blur(shown, self._now(self._blurs))
        moved = shift(blurred, self._now(self._shifts))
        if self._warps is not None:
            moved = warp(moved, self._now(self._warps))
        if self._noise_shifts is not None and (self._always_noisy or kind.random_crop):
            noise = shift(self._noise, self._now(self._noise_shifts))
            moved = moved + self._now(self._deviations) * self._preprocessing.from_published(noise)
        return moved


@contextmanager
def broken_off(step: Step, losses: Sequence[Tensor]) -> Iterator[None]:
    """Memory that runs out while the block lasts is told with how far the run was."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        why, begun = first_line(error), step.begun(losses)
    else:
        return
    raise RanOut(why, begun)  # here, where the error no longer holds what the step had made


def recordable(device: torch.device) -> bool:
    """Whether steps on this device can be recorded and replayed."""
    return device.type == "cuda"


@contextmanager
def recorded(step: Step, device: torch.device, kinds: Sequence[StepKind]) -> Iterator[Callable[[StepKind], None]]:
    """The same step, which a GPU records after some warm-up and then replays, while the block lasts. ``kinds`` are of
    all steps that will be asked for.

    Work of the block is on a stream of its own, as recording asks for; it is done when the block ends.
    """
    if not recordable(device):
        yield step
        return
    recorder = _Recorder(step, device, kinds)
    with recorder.running():
        yield recorder


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a device that steps are recorded on: cuBLAS keeps a workspace for every stream that it was ever
    used on, 32 MiB on Hopper, and torch hands out 32 streams in turn."""
    return torch.cuda.Stream(device)


class _Recorder:
    """A graph for each kind of step. They share their memory: none of it is read after the step that wrote it. A graph
    goes with the last step of its kind."""

    def __init__(self, step: Step, device: torch.device, kinds: Sequence[StepKind]) -> None:
        self._step, self._able = step, True
        self._before, self._stream = torch.cuda.current_stream(device), _stream(device)
        self._graphs: dict[StepKind, torch.cuda.CUDAGraph] = {}
        self._left, self._ran = Counter(kinds), Counter[StepKind]()

    @contextmanager
    def running(self) -> Iterator[None]:
        """All that the block asks for is done, in order, on a stream of its own."""
        self._stream.wait_stream(self._before)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._stream.synchronize()

    def __call__(self, kind: StepKind) -> None:
        if self._able and kind not in self._graphs and self._left[kind] > WARM_UP and self._warm(kind):
            self._record(kind)
        if kind in self._graphs:
            self._graphs[kind].replay()
        else:
            self._step(kind)
        self._ran[kind] += 1
        self._left[kind] -= 1
        if not self._left[kind]:
            self._graphs.pop(kind, None)

    def _warm(self, kind: StepKind) -> bool:
        """Whether this kind has run often enough, and so have those beside it. A graph keeps its memory from steps that
        run by themselves: beside those of another kind it would take twice what was measured."""
        beside = [one for one in self._left if self._worth(one)]
        return self._ran[kind] >= WARM_UP and all(self._ran[one] >= WARM_UP for one in beside)

    def _worth(self, kind: StepKind) -> bool:
        """Whether a kind is to be recorded: a few steps are not worth it."""
        return self._ran[kind] + self._left[kind] > 2 * WARM_UP

    def _record(self, kind: StepKind) -> None:
        """Record a step, which is not carried out by that. A network may do what cannot be recorded, such as to look at
        a value; then nothing is lost but time."""
        if not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()  # torch gives up one without graphs
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads of the program may use the GPU meanwhile: their calls belong to no recording
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                self._step(kind)
        except RuntimeError as error:
            self._step.whole = True  # nothing was carried out
            if out_of_memory(error) or (error.__context__ and out_of_memory(error.__context__)):
                raise
            self._able = False
            self._graphs.clear()
            warnings.warn(
                "steps run operation by operation, which takes a GPU longer: they could not be recorded "
                f"({first_line(error)})",
                stacklevel=1,
            )
        else:
            self._graphs[kind] = graph
