"""Several atlases that look at the same photographs: each for itself, and together in one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from flows.pages.looking.page import check_folder, page_links, write_look
from flows.pages.looking.sights import Look
from stores import Atlas


class Looks(tuple[Look, ...]):
    """What several atlases see in the same photographs, in the order of the atlases."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(f"{look.atlas}\n{look!r}" for look in self)

    def _repr_html_(self) -> str:
        return "".join(f"<h3>{escape(look.atlas)}</h3>{look._repr_html_()}" for look in self)


@dataclass(frozen=True)
class Looking:
    """What atlases see, where their neurons have pages, and the page that shows it, where one was asked for."""

    looks: Looks
    links: Sequence[Mapping[str, str]]
    page: Path | None

    def as_json(self) -> dict[str, Any]:
        """That of one atlas; or of several, as a list."""
        told = [look.as_json(at) for look, at in zip(self.looks, self.links, strict=True)]
        return told[0] if len(told) == 1 else {"atlases": told}


def look_through(
    atlases: Sequence[Atlas], look: Callable[[Atlas], Look], out: Path | None = None, pages: str | None = None
) -> Looking:
    """A ``look`` through each of ``atlases`` (`flows.pages.looking.look.look_at`); a static page below ``out``, whose
    neurons are links into ``pages``. What cannot be written or linked is refused before the first look.

    Raises:
        UnsuitableFolder: ``out`` holds another page, or ``pages`` are none of these atlases.
    """
    links = [page_links(pages, one.url, out or Path()) if pages is not None else {} for one in atlases]
    if out is not None:
        check_folder(out)
    looks = Looks(map(look, atlases))
    return Looking(looks, links, write_look(looks, out, links) if out is not None else None)
