"""A batch of neurons optimised together, each picture as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.losses import frobenius, sort_matching, total_variation
from vital.models import Model
from vital.neurons import own_maps
from vital.nodes import node_weight, prior_weight
from vital.pixels import GREY, Colours, FourierPictures, Parametrisation, PixelPictures, to_bytes, transparency
from vital.probe import INPUT, Activations, Layout, probe
from vital.quantiles import resample, site_levels
from vital.relevance import Relevance, relevance_mode
from vital.schedule import draw, rate, shift
from vital.settings import Kind, PictureSettings
from vital.targets import Target, node_relevance

RECORDS = 50
"""Losses kept of a run, evenly spaced."""
FLOOR = 1e-3
"""Least variance of a target, as a share of its node's mean square: a constant row must not divide by nothing."""


@dataclass(frozen=True)
class Pictures:
    """Finished pictures as bytes, their transparency, their loss over time, and whether each stayed finite."""

    pixels: UInt8[np.ndarray, "picture side side 3"]
    alpha: UInt8[np.ndarray, "picture side side"]
    loss: Float[np.ndarray, "picture record"]
    finite: np.ndarray


@dataclass(frozen=True)
class _Wanted:
    """A node's target at the sites that the pictures have, on their device, and the weights of its two losses."""

    quantiles: Tensor
    relevant: Tensor | None
    importance: Tensor | None
    plain_weight: Tensor
    relevant_weight: Tensor


class _Objective:
    """The loss of every picture from the activations of one step."""

    def __init__(
        self, model: Model, target: Target, settings: PictureSettings, kind: Kind, mode: Relevance | None
    ) -> None:
        self._model, self._target, self._settings, self._kind, self._mode = model, target, settings, kind, mode
        self._device = next(model.network.parameters()).device
        self._dtype = next(model.network.parameters()).dtype
        self._neurons = torch.from_numpy(target.neurons).to(self._device)
        # The published loss knows no colours.
        self._nodes = [name for name in target.nodes if name != INPUT or settings.scaling != "published"]
        if not self._nodes and settings.own_weight == 0:
            raise UnsuitableInput(
                f"preset {settings.preset!r} has nothing to match for layer {target.layer!r}, "
                "which no layer comes before: use preset natural"
            )
        self._wanted: dict[str, _Wanted] = {}
        self._own: tuple[Tensor, Tensor] | None = None

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, self._dtype)

    def _prepare(self, name: str, sites: int) -> _Wanted:
        """Read the target at the pictures' sites, once: a target has no resolution of its own."""
        node, settings = self._target.nodes[name], self._settings

        def rows(values: np.ndarray) -> Tensor:
            return resample(self._tensor(values), node.levels, site_levels(sites))

        quantiles = rows(node.quantiles)
        if settings.emphasis > 0 and node.usual is not None:
            quantiles = quantiles + settings.emphasis * (quantiles - rows(node.usual))
        relevant = None if node.relevant is None else rows(node.relevant)
        importance = None if node.importance is None else self._tensor(node.importance)
        if settings.scaling == "published":
            weight = node_weight(self._model.name, name, not self._target.classes)
            scales = [quantiles.new_full((len(quantiles),), weight)] * 2
        else:
            scales = [
                1 / _spread(quantiles, None),
                1 / _spread(relevant, importance) if relevant is not None else quantiles.new_ones(len(quantiles)),
            ]
        early = list(self._target.nodes).index(name) < settings.plain_nodes
        plain = settings.plain_weight if early else 0.0
        count = len(self._target.nodes)
        if self._target.classes:  # without relevance whole activations are the relevant ones
            plain = max(settings.plain_weight, settings.relevant_weight)
        place = list(self._target.nodes).index(name) / max(count - 1, 1)
        share = (
            1 if settings.scaling == "published" else (1 + settings.depth * place) / (count * (1 + settings.depth / 2))
        )
        return _Wanted(
            quantiles, relevant, importance, plain * scales[0] * share, settings.relevant_weight * scales[1] * share
        )

    def __call__(self, seen: Activations) -> Float[Tensor, "picture"]:
        target = self._target
        loss = next(iter(seen.values())).new_zeros(len(target))
        flows = {}
        if not self._target.classes and self._settings.relevant_weight > 0:
            flows = node_relevance(self._mode, seen, target.layer, self._nodes, self._neurons, self._kind)
        for name in self._nodes:
            activations = seen[name]
            if name not in self._wanted:
                self._wanted[name] = self._prepare(name, activations.shape[-1])
            wanted = self._wanted[name]
            if target.classes or (self._settings.plain_weight > 0 and bool((wanted.plain_weight > 0).any())):
                loss = loss + wanted.plain_weight * sort_matching(activations, wanted.quantiles)
            if name in flows and wanted.relevant is not None:
                loss = loss + wanted.relevant_weight * sort_matching(
                    activations, wanted.relevant, wanted.importance, flows[name]
                )
        if self._settings.own_weight > 0:
            loss = loss + self._settings.own_weight * self._own_loss(seen[target.layer])
        return loss

    def _own_loss(self, activations: Float[Tensor, "picture channel site"]) -> Float[Tensor, "picture"]:
        if self._target.classes:
            # A picture that says nothing has the loss 1, whatever the number of classes.
            surprise = torch.nn.functional.cross_entropy(activations[..., 0], self._neurons, reduction="none")
            return surprise / math.log(max(activations.shape[1], 2))
        own = own_maps(activations, self._neurons)
        if self._own is None:
            rows = resample(self._tensor(self._target.own), self._target.own_levels, site_levels(own.shape[-1]))
            self._own = rows, 1 / _spread(rows[:, None], None)
        rows, weight = self._own
        return weight * sort_matching(own[:, None], rows[:, None])


