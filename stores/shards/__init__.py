"""Shards: tars of images, read, decoded and written."""
