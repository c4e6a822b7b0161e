"""Relevance: one forward pass with two backward passes, and the rule of every operation."""
