"""Names near to a misspelt one, for error messages."""

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(name: str, known: Sequence[str], count: int = 5) -> str:
    """The names most like ``name``, as a list in words; the first few when nothing is alike.

    >>> nearest("layr4", ["layer4", "conv1"])
    'layer4'
    """
    return ", ".join(get_close_matches(name, known, count, cutoff=0.4) or known[:count])
