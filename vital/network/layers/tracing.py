"""One run of a network that notes what its modules give: which are layers, how large they are, which sites are the
image's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vital.errors import FailedForward, UnsuitableInput
from vital.network.layers.blocks import block_names, is_leaf, run_modules
from vital.network.layers.chance import DRAWS, MIXES, UNSTEADY, sampled, streams, unsteady
from vital.network.layers.layer import Layer, Survey, stated
from vital.network.layers.probabilities import said_of
from vital.network.layers.tokens import Constant, other_tokens
from vital.network.out_of_place import OutOfPlace
from vital.network.preprocessing import Preprocessing
from vital.network.probe import (
    CLASSES,
    Layout,
    anchor,
    forward,
    guess_layout,
    modules_anew,
    only_tensor,
    scores,
    to_sites,
)

IMAGES = 2
"""In the run that layers are read from: what does not differ between two images is not of the image."""
APART = (
    "has no gradient that leads to the images, which pictures follow: it is the same for all of them, whole numbers, "
    "or computed under torch.no_grad"
)
"""Why something is no layer although it gives activations."""
SIDES = (224, 256, 299, 384, 32, 64, 28, 96, 128, 448, 512)
"""Usual sides of inputs, of which one is named where the network cannot take what was asked for."""


@runtime_checkable
class Surveyed(Protocol):
    """What `survey` needs of a `vital.network.models.Model`."""

    @property
    def name(self) -> str:
        """What the network is called in an error."""

    @property
    def network(self) -> nn.Module:
        """The module that is run to see its layers."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The side of its input."""


@dataclass(frozen=True, eq=False)
class _Run:
    """What one run of a module gave: the shape, which sites are the same for all images, and when it ran."""

    shape: torch.Size
    begun: int
    ended: int
    constant: Constant = ()
    before: Constant = ()
    """Sites of its input that are the same for all images."""
    apart: bool = False
    """Whether it is known that no gradient leads from it to the images."""
    values: Tensor = field(default_factory=lambda: torch.empty(0, device="cpu"))
    """Some of what it gave, of one image."""


@dataclass(frozen=True, eq=False)
class _Trace:
    """Every module that gave an activation, why the others are no layers, and why the network stopped, if it did."""

    runs: dict[str, _Run]
    left_out: dict[str, str]
    failure: FailedForward | None
    notes: tuple[str, ...] = ()
    """What is doubtful about its output."""


