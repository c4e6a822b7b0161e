"""Recipes: which shards go through which network, where tasks run, and what is written.

    s = flows.references("shards/*.tar", "s.zarr", model="resnet50", layers=["layer4.2"])     # a stores.Statistics
    flows.targets(s, "layer4.2", neurons="0:64")                                              # a stores.Targets
    a = flows.atlas(s, "layer4.2", "a.zarr", neurons="0:64", steps=500)                       # a stores.Atlas
    flows.evaluate(a, judges=["squeezenet"])                                                  # the same, with metrics
    flows.look(a, "cat.jpg")                                                                  # which neurons see it
    flows.names(a)                                                                            # the same, with words
    flows.report("report", seeds=3)                                                           # the path of a page

Each runs the flow of the same step and gives the store that it filled. Settings are keyword arguments by the names of
the command's options. The work is done in this process unless ``workers`` or ``scheduler`` is given.
"""

from __future__ import annotations

from flows.session.judging import evaluate, look, names, report
from flows.session.making import atlas, references, targets

__all__ = ["atlas", "evaluate", "look", "names", "references", "report", "targets"]