def _spread(rows: Float[Tensor, "picture channel site"], importance: Tensor | None) -> Float[Tensor, "picture"]:
    """Variance of a node's target over its sites, mean over its channels (weighted as the loss is)."""
    weight = rows.new_ones(rows.shape[:2]) if importance is None else importance
    if rows.shape[-1] == 1:  # a logit has no variance over sites
        return rows.square().mean((1, 2)).clamp(min=1e-12)
    variance = (weight * rows.var(-1, correction=0)).mean(-1)
    square = (weight * rows.square().mean(-1)).mean(-1)
    return torch.maximum(variance, FLOOR * square).clamp(min=1e-12)


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
    device, dtype = next(model.network.parameters()).device, next(model.network.parameters()).dtype
    noise, shifts = draw(settings, target.layer, [int(neuron) for neuron in target.neurons])
    pictures = _parametrise(noise.to(device, dtype), model, settings, colours)
    adam = torch.optim.Adam([pictures.parameters], settings.learning_rate, settings.betas)
    # A class's own activation is its logit: it has no relevance.
    mode = None if target.classes else relevance_mode(kind)
    objective = _Objective(model, target, settings, kind, mode)
    inner = not target.classes
    prior = prior_weight(model.name, inner) if settings.scaling == "published" else 0.0
    variation, norm = settings.total_variation or prior, settings.norm or prior
    layers = list(target.nodes)
    if inner or settings.own_weight > 0:
        layers.append(target.layer)
    saliency = torch.zeros_like(noise, device=device)
    alive = torch.ones(len(target), dtype=torch.bool, device=device)
    losses = []
    records = np.linspace(0, settings.steps - 1, records_of(settings.steps)).round().astype(int)
    with probe(model.network, layers, layouts, mode) as run:
        for step in range(settings.steps):
            for group in adam.param_groups:
                group["lr"] = settings.learning_rate * rate(step, settings)
            shown = pictures.pictures()
            loss = objective(run(shift(shown, shifts[:, step])))
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


def records_of(steps: int) -> int:
    """How many losses a run of so many steps keeps."""
    return min(RECORDS, steps)


def _parametrise(noise: Tensor, model: Model, settings: PictureSettings, colours: Colours) -> Parametrisation:
    if settings.parametrisation == "pixel":
        return PixelPictures(noise, model.preprocessing)
    return FourierPictures(noise, model.preprocessing, colours)
