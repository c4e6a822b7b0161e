"""What layers a network has: found by running it once."""

from vital.network.layers.layer import Layer, Survey
from vital.network.layers.tracing import Surveyed, survey

__all__ = ["Layer", "Survey", "Surveyed", "survey"]
