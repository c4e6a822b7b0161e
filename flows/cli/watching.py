"""Stores' summaries in the terminal, kept up to date while runs fill them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.cli.looking import summaries
from stores import Statistics, open_any
from stores.arrays.blocks import Blocks

EVERY = 2.0
"""Seconds between two looks."""


def watch(urls: Sequence[str], console: Console | None = None, every: float = EVERY) -> None:
    """Show the summaries until every block that is declared is written, or the user has seen enough (Ctrl-C)."""
    with Live(console=console or Console(), auto_refresh=False) as live:
        try:
            while True:
                waiting = sum(map(open_blocks, urls))
                live.update(Text("\n".join(summaries(urls))), refresh=True)
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
