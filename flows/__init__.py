"""Recipes: which shards go through which model, where tasks run, and what is written."""
