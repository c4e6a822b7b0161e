"""What the optimiser moves: pixels themselves, or Fourier coefficients of decorrelated colours. And a picture's
transparency.

Fourier coefficients scaled by 1/f and decorrelated colours: Olah, Mordvintsev, Schubert, "Feature visualization"
(Distill, 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vital.measuring.image_sums import ColourDistribution
from vital.network.preprocessing import Preprocessing


@runtime_checkable
class Parametrisation(Protocol):
    """Parameters with a batch of pictures that they stand for."""

    parameters: Tensor

    def pictures(self) -> Float[Tensor, "picture colour side side"]:
        """The pictures in the network's normalised units, differentiable in the parameters."""

    def settle(self) -> None:
        """Bring the parameters back into their valid range after a step."""


class PixelPictures:
    """Pixels in normalised units, begun as N(0, 1), clamped to valid colours after every step (preset ``paper``). For a
    network whose values reach further, in units as large as those of ImageNet's (`Preprocessing.published_unit`)."""

    def __init__(self, noise: Float[Tensor, "picture colour side side"], preprocessing: Preprocessing) -> None:
        mean, std = _statistics(preprocessing, noise)
        self._preprocessing = preprocessing
        self._low, self._high = (preprocessing.to_published(((end - mean) / std)[None])[0] for end in (0, 1))
        self.parameters = noise.clone().requires_grad_()

    def pictures(self) -> Float[Tensor, "picture colour side side"]:
        """The parameters, as a tensor of its own: both gradients can be asked for."""
        return self._preprocessing.from_published(self.parameters.view_as(self.parameters))

    def settle(self) -> None:
        """Clamp the parameters to colours that a file can hold."""
        with torch.no_grad():
            self.parameters.clamp_(self._low, self._high)


class FourierPictures:
    """Fourier coefficients with amplitudes of natural images (1/f), decorrelated colours, a sigmoid to valid
    colours."""

    def __init__(
        self,
        noise: Float[Tensor, "picture colour side side"],
        preprocessing: Preprocessing,
        colours: ColourDistribution,
        palette: Palette,
    ) -> None:
        side = noise.shape[-1]
        self._mean, self._std = _statistics(preprocessing, noise)
        self._side = side
        vertical, horizontal = (
            torch.fft.fftfreq(side, device=noise.device),
            torch.fft.rfftfreq(side, device=noise.device),
        )
        frequency = torch.sqrt(vertical[:, None] ** 2 + horizontal[None] ** 2).clamp(min=1 / side)
        amplitude = 1 / frequency**palette.decay
        # With unit coefficients the pixels have nearly unit variance: 0.9, or 0.75 at the natural decay. The mean is
        # over the half of the spectrum that is kept, where the slow waves of the first column weigh twice.
        self._amplitude = (amplitude / amplitude.square().mean().sqrt()).to(noise.dtype)
        self._basis = palette.contrast * torch.from_numpy(colours.basis()).to(noise)
        self._offset = torch.from_numpy(colours.mean).to(noise).view(-1, 1, 1)
        start = torch.fft.rfft2(noise, norm="ortho") * palette.start
        self.parameters = torch.view_as_real(start).contiguous().requires_grad_()

    def pictures(self) -> Float[Tensor, "picture colour side side"]:
        """Spectrum to colours to normalised units."""
        spectrum = torch.view_as_complex(self.parameters) * self._amplitude
        plain = torch.fft.irfft2(spectrum, s=(self._side, self._side), norm="ortho")
        return _coloured(plain, self._basis, self._offset, self._mean, self._std)

    def settle(self) -> None:
        """Nothing to do: every coefficient is valid."""


