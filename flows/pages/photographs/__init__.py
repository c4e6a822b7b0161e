"""Photographs on the pages: as files, which of them a neuron shows, and where it is active on them."""
