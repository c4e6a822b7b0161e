"""A batch of neurons optimised together, each picture as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vital.losses import frobenius, total_variation
from vital.models import Model
from vital.nodes import prior_weight
from vital.objective import Objective
from vital.pixels import GREY, Colours, FourierPictures, Parametrisation, PixelPictures, to_bytes, transparency
from vital.precision import reduced
from vital.probe import Layout, probe
from vital.relevance import relevance_mode
from vital.schedule import blur, draw, rate, shift
from vital.settings import Kind, PictureSettings
from vital.targets import Target

RECORDS = 50
"""Losses kept of a run, evenly spaced."""


@dataclass(frozen=True)
class Pictures:
    """Finished pictures as bytes, their transparency, their loss over time, and whether each stayed finite."""

    pixels: UInt8[np.ndarray, "picture side side 3"]
    alpha: UInt8[np.ndarray, "picture side side"]
    loss: Float[np.ndarray, "picture record"]
    finite: np.ndarray


def optimise(
    model: Model,
    target: Target,
    settings: PictureSettings,
    layouts: dict[str, Layout] | None = None,
    kind: Kind = "lrp",
    colours: Colours = GREY,
    progress: Callable[[int], None] = lambda step: None,
) -> Pictures:
    """Pictures of the target's neurons (VITAL, sections 3 and 4), one batch, each with its own loss and random stream.

    ``progress`` is told the number of steps done. A picture whose loss is not finite stops moving and is marked; its
    neighbours go on.
    """
    inner = not target.classes
    # A class's own activation is its logit: it has no relevance.
    mode = relevance_mode(kind) if inner and settings.relevant_weight > 0 else None
    prior = prior_weight(model.name, inner) if settings.scaling == "published" else 0.0
    variation, norm = (prior if said is None else said for said in (settings.total_variation, settings.norm))
    layers = [*target.nodes, target.reads.layer] if inner or settings.own_weight > 0 else list(target.nodes)
    draws = draw(settings, target.layer, [int(neuron) for neuron in target.neurons])
    losses = []
    records = set(np.linspace(0, settings.steps - 1, records_of(settings.steps)).round().astype(int).tolist())
    with reduced(model, settings.precision) as model, probe(model.network, layers, layouts, mode) as run:
        weight = next(model.network.parameters())
        pictures = _parametrise(
            draws.noise.to(weight.device, torch.promote_types(weight.dtype, torch.float32)), model, settings, colours
        )
        objective = Objective(model, target, settings, kind, mode)
        adam = torch.optim.Adam([pictures.parameters], settings.learning_rate, settings.betas)
        saliency = torch.zeros_like(draws.noise, device=weight.device)
        blurs = torch.from_numpy(draws.blurs).to(weight.device)  # all at once: a step waits for nothing
        alive = torch.ones(len(target), dtype=torch.bool, device=weight.device)
        coarse = settings.coarse * settings.steps
        # Below half its input's side a network hardly sees anything.
        large = settings.side >= model.preprocessing.side
        if coarse and not (large and _takes(run, draws.noise[:1, :, ::2, ::2].to(weight))):
            coarse = 0
        for step in range(settings.steps):
            for group in adam.param_groups:
                group["lr"] = settings.learning_rate * rate(step, settings)
            shown = pictures.pictures()
            moved = shift(blur(shown, blurs[:, step]) if settings.softness else shown, draws.shifts[:, step])
            if step < coarse:
                moved = avg_pool2d(moved, 2)
            loss = objective(run(moved.to(weight.dtype)))
            if variation:
                loss = loss + variation * total_variation(shown)
            if norm:
                loss = loss + norm * frobenius(shown)
            gradient, of_picture = torch.autograd.grad(loss.sum(), [pictures.parameters, shown])
            alive &= torch.isfinite(loss) & torch.isfinite(gradient).flatten(1).all(1)
            saliency += torch.where(alive.view(-1, 1, 1, 1), of_picture.abs(), 0)
            pictures.parameters.grad = torch.where(alive.view(-1, *[1] * (gradient.dim() - 1)), gradient, 0)
            adam.step()
            pictures.settle()
            if step in records:
                losses.append(loss.detach())
            progress(step + 1)
        with torch.no_grad():
            final = pictures.pictures()
    return Pictures(
        to_bytes(final, model.preprocessing),
        transparency(saliency),
        torch.stack(losses, 1).float().numpy(force=True),
        alive.numpy(force=True),
    )


def _takes(run: Callable[[Tensor], object], pictures: Tensor) -> bool:
    """Whether the network takes pictures of this size; those with fixed position embeddings do not."""
    try:
        with torch.no_grad():
            run(pictures)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def records_of(steps: int) -> int:
    """How many losses a run of so many steps keeps."""
    return min(RECORDS, steps)


def _parametrise(noise: Tensor, model: Model, settings: PictureSettings, colours: Colours) -> Parametrisation:
    if settings.parametrisation == "pixel":
        return PixelPictures(noise, model.preprocessing)
    return FourierPictures(noise, model.preprocessing, colours)
