"""The loss of every picture of a batch at each step, from the nodes and from the neurons themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.measuring.rows import resample, site_levels
from vital.measuring.targets import Target, node_relevance
from vital.network.layers.published import node_weight
from vital.network.models import Model
from vital.network.probe import INPUT, Activations, anchor
from vital.pictures.losses import sort_matching
from vital.propagation.mode import Relevance
from vital.settings import PictureSettings, RelevanceKind

FLOOR = 1e-3
"""Least variance of a target, as a share of its node's mean square: a constant row must not divide by nothing."""

LOGIT_WEIGHT = 0.1
"""Weight of a logit in a random crop of a class's picture: greater ones drown what the picture is matched with in the
other steps (docs/trials.md)."""

DEPTH = 5.0
"""How much more the deepest node weighs than the first: 1 + this, linear between."""

OWN_SHARE = 0.1
"""Share of the neuron's own sites, the strongest, that is matched."""


@dataclass(frozen=True)
class _TargetRows:
    """Rows to match at the sites that the pictures have, and the weight of their loss for each picture."""

    rows: Float[Tensor, "picture channel site"]
    weight: Float[Tensor, "picture"]
    importance: Float[Tensor, "picture channel"] | None = None


@dataclass(frozen=True)
class _Wanted:
    """What a node is matched with: whole activations, relevant ones, or both."""

    whole: _TargetRows | None
    relevant: _TargetRows | None


class Objective:
    """The loss of every picture from the activations of one step. Nothing of a step waits for the device."""

    def __init__(
        self, model: Model, target: Target, settings: PictureSettings, kind: RelevanceKind, mode: Relevance | None
    ) -> None:
        self._model, self._target, self._settings, self._kind, self._mode = model, target, settings, kind, mode
        weight = anchor(model.network)
        self._device = weight.device
        # Losses of a network of less than single precision are of single precision.
        self._dtype = torch.promote_types(weight.dtype, torch.float32)
        self._neurons = torch.from_numpy(target.neurons).to(self._device)
        self._reads = target.reads.of(target.neurons)
        # The published loss knows no colours.
        self._published = settings.preset == "paper"
        self._nodes = [name for name in target.nodes if name != INPUT or not self._published]
        self._own_weight = settings.weight_of_own(target.classes)
        if not self._nodes and self._own_weight == 0:
            raise UnsuitableInput(
                f"preset {settings.preset!r} has nothing to match for layer {target.layer!r}, "
                "which no layer comes before: use preset natural"
            )
        self._wanted: dict[str, _Wanted] = {}
        self._own: _TargetRows | None = None

    def __call__(self, activations: Activations, random_crop: bool = False) -> Float[Tensor, "picture"]:
        """The loss of every picture; ``activations`` are of all nodes, and of the neurons' own layer where it counts.
        In a step with a ``random_crop`` only the neurons themselves count."""
        target = self._target
        if random_crop:
            return self._own_weight * self._logit_loss(self._precise(activations[target.reads.layer]))
        loss = torch.zeros(len(target), device=self._device, dtype=self._dtype)
        relevance: Activations = {}
        if not target.classes and self._settings.relevant_weight > 0:
            relevance = node_relevance(self._mode, activations, self._reads, self._nodes, self._neurons, self._kind)
        for name in self._nodes:
            at_node = self._precise(activations[name])
            if name not in self._wanted:
                self._wanted[name] = self._prepare(name, at_node.shape[-1])
            wanted = self._wanted[name]
            if wanted.whole is not None:
                narrow = activations[name].detach()
                loss = loss + wanted.whole.weight * sort_matching(at_node, wanted.whole.rows, narrow=narrow)
            if name in relevance and wanted.relevant is not None:
                distance = sort_matching(
                    at_node, wanted.relevant.rows, wanted.relevant.importance, self._precise(relevance[name])
                )
                loss = loss + wanted.relevant.weight * distance
        if self._own_weight > 0:
            loss = loss + self._own_weight * self._own_loss(self._precise(activations[target.reads.layer]))
        return loss

    def _precise(self, activations: Tensor) -> Tensor:
        return activations.to(self._dtype)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, self._dtype)

    def _prepare(self, name: str, sites: int) -> _Wanted:
        """Read the target at the pictures' sites, once: a target has no resolution of its own."""
        node, settings = self._target.nodes[name], self._settings
        order, count = list(self._target.nodes).index(name), len(self._target.nodes)

        def rows(values: np.ndarray) -> Tensor:
            return resample(self._tensor(values), node.levels, site_levels(sites))

        def weighed(values: Tensor, weight: float, importance: Tensor | None = None) -> _TargetRows | None:
            if weight == 0:
                return None
            if self._published:
                scale = values.new_full((len(values),), node_weight(self._model.name, name, not self._target.classes))
            else:
                depth = 1 + DEPTH * order / max(count - 1, 1)
                scale = depth / (count * (1 + DEPTH / 2)) / _spread(values, importance)
            return _TargetRows(values, weight * scale, importance)

        whole = rows(node.caricature(self._target.count, settings.emphasis))
        plain = settings.plain_weight
        if self._target.classes:  # they have no relevance: whole activations are the relevant ones
            return _Wanted(weighed(whole, max(plain, settings.relevant_weight)), None)
        if node.relevant is None or node.importance is None:
            return _Wanted(weighed(whole, plain), None)
        importance = self._tensor(node.importance)
        return _Wanted(weighed(whole, plain), weighed(rows(node.relevant), settings.relevant_weight, importance))

    def _logit_loss(self, activations: Float[Tensor, "picture class 1"]) -> Float[Tensor, "picture"]:
        """Minus a share of the class's logit. Cross-entropy has no more gradient once the network is sure, long before
        others are (Zhao, Liu, Larson, "On success and simplicity: a second look at transferable targeted attacks",
        NeurIPS 2021)."""
        return -LOGIT_WEIGHT * activations[..., 0].gather(1, self._neurons[:, None])[:, 0]

    def _own_loss(self, activations: Float[Tensor, "picture channel site"]) -> Float[Tensor, "picture"]:
        if self._target.classes:
            # A picture of no class in particular has the loss 1, whatever the number of classes.
            surprise = torch.nn.functional.cross_entropy(activations[..., 0], self._neurons, reduction="none")
            return surprise / math.log(max(activations.shape[1], 2))
        own = self._reads.own(activations, self._neurons)
        sites = own.shape[-1]
        if self._own is None:
            rows = self._tensor(self._target.own)[:, None]
            rows = rows + (self._settings.own_boost - 1) * rows.abs()
            rows = resample(rows, self._target.own_levels, site_levels(sites))
            self._own = _TargetRows(rows, 1 / _spread(rows, None))
        wanted = self._own
        kept = max(1, round(OWN_SHARE * sites))
        if kept < sites:
            own = own.topk(kept).values
        return wanted.weight * sort_matching(own[:, None], wanted.rows[..., -kept:])


def _spread(rows: Float[Tensor, "picture channel site"], importance: Tensor | None) -> Float[Tensor, "picture"]:
    """Variance of a node's target over its sites, mean over its channels (weighted as the loss is)."""
    weight = rows.new_ones(rows.shape[:2]) if importance is None else importance
    if rows.shape[-1] == 1:  # a logit has no variance over sites
        return rows.square().mean((1, 2)).clamp(min=1e-12)
    variance = (weight * rows.var(-1, correction=0)).mean(-1)
    square = (weight * rows.square().mean(-1)).mean(-1)
    return torch.maximum(variance, FLOOR * square).clamp(min=1e-12)
