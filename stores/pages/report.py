"""A report as one HTML page, with its plots."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from stores.errors import StoreError


@dataclass(frozen=True)
class Cell:
    """A mean with the ends of its interval, as they are shown; ``best`` of its column."""

    mean: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A metric: short name, what it means, which end is better."""

    name: str
    meaning: str
    better: str = ""


@dataclass(frozen=True)
class Table:
    """Methods by metrics."""

    title: str
    columns: Sequence[Column]
    rows: Mapping[str, Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Image:
    """A file beside the page, what it shows, and its size in pixels."""

    file: str
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """One layer of one network."""

    title: str
    lines: Sequence[str]
    tables: Sequence[Table]
    images: Sequence[Image]


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    failures: Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)


STYLE = """
:root { --page: #fbfaf8; --ink: #1d1c1a; --quiet: #77736b; --line: #e3dfd7; --mark: #3f6f8f; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --page: #171614; --ink: #efece6; --quiet: #a29d93; --line: #35322d; --mark: #8fbbd9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: clamp(1.2rem, 4vw, 4rem); max-width: 76rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-weight: 500; letter-spacing: -.02em; line-height: 1.15; margin: 0 0 1.2rem; }
h2 { font-weight: 500; margin: 4rem 0 .6rem; letter-spacing: -.01em; }
h3 { font-weight: 500; font-size: 1rem; margin: 2.4rem 0 .5rem; }
p, li { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .4rem 1.3rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 500; white-space: nowrap; }
thead th { color: var(--quiet); }
td small { display: block; color: var(--quiet); font-size: .75rem; white-space: nowrap; }
.best { color: var(--mark); font-weight: 600; }
.quiet, dl { color: var(--quiet); font-size: .85rem; }
dt { margin-top: .5rem; color: var(--ink); }
dd { margin: 0; max-width: 46rem; overflow-wrap: anywhere; }
figure { margin: 2rem 0; }
figcaption { color: var(--quiet); font-size: .85rem; padding-top: .4rem; max-width: 46rem; }
img { max-width: 100%; height: auto; border-radius: 3px; }
"""


def page_html(report: Report) -> str:
    """The whole page; everything that came from data is escaped."""
    parts = [f"<h1>{escape(report.title)}</h1>", *(f"<p>{escape(line)}</p>" for line in report.verdict)]
    for section in report.sections:
        parts += _section(section)
    parts.append("<h2>Failures</h2>")
    failed = "".join(f"<li>{escape(line)}</li>" for line in report.failures)
    parts.append(f"<ul>{failed}</ul>" if failed else "<p>None: every picture that was begun was made.</p>")
    parts.append("<h2>Made from</h2><dl>")
    parts += [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in report.facts.items()]
    parts.append("</dl>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _section(section: Section) -> list[str]:
    parts = [f"<section><h2>{escape(section.title)}</h2>", *(f"<p>{escape(line)}</p>" for line in section.lines)]
    for table in section.tables:
        parts += _table(table)
    for image in section.images:
        parts.append(
            f'<figure><img src="{escape(image.file, quote=True)}" alt="{escape(image.text, quote=True)}" '
            f'width="{image.width}" height="{image.height}" loading="lazy">'
            f"<figcaption>{escape(image.text)}</figcaption></figure>"
        )
    return [*parts, "</section>"]


def _table(table: Table) -> list[str]:
    heads = "".join(
        f'<th scope="col" title="{escape(column.meaning, quote=True)}">{escape(column.name)}{_arrow(column)}</th>'
        for column in table.columns
    )
    parts = [
        f"<h3>{escape(table.title)}</h3>",
        f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead><tbody>',
    ]
    for label, cells in table.rows.items():
        shown = "".join(
            f"<td{' class=best' if cell.best else ''}>{escape(cell.mean)}"
            + (f"<small>{escape(cell.interval)}</small>" if cell.interval else "")
            + "</td>"
            for cell in cells
        )
        parts.append(f'<tr><th scope="row">{escape(label)}</th>{shown}</tr>')
    parts.append("</tbody></table></div>")
    meanings = "".join(f"<dt>{escape(column.name)}</dt><dd>{escape(column.meaning)}</dd>" for column in table.columns)
    if table.note:
        parts.append(f'<p class="quiet">{escape(table.note)}</p>')
    return [*parts, f"<details class=quiet><summary>What these mean</summary><dl>{meanings}</dl></details>"]


def _arrow(column: Column) -> str:
    return {"high": " ↑", "low": " ↓"}.get(column.better, "")


@dataclass(frozen=True)
class Bar:
    """A mean and the ends of its interval, NaN where it has none."""

    label: str
    mean: float
    low: float
    high: float


ACROSS = 4
"""Panels side by side."""


def bars_png(title: str, groups: Mapping[str, Sequence[Bar]], emphasised: str) -> bytes:
    """One panel a group, a horizontal bar for each of its entries with its 95 % interval; the one labelled
    ``emphasised`` stands out. An entry has the same place in every panel, empty where the group lacks it.

    Raises:
        StoreError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StoreError(f"plots need the package {error.name}: pip install 'vital-atlas[report]'") from error
    labels = list(dict.fromkeys(bar.label for bars in groups.values() for bar in bars))
    lines, across = -(-len(groups) // ACROSS), min(ACROSS, len(groups))
    figure = Figure(
        figsize=(2.3 * across + 1.4, lines * (0.2 * len(labels) + 0.7) + 0.4), layout="constrained", dpi=140
    )
    panels = figure.subplots(max(1, lines), max(1, across), squeeze=False).flatten()
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color="#1d1c1a")
    for place, (panel, (name, bars)) in enumerate(zip(panels, groups.items(), strict=False)):
        rows = [labels.index(bar.label) for bar in bars]
        means = [bar.mean for bar in bars]
        colours = ["#3f6f8f" if bar.label == emphasised else "#c9c4ba" for bar in bars]
        panel.barh(rows, means, color=colours, height=0.66)
        # a mean can be above its interval's end by rounding, and a length below zero is refused
        reach = [np.maximum(0.0, [mean - bar.low, bar.high - mean]) for mean, bar in zip(means, bars, strict=True)]
        panel.errorbar(means, rows, xerr=np.transpose(reach), fmt="none", ecolor="#1d1c1a", elinewidth=0.9, capsize=2)
        panel.set_yticks(range(len(labels)), labels if place % ACROSS == 0 else [""] * len(labels), fontsize=8)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.set_title(name, fontsize=9, loc="left", color="#1d1c1a")
        panel.tick_params(axis="x", labelsize=7, colors="#77736b", length=2)
        panel.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.spines["bottom"].set_color("#c9c4ba")
    buffer = io.BytesIO()
    # nothing of this machine and no date: the same figures give the same bytes
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
