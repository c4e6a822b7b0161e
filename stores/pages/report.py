"""A report as one HTML page: what it shows, as plain values, and the page made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stores.pages.assets import from_template


@dataclass(frozen=True)
class TableCell:
    """A mean with the ends of its interval, as they are shown; whether it is the best of its column."""

    mean: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableColumn:
    """A column's short name, what it means, and which end is better: "high", "low" or neither."""

    name: str
    meaning: str
    better: str = ""


@dataclass(frozen=True)
class Table:
    """Rows by label, each with a cell for every column, and a note below."""

    title: str
    columns: Sequence[TableColumn]
    rows: Mapping[str, Sequence[TableCell]]
    note: str = ""


@dataclass(frozen=True)
class PageImage:
    """An image file beside the page, what it shows, and its size in pixels."""

    file: str
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """What the report says of one layer of one network."""

    title: str
    lines: Sequence[str]
    tables: Sequence[Table]
    images: Sequence[PageImage]


@dataclass(frozen=True)
class Report:
    """The whole page: a verdict in sentences, sections, what failed, and what it was made from."""

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    failures: Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)


def page_html(report: Report) -> str:
    """The whole page; everything that came from data is escaped."""
    return from_template("report.html", report=report)
