"""A store's summary in the terminal, kept up to date while runs fill it."""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.description import store_summary
from flows.gallery import atlas_layers
from stores.errors import SchemaMismatch
from stores.schema import array_at, group_at, open_store

EVERY = 2.0
"""Seconds between two looks."""


def watch(url: str, console: Console | None = None, every: float = EVERY) -> None:
    """Show the summary until every block that is declared is written, or the user has seen enough (Ctrl-C)."""
    with Live(console=console or Console(), auto_refresh=False) as live:
        try:
            while True:
                waiting = open_blocks(url)
                live.update(Text("\n".join(store_summary(url))), refresh=True)
                if not waiting:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def open_blocks(url: str) -> int:
    """Blocks of targets or pictures that are declared and not written."""
    try:
        group = open_store(url, "statistics", "r")
        layers = group_at(group, "targets").groups() if "targets" in group else ()
        parts = [part for _, layer in layers for _, part in layer.groups() if "done" in part]
    except SchemaMismatch:
        group = open_store(url, "atlas", "r")
        parts = [group_at(group, layer) for layer in atlas_layers(group)]
    done = [np.asarray(array_at(part, "done")[:], bool) for part in parts]
    return sum(int((~flags).sum()) for flags in done)
