"""Neurons: how they are written, how they read a layer, and where their relevance begins."""

from vital.network.neurons.dictionaries import Dictionary
from vital.network.neurons.naming import Neuron, check_neurons, folded, parse_neuron, spellings
from vital.network.neurons.readout import EPSILON, GUARD, Readout, importance, relevance_map

__all__ = [
    "EPSILON",
    "GUARD",
    "Dictionary",
    "Neuron",
    "Readout",
    "check_neurons",
    "folded",
    "importance",
    "parse_neuron",
    "relevance_map",
    "spellings",
]
