"""One picture of one neuron from a handful of photographs: no store, no flow; shown inline in a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray
from jaxtyping import Float, UInt8
from PIL import Image

from vital.errors import UnsuitableInput
from vital.measuring.image_sums import ImageSums
from vital.measuring.photos import Photographs, Photos, read_photos
from vital.measuring.targets import MOST_REFERENCES, Attribution, Crop, Target, measure, seen_by, usual_references
from vital.network.arithmetic import resolved
from vital.network.layers import Layer, Survey, survey
from vital.network.models import Model, at_side
from vital.network.neurons import check_neurons, parse_neuron
from vital.network.nodes import matched_nodes
from vital.network.probe import INPUT, anchor
from vital.pictures.optimise import Pictures, optimise, recorded_steps
from vital.settings import PictureSettings, RelevanceKind, VariantSettings, checked

LOSSLESS = (".png", ".webp")
LOSSY = (".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Picture:
    """A finished picture of one neuron. It shows itself in a notebook."""

    pixels: UInt8[xarray.DataArray, "row column colour"]
    """Axes (row, column, colour)."""
    alpha: UInt8[xarray.DataArray, "row column"]
    """How much each pixel mattered to the loss over all steps: 0 is transparent."""
    loss: Float[xarray.DataArray, "step"]
    """The loss at some of the steps, evenly spaced."""
    neuron: str
    """``LAYER:NUMBER``."""
    settings: PictureSettings
    variant: VariantSettings
    """How the target was measured from the photographs."""
    references: tuple[str, ...]
    """The photographs that it was measured from, the best first."""
    shown: tuple[int, ...] = (0, 1, 2)
    """The channels that are seen as red, green and blue, or one as grey."""

    @property
    def finite(self) -> bool:
        """Whether the loss stayed finite; a picture stops moving at the step where it did not."""
        return bool(np.isfinite(self.loss).all())

    def png(self, masked: bool = False) -> bytes:
        """The picture as a PNG file; ``masked`` makes what mattered little transparent."""
        buffer = io.BytesIO()
        self._image(masked).save(buffer, "png")
        return buffer.getvalue()

    def save(self, path: str | Path, masked: bool = False) -> Path:
        """Write the picture as the file's ending says, and return where; ``masked`` makes what mattered little
        transparent.

        Raises:
            UnsuitableInput: the ending is of no kind that is written, a JPEG was to be transparent, or there is no such
                folder.
        """
        file = Path(path)
        ending = file.suffix.lower()
        if ending not in (*LOSSLESS, *LOSSY):
            raise UnsuitableInput(f"{str(file)!r} ends in no kind of picture: name it {', '.join((*LOSSLESS, *LOSSY))}")
        if masked and ending in LOSSY:
            raise UnsuitableInput(f"{str(file)!r} cannot be transparent: name it .png or .webp, or leave masked out")
        if not file.parent.is_dir():
            raise UnsuitableInput(f"there is no folder {str(file.parent)!r} to save {file.name} in: make it first")
        how = {"quality": 92} if ending in LOSSY else {"lossless": True}
        self._image(masked).save(file, **how)
        return file

    def _image(self, masked: bool) -> Image.Image:
        pixels = self.pixels.values
        if pixels.shape[2] != 3:
            pixels = np.ascontiguousarray(pixels[..., list(self.shown * (3 // len(self.shown)))])
        return Image.fromarray(np.dstack([pixels, self.alpha.values]) if masked else pixels)

    def __repr__(self) -> str:
        rows, columns, _ = self.pixels.shape
        end = f"loss {float(self.loss[-1]):.4g}" if self.finite else "its loss did not stay finite"
        return f"<picture of {self.neuron}: {rows} × {columns} pixels, {self.settings.steps} steps, {end}>"

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        source, text = base64.b64encode(self.png()).decode("ascii"), escape(repr(self).strip("<>"))
        return (
            f'<figure style="margin:0"><img src="data:image/png;base64,{source}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )


def render(
    model: Model,
    neuron: str,
    photos: Photos,
    *,
    crop: Literal["image", "patch"] = "image",
    relevance: RelevanceKind = "lrp",
    references: int | None = None,
    nodes: Sequence[str] = (),
    progress: Callable[[int], None] = lambda step: None,
    **settings: Any,
) -> Picture:
    """A picture of one neuron whose target is measured on photographs.

    ``neuron`` is written ``LAYER:NUMBER``, ``classes:NUMBER`` or ``classes:NAME``; ``photos`` are a folder, or a list
    of files, Pillow images or uint8 arrays (row, column, 3). For a class give photographs of that class: the first
    ``references`` of them are matched, whole, 50 by default. For a neuron inside the network the ``references`` that
    activate it most are, by default a part of the photographs (`usual_references`); of each the whole (``crop``
    "image"), or the patch around the site that does (``"patch"``). ``relevance`` is how relevance to the neuron is
    computed, ``nodes`` the layers that are matched, chosen by default.

    Of whole photographs a channel's picture follows the `trend` that all of them show: give weak ones, too. Where all
    are ``references`` nothing tells what does not excite the neuron, and the picture shows what they share. They are
    run through the network once; the references are again where relevance is matched (``relevant_weight``) or memory
    does not hold the rows. Of these 512 MiB are kept, or of eight photographs if that is more: where not all fit, the
    trend is learnt from some, by lot.

    ``settings`` are those of `vital.settings.PictureSettings`: preset ``natural`` unless given, of the side of the
    model's input. Colours, and the spectrum that pictures of phases have, are those of the photographs. ``progress`` is
    told the number of steps done.

    Raises:
        UnknownNeuron: the neuron is written otherwise, or there is none of this name or number.
        UnknownLayer: there is no such layer or node, or a node does not come before the layer.
        UnsuitableInput: a setting is unknown or out of bounds, a photograph cannot be read, none activates the neuron,
            or the network cannot take pictures of this side.
    """
    beside = [name for name in signature(render).parameters if name != "settings"]
    wanted = checked(PictureSettings, {"side": model.preprocessing.side, **settings}, beside)
    precision = resolved(wanted.precision, anchor(model.network).device)
    wanted = wanted.model_copy(update={"precision": precision})  # what it was, for who sees the picture later
    variant = checked(
        VariantSettings, {"crop": crop, "relevance": relevance, "references": references, "nodes": tuple(nodes)}
    )
    layers, asked = survey(model, "give the side that it takes", ()), parse_neuron(neuron, model.class_names)
    layer = layers.layer(asked.layer)
    check_neurons(layer.name, layer.channels, [asked.number])
    shown = read_photos(photos, model.preprocessing)
    if variant.references is None:
        most = MOST_REFERENCES if layer.classes else usual_references(len(shown))
        variant = variant.model_copy(update={"references": most})
    target, chosen = _target(model, layers, (layer, asked.number), shown, variant, wanted)
    if target is None or not (layer.classes or target.own.any()):
        raise UnsuitableInput(f"none of the {len(shown)} photographs activates {asked}: give others, or another neuron")
    sums = ImageSums.of(shown.pixels)
    larger = at_side(model, wanted.side)
    if larger is not model:
        needed = {target.reads.layer, *target.nodes} - {INPUT}
        survey(larger, f"leave side at {model.preprocessing.side}, or give one that it takes", needed)
    spectrum = sums.mean_spectrum() if wanted.parametrisation == "phase" else None
    made = optimise(
        larger, target, wanted, layers.layouts(), variant.relevance,
        colours=sums.colours(), spectrum=spectrum, progress=progress,
    )  # fmt: skip
    names = tuple(shown.names[index] for index in chosen)
    return _picture(made, str(asked), wanted, variant, names, model)


def _target(
    model: Model,
    layers: Survey,
    neuron: tuple[Layer, int],
    shown: Photographs,
    variant: VariantSettings,
    settings: PictureSettings,
) -> tuple[Target | None, list[int]]:
    """The target of a neuron, None where no photograph activates it, and the photographs that are matched, the best
    first."""
    layer, number = neuron
    nodes = matched_nodes(layers, layer.name, variant.nodes, model.name)
    attribution = Attribution.of(layers, layer.name, variant.relevance)
    most = min(variant.references or len(shown), len(shown))
    if layer.classes:
        crops = [Crop(pixels, (0,)) for pixels in shown.pixels[:most]]
        return measure(model, attribution, [number], crops, nodes), list(range(most))
    learns = variant.crop == "image" and settings.method == "vital" and settings.emphasis > 0
    seen = seen_by(model, layers, neuron, shown, nodes if learns else ())
    best = seen.best(most)
    if not len(best):
        return None, []
    if learns and settings.relevant_weight == 0 and seen.holds(best):
        target = seen.target(best)
    else:
        boxes = model.preprocessing.boxes(1 if variant.crop == "image" else layers.layer(layer.reads.layer).own_sites)
        at = np.zeros(len(shown), int) if variant.crop == "image" else seen.site
        cut = [model.preprocessing.cut(shown.pixels[one], boxes[at[one]]) for one in best.tolist()]
        target = measure(model, attribution, [number], [Crop(pixels, (0,)) for pixels in cut], nodes)
    return (seen.with_trend(target, best) if learns else target), best.tolist()


def _picture(
    made: Pictures,
    neuron: str,
    settings: PictureSettings,
    variant: VariantSettings,
    references: tuple[str, ...],
    model: Model,
) -> Picture:
    attributes = {"neuron": neuron, "model": model.name, "weights": str(model.identity.get("weights", ""))}
    count = made.pixels.shape[-1]
    colours = ["red", "green", "blue"] if count == 3 else list(range(count))
    pixels = xarray.DataArray(
        made.pixels[0], dims=("row", "column", "colour"), coords={"colour": colours}, attrs=attributes
    )
    alpha = xarray.DataArray(made.alpha[0], dims=("row", "column"), attrs=attributes)
    steps = recorded_steps(settings.steps)
    loss = xarray.DataArray(made.loss[0], dims=("step",), coords={"step": steps}, attrs=attributes)
    return Picture(
        pixels.rename("pixels"), alpha.rename("alpha"), loss.rename("loss"), neuron, settings, variant, references,
        model.preprocessing.shown_channels,
    )  # fmt: skip
