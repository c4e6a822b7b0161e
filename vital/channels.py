"""Numbers of an input's channels, as settings take them: of each, or one for all; and which channels are shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

MOST_CHANNELS = 1024


def _split(given: object) -> object:
    """One number as a list of it, and numbers as a command line has them, such as ``0.5,0.4,0.4``, apart."""
    given = [given] if isinstance(given, (int, float, str)) else given
    if isinstance(given, (list, tuple)) and any(isinstance(part, str) for part in given):
        return [one for part in given for one in str(part).split(",")]
    return given


Numbers = Annotated[tuple[float, ...], BeforeValidator(_split), Field(min_length=1)]
"""A number of each channel, or one for all."""
SHOWN = "channels that people and judges see as red, green, blue, or one as grey, from 0  [default: the first three]"


def _one_or_three(shown: tuple[int, ...]) -> tuple[int, ...]:
    if len(shown) not in (1, 3) or min(shown) < 0:
        raise ValueError(f"three channels, or one, were expected, counted from 0, but {shown} were given")
    return shown


Shown = Annotated[tuple[int, ...], BeforeValidator(_split), AfterValidator(_one_or_three)]
"""Channels that are shown."""
