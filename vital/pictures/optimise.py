"""A batch of neurons optimised together, each picture as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.measuring.image_sums import ColourDistribution, grey
from vital.measuring.targets import Target
from vital.network.arithmetic import arithmetic
from vital.network.layers.published import prior_weight
from vital.network.models import Model
from vital.network.probe import Activations, Layout, anchor, probe
from vital.pictures.baselines import ascent, check_method
from vital.pictures.objective import Objective
from vital.pictures.pixels import (
    PLAIN_PALETTE,
    FourierPictures,
    Palette,
    Parametrisation,
    PhasePictures,
    PixelPictures,
    to_bytes,
    transparency,
)
from vital.pictures.step import Begun, Judge, Priors, Step, StepKind, broken_off, recorded
from vital.pictures.transforms import draw, random_crop_steps
from vital.propagation.mode import relevance_mode
from vital.settings import PictureSettings, RelevanceKind

RECORDS = 50
"""Losses kept of a run, evenly spaced."""


@dataclass(frozen=True)
class Pictures:
    """Finished pictures as bytes, their transparency, their loss over time, and whether each stayed finite."""

    pixels: UInt8[np.ndarray, "picture side side colour"]
    alpha: UInt8[np.ndarray, "picture side side"]
    loss: Float[np.ndarray, "picture record"]
    finite: np.ndarray


@torch.inference_mode(False)
@torch.enable_grad()
def optimise(
    model: Model,
    target: Target,
    settings: PictureSettings,
    layouts: Mapping[str, Layout] | None = None,
    kind: RelevanceKind = "lrp",
    *,
    colours: ColourDistribution | None = None,
    spectrum: Float[np.ndarray, "colour row column"] | None = None,
    progress: Callable[[int], None] = lambda step: None,
    record: bool = True,
    begun: Begun | None = None,
) -> Pictures:
    """Pictures of the target's neurons (VITAL, sections 3 and 4; other methods: `vital.pictures.baselines`), one
    batch, each with its own loss and random stream. A picture whose loss is not finite stops moving and is marked; its
    neighbours go on.

    Args:
        model: the network, at the pictures' side (`vital.network.models.at_side`).
        target: what the activations of each picture must match, a row a picture.
        settings: how a picture is optimised.
        layouts: where each layer keeps its channels (`vital.network.layers.Survey.layouts`); guessed by default.
        kind: how relevance to a neuron inside the network is computed; the one that the target was measured with.
        colours: the distribution of colours that pictures begin from; grey and independent by default.
        spectrum: the data set's mean amplitude spectrum, for pictures that are phases.
        progress: told the number of steps done.
        record: whether a GPU replays its steps (`vital.pictures.step`) instead of running each operation by itself.
        begun: how far these pictures were when memory ran out; from their beginning by default.

    Raises:
        UnsuitableInput: the method asks for what the network or the statistics do not have.
        RanOut: memory ran out in a step; with ``begun`` to go on from, for fewer pictures together.
    """
    check_method(model, settings)
    inner, matching = not target.classes, settings.method == "vital"
    # A class's own activation is its logit: it has no relevance.
    mode = relevance_mode(kind) if matching and inner and settings.relevant_weight > 0 else None
    prior = prior_weight(model.name, inner) if settings.preset == "paper" else 0.0
    priors = Priors(*(prior if given is None else given for given in (settings.total_variation, settings.norm)))
    layers = list(target.nodes) if matching else []
    if inner or settings.weight_of_own(not inner) > 0 or not matching:
        layers.append(target.reads.layer)
    draws = draw(settings, target.layer, [int(neuron) for neuron in target.neurons], model.preprocessing.colours)
    losses: list[Tensor] = []
    records = set(recorded_steps(settings.steps).tolist())
    with ExitStack() as running:
        model = running.enter_context(arithmetic(model, settings.precision))
        run = running.enter_context(probe(model.network, layers, layouts, mode))
        weight = anchor(model.network)
        noise = draws.noise.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        pictures = _parametrise(noise, model, settings, colours or grey(model.preprocessing.colours), spectrum)
        if matching:
            judge: Judge = Objective(model, target, settings, kind, mode)
        else:
            activated = running.enter_context(ascent(model, target, settings))

            def judge(activations: Activations, random_crop: bool) -> Tensor:
                return activated(activations)

        kinds = [StepKind(bool(cropped)) for cropped in random_crop_steps(settings, target.classes)]
        state = Step(
            lambda shown: run(shown.to(weight.dtype)), judge, pictures, draws, settings, priors,
            preprocessing=model.preprocessing,
        )  # fmt: skip
        if begun is not None:
            state.go_on(begun)
            losses += [loss.to(weight.device) for loss in begun.losses]
        first = begun.done if begun else 0
        step = running.enter_context(recorded(state, weight.device, kinds[first:])) if record else state
        for number, one in enumerate(kinds[first:], first):
            with broken_off(state, losses):
                step(one)
            if number in records:
                losses.append(state.loss.clone())
            progress(number + 1)
        with torch.no_grad():
            final = pictures.pictures()
    return Pictures(
        to_bytes(final, model.preprocessing),
        transparency(state.saliency),
        torch.stack(losses, 1).float().numpy(force=True),
        state.alive.numpy(force=True),
    )


def records_of(steps: int) -> int:
    """How many losses a run of so many steps keeps."""
    return min(RECORDS, steps)


def recorded_steps(steps: int) -> Int[np.ndarray, "record"]:
    """The steps, counted from 0, whose losses are kept."""
    return np.linspace(0, steps - 1, records_of(steps)).round().astype(int)


def _parametrise(
    noise: Tensor,
    model: Model,
    settings: PictureSettings,
    colours: ColourDistribution,
    spectrum: np.ndarray | None,
) -> Parametrisation:
    if settings.parametrisation == "pixel":
        return PixelPictures(noise * FAINT if settings.method == "pixel" else noise, model.preprocessing)
    if settings.parametrisation == "fourier":
        palette = Palette() if settings.method == "vital" else PLAIN_PALETTE
        return FourierPictures(noise, model.preprocessing, colours, palette)
    if spectrum is None:
        raise UnsuitableInput(
            "pictures that are phases take their amplitudes from the data set's spectrum, which was not given: "
            "use statistics made by `vital references`"
        )
    return PhasePictures(noise, model.preprocessing, colours, spectrum)


FAINT = 0.1
"""Deviation of the noise that pixels of method ``pixel`` begin as: near grey, as published."""