class PhasePictures:
    """The phases of every frequency of decorrelated colours; the amplitudes are those of the data set's mean spectrum
    and stay (MACO, section 3), so that the contrast of every wave is the data's own."""

    def __init__(
        self,
        noise: Float[Tensor, "picture colour side side"],
        preprocessing: Preprocessing,
        colours: ColourDistribution,
        spectrum: Float[np.ndarray, "colour row column"],
    ) -> None:
        self._side = noise.shape[-1]
        self._mean, self._std = _statistics(preprocessing, noise)
        amplitude = torch.from_numpy(resized(spectrum, self._side).mean(0)).to(noise)
        amplitude[0, 0] = 0  # the mean colour is the data's
        waves = torch.complex(amplitude, torch.zeros_like(amplitude))
        power = torch.fft.irfft2(waves, s=(self._side, self._side), norm="ortho").square().mean()
        self._amplitude = amplitude / power.sqrt()
        self._basis = torch.from_numpy(colours.basis()).to(noise)
        self._offset = torch.from_numpy(colours.mean).to(noise).view(-1, 1, 1)
        self.parameters = torch.fft.rfft2(noise, norm="ortho").angle().contiguous().requires_grad_()

    def pictures(self) -> Float[Tensor, "picture colour side side"]:
        """Phases to colours to normalised units."""
        spectrum = torch.polar(self._amplitude.expand_as(self.parameters), self.parameters)
        plain = torch.fft.irfft2(spectrum, s=(self._side, self._side), norm="ortho")
        return _coloured(plain, self._basis, self._offset, self._mean, self._std)

    def settle(self) -> None:
        """Nothing to do: every phase is valid."""


def resized(spectrum: Float[np.ndarray, "colour row column"], side: int) -> Float[np.ndarray, "colour _row _column"]:
    """The orthonormal half spectrum of the same images at another side, in pixels. Waves that the given one is too
    small for continue its edge, falling as 1/f."""
    known = spectrum.shape[-2]
    rows, columns = np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1)
    low, high = -(known // 2), (known - 1) // 2
    kept = np.clip(rows, low, high).astype(int)[:, None], np.minimum(columns, spectrum.shape[-1] - 1)[None]
    asked, known_frequency = np.hypot(rows[:, None], columns[None]), np.hypot(*kept)
    falling = np.where(asked > 0, known_frequency / np.maximum(asked, 1e-12), 1)
    scaled: np.ndarray = spectrum[:, kept[0], kept[1]] * falling * (side / known)
    return scaled


@dataclass(frozen=True)
class Palette:
    """How Fourier coefficients become colours."""

    decay: float = 1.5
    """Amplitudes fall as 1/f to this power: steeper than natural images, since Adam moves every coefficient as far. At
    1.3 neighbouring pixels differ twice as much, at 1.6 other networks see less (docs/trials.md)."""
    contrast: float = 1.0
    """Contrast of unit coefficients, in units of the data's own. With half of it pictures hardly leave their noise
    in a few hundred steps, and other networks classify fewer of them right (docs/trials.md)."""
    start: float = 0.1
    """Contrast of the noise that pictures begin as, in units of the data's own."""


PLAIN_PALETTE = Palette(decay=1.0)
"""As published for feature visualization (Olah et al., 2017)."""


def _coloured(plain: Tensor, basis: Tensor, offset: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Independent colours as the data's, in the network's units."""
    logits = torch.einsum("rc,pcyx->pryx", basis, plain) + offset
    return (torch.sigmoid(logits) - mean) / std


def _statistics(preprocessing: Preprocessing, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(part, dtype=torch.float32, device="cpu").to(like).view(-1, 1, 1)
        for part in (preprocessing.mean, preprocessing.std)
    )
    return mean, std


def to_bytes(pictures: Float[Tensor, "picture colour side side"], preprocessing: Preprocessing) -> np.ndarray:
    """Normalised pictures as (picture, row, column, colour) bytes."""
    mean, std = _statistics(preprocessing, pictures)
    colours = ((pictures * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(colours.permute(0, 2, 3, 1).numpy(force=True))


def transparency(gradient: Float[Tensor, "picture colour side side"]) -> np.ndarray:
    """Accumulated |gradient|, mean over colours, clipped at its 98th percentile, as bytes (picture, row, column)."""
    saliency = gradient.mean(1).double().numpy(force=True)
    top = np.quantile(saliency, 0.98, axis=(1, 2), keepdims=True)
    scaled: np.ndarray = np.clip(saliency / np.where(top > 0, top, 1), 0, 1)
    return (scaled * 255).round().astype(np.uint8)