def survey(
    model: Surveyed,
    way_out: str = "leave out --input-size, or give a size that it takes",
    needed: Collection[str] | None = None,
) -> Survey:
    """Run two images of noise through ``model`` and note what its layers give. Layers that run more than once are left
    out.

    Where the network does not run to its end, only ``needed`` layers must be there; any other layer is refused when it
    is asked for.

    Raises `UnsuitableInput`, which ends with ``way_out``, when the network cannot take the size, or no two images at
    once, and `FailedForward` when its own forward fails at any size.
    """
    side, colours = model.preprocessing.side, model.preprocessing.colours
    large = _trace(model.network, side, IMAGES, colours)
    if large.failure and (needed is None or not large.runs):
        raise _explained(model, large.failure, way_out) from large.failure
    failure = None
    if large.failure:
        failure = (
            f"{model.name} stops in its own forward on images of {side} × {side} pixels, after "
            f"{list(large.runs)[-1]!r} ({_why(large.failure)}): name a layer up to there, or {way_out}"
        )
    # The channel axis is the one that keeps its length when the image shrinks: this tells (row, column, channel)
    # from the usual order. Networks that take one size only do not get that far.
    smaller = max(32, side * 5 // 7 // 32 * 32)
    anew = modules_anew(model.network)
    small = _trace(anew, smaller, 1, colours, gradients=True)
    if small.failure:
        small = _trace(anew := modules_anew(model.network), smaller, 1, colours)
    again = (anew, smaller) if small.failure is None else (modules_anew(model.network), side)
    changing, notes = _chance(model, *again, small)
    apart = {name: APART for name, run in small.runs.items() if run.apart and name in large.runs}
    if apart and len(apart) == len(large.runs):
        raise UnsuitableInput(
            f"{model.name} computes without gradients, which pictures follow: take torch.no_grad, torch.inference_mode "
            "and NumPy out of its forward"
        )
    layers = {
        name: _layer(name, run, small.runs.get(name))
        for name, run in sorted(large.runs.items(), key=lambda one: one[1].ended)
        if name not in apart and name not in changing
    }
    blocks = block_names(model.network, layers)
    tokens = other_tokens({name: (run.constant, run.before) for name, run in large.runs.items()}, list(layers.values()))
    layers = {
        name: Layer(
            name, layer.channels, layer.sites, layer.layout, name in blocks, layer.begun, layer.ended,
            None, *tokens[name],
        )
        for name, layer in layers.items()
    }  # fmt: skip
    notes = (*notes, *(f"{model.name} {note}" for note in large.notes))
    surveyed = Survey(layers, left_out=large.left_out | apart | changing, failure=failure, notes=notes)
    for name in needed or ():
        surveyed.layer(name)
    return surveyed


def _chance(model: Surveyed, network: nn.Module, side: int, known: _Trace) -> tuple[dict[str, str], tuple[str, ...]]:
    """The layers that give something else when ``network`` is shown one image again, and what is to be said of it. Of
    that image what was ``known`` is taken, unless the network did not take it."""
    colours, device = model.preprocessing.colours, anchor(model.network).device
    if device.type == "meta":  # there are no values to be compared
        return {}, ()
    first = known if known.failure is None else _trace(network, side, 1, colours)
    before = streams(device)
    beside = _changing(first, _trace(network, side, IMAGES, colours))  # another image
    drawn = streams(device) != before
    alone: set[str] = set()
    for _ in range(1 + bool(beside) if beside or drawn else 0):
        alone |= _changing(first, _trace(network, side, 1, colours))
    if alone or (beside and drawn):
        return dict.fromkeys(alone | beside if drawn else alone, UNSTEADY), ()
    if not beside:
        return {}, (f"{model.name} {DRAWS}",) if drawn else ()
    mixed = min(beside, key=lambda name: first.runs[name].ended)
    return {}, (f"{mixed!r} of {model.name} {MIXES}",)


def _changing(first: _Trace, again: _Trace) -> set[str]:
    both = first.runs.keys() & again.runs.keys()
    return {name for name in both if unsteady(first.runs[name].values, again.runs[name].values)}


def _layer(name: str, run: _Run, smaller: _Run | None) -> Layer:
    """The layer before it is known which of its sites are the image's."""
    output = torch.empty((1, *run.shape[1:]), device="meta")
    layout = _layout(output, smaller.shape if smaller else None)
    sites = to_sites(output, layout)
    return Layer(name, sites.shape[1], sites.shape[2], layout, False, run.begun, run.ended)


def _layout(output: Tensor, smaller: torch.Size | None) -> Layout:
    if smaller is not None and output.dim() == len(smaller) in (3, 4):
        first, last = output.shape[1] == smaller[1], output.shape[-1] == smaller[-1]
        if first != last:
            return "channels-first" if first else "channels-last"
    # Images are square, and so are maps.
    if output.dim() == 4 and output.shape[1] == output.shape[2] != output.shape[3]:
        return "channels-last"
    return guess_layout(output)


def _explained(model: Surveyed, failure: FailedForward, way_out: str) -> UnsuitableInput | FailedForward:
    """Whether it is the size, the number of images, or the network itself."""
    side, colours, why = model.preprocessing.side, model.preprocessing.colours, _why(failure)
    if _trace(model.network, side, 1, colours).failure is None:
        return UnsuitableInput(
            f"{model.name} takes one image at a time, and fails on two ({why}): make its forward keep the first axis"
        )
    other = next((one for one in SIDES if one != side and _runs(model.network, one, colours)), None)
    if other is None and _runs(model.network, side, colours, rows_first=True):
        return UnsuitableInput(
            f"{model.name} takes images as (row, column, channel) and is given (channel, row, column): give what "
            "vital.wrap(module, axes='row column channel', …) makes of it, or have its factory return that"
        )
    if other is None:
        return FailedForward(
            f"{model.name} fails in its own forward, on images of {colours} × {side} × {side} as at other sizes "
            f"({why}): call it on torch.zeros(1, {colours}, {side}, {side}) to see where"
        )
    return UnsuitableInput(
        f"{model.name} cannot take images of {side} × {side} pixels ({why}; {other} × {other} it takes): {way_out}"
    )


def _runs(network: nn.Module, side: int, colours: int, rows_first: bool = False) -> bool:
    return _trace(modules_anew(network), side, 1, colours, rows_first).failure is None


def _why(failure: FailedForward) -> str:
    cause = failure.__cause__
    text = " ".join(str(cause).split())[:300]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _trace(
    network: nn.Module, side: int, images: int, colours: int, rows_first: bool = False, gradients: bool = False
) -> _Trace:
    clock = 0
    begun: dict[str, tuple[int, Constant]] = {}
    runs: dict[str, list[_Run | str]] = {}

    def enter(name: str, inputs: Any) -> None:
        nonlocal clock
        clock += 1
        given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        begun[name] = clock, _constant(given, images)

    def leave(name: str, output: object) -> None:
        nonlocal clock
        clock += 1
        tensor = only_tensor(output)
        runs.setdefault(name, []).append(
            _no_layer(output, tensor, images)
            if tensor is None or not 2 <= tensor.dim() <= 5 or len(tensor) != images
            else _Run(
                tensor.shape,
                begun[name][0],
                clock,
                _constant(tensor, images),
                begun[name][1],
                apart(tensor),
                sampled(tensor[:1]),
            )
        )

    def apart(tensor: Tensor) -> bool:
        return gradients and not tensor.requires_grad

    failure, given = None, None
    notes: tuple[str, ...] = ()
    with torch.inference_mode(not gradients), torch.set_grad_enabled(gradients), _watched(network, enter, leave):
        try:
            with OutOfPlace():
                noise = _noise(network, side, images, colours).requires_grad_(gradients)
                output = forward(network, noise.permute(0, 2, 3, 1) if rows_first else noise)
            given = scores(output, images)
        except FailedForward as error:
            failure = error
    once = {name: run[0] for name, run in runs.items() if len(run) == 1}
    layers = {name: run for name, run in once.items() if isinstance(run, _Run)}
    left_out = {name: run for name, run in once.items() if isinstance(run, str)}
    left_out |= {
        name: f"runs {len(run)} times in a pass, so that it is no one layer: name what comes before or after it, or "
        "give each run a module of its own"
        for name, run in runs.items()
        if len(run) > 1
    }
    if failure is None:
        left_out |= {name: _unused(module) for name, module in _named(network) if name not in runs}
        if given is None:
            left_out[CLASSES] = f"is not there: {_no_scores(output)}; name a layer inside the network"
        else:
            notes = said_of(given)
            layers[CLASSES] = _Run(given.shape, clock + 1, clock + 2, apart=apart(given), values=sampled(given[:1]))
    return _Trace(layers, left_out, failure, notes)


def _named(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((stated(name), module) for name, module in run_modules(network) if name)


@contextmanager
def _watched(network: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    handles = []
    for name, module in _named(network):
        if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
            handles.append(module.register_forward_pre_hook(lambda m, i, name=name: enter(name, i)))
            handles.append(module.register_forward_hook(lambda m, i, output, name=name: leave(name, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _noise(network: nn.Module, side: int, images: int, colours: int) -> Tensor:
    """Images of the network's own kind of numbers, the same every time."""
    like = anchor(network)
    # one by one: the first is the same of one image as of several
    stream = torch.Generator().manual_seed(0)
    noise = [torch.randn(1, colours, side, side, generator=stream, device="cpu") for _ in range(images)]
    return torch.cat(noise).to(like.device, like.dtype)


def _constant(given: Tensor | None, images: int) -> Constant:
    """Of tokens (image, site, channel): which sites are the same for all images, up to rounding."""
    if given is None or given.dim() != 3 or len(given) != images or images < 2 or given.is_meta:
        return ()
    apart = (given[0] - given[1]).abs().amax(-1)
    return tuple((apart <= 1e-5 * given[0].abs().amax(-1).clamp(min=1e-12)).tolist())


def _unused(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "is TorchScript, whose inside cannot be watched: give the Python module that it was made from"
    if not is_leaf(module):
        return "only holds other modules and does not run itself: name one inside it"
    return "does not run in a pass, or is run by another module without being called: name the module around it"


def _no_layer(output: object, tensor: Tensor | None, images: int) -> str:
    if tensor is None:
        return f"gives {_words(output)}, not one tensor: name a layer inside it"
    return f"gives a tensor of shape {tuple(tensor.shape)} for {images} images, which has no channels and sites of each"


def _no_scores(output: object) -> str:
    return f"the network gives {_words(output)}, which is not one number for each class"


def _words(output: object) -> str:
    if isinstance(output, Tensor):
        kind = "" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}"
        return f"a tensor of shape {tuple(output.shape)}{kind}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {', '.join(_words(part) for part in output) or 'nothing'}"
    return f"a {type(output).__name__}"
