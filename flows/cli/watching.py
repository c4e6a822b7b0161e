"""A store's summary in the terminal, kept up to date while runs fill it."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stores import Statistics, open_any
from stores.arrays.blocks import Blocks

EVERY = 2.0
"""Seconds between two looks."""


def watch(url: str, console: Console | None = None, every: float = EVERY) -> None:
    """Show the summary until every block that is declared is written, or the user has seen enough (Ctrl-C)."""
    with Live(console=console or Console(), auto_refresh=False) as live:
        try:
            while True:
                waiting = open_blocks(url)
                live.update(Text("\n".join(open_any(url).summary())), refresh=True)
                if not waiting:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def open_blocks(url: str) -> int:
    """Blocks of targets or pictures that are declared and not written."""
    store = open_any(url)
    if isinstance(store, Statistics):
        parts: list[Blocks] = list(store.all_targets())
    else:
        parts = [store.layer(name) for name in store.layers]
    return sum(int((~part.done()).sum()) for part in parts)
