"""The ``vital`` command."""

from __future__ import annotations

KEPT = "what is finished stays; run the same command again, which makes what is missing"
"""What a run says that is ended before it is done."""
INTERRUPTED = f"interrupted: {KEPT}"
