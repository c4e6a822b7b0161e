"""Dictionaries as other programs write them."""
