"""Where networks come from, with the preprocessing that their weights were trained with: torchvision, other packages'
collections, packages that carry weights, and a factory of the user's own."""

from __future__ import annotations

from vital.network.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vital.network.sources import collected, factories, packages, torchvision_networks
from vital.network.sources.loaded import RANDOM, Colour, Loaded
from vital.network.sources.torchvision_networks import jpeg_decoder, torchvision_models
from vital.settings import ModelSettings

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RANDOM",
    "Colour",
    "Loaded",
    "jpeg_decoder",
    "load_network",
    "torchvision_models",
]


def load_network(settings: ModelSettings) -> Loaded:
    """The network that ``settings`` name; raises `UnknownModel` with the way out."""
    if settings.name in packages.PACKAGED:
        return packages.from_package(settings)
    if settings.name == packages.SQUEEZENET:
        return packages.squeezenet(settings)
    collection = collected.of(settings.name)
    if collection:
        return collection(settings)
    return factories.from_factory(settings) if ":" in settings.name else torchvision_networks.load(settings)
