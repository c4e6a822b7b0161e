"""Nodes, the layers whose activations are matched: those chosen by default, and the table that shows them beside a
network's layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from rich.cells import cell_len, set_cell_size

from vital.errors import UnknownLayer, in_line, nearest
from vital.network.layers import Layer, Survey
from vital.network.layers.published import published_nodes
from vital.network.probe import INPUT


def default_nodes(survey: Survey, name: str, model_name: str = "", count: int = 5) -> tuple[str, ...]:
    """The layers matched for neurons of layer ``name``: the published ones where there are, else the last layer of
    each map size.

    For a neuron inside the network only layers before its own are taken; the first layer has none.
    """
    layer = survey.layer(name)
    earlier = [other for other in survey.before(layer) if other.sites > 1]
    names = {other.name for other in earlier}
    published = [node for node in published_nodes(model_name) if node in names]
    if published:
        return tuple(published)
    blocks = [other for other in earlier if other.block] or earlier
    chosen = _last_of_each_size(blocks)
    if len(_last_of_each_size([other for other in survey.layers.values() if other.block and other.sites > 1])) < 4:
        # tokens: one size throughout
        chosen = _spread([other.name for other in blocks], count)
    return tuple(chosen[-count:])


def _last_of_each_size(blocks: Sequence[Layer]) -> list[str]:
    """Names in the order of ending. Maps that differ by the border of an unpadded convolution are of one size."""
    last: list[Layer] = []
    for block in blocks:
        last = [other for other in last if not 2 / 3 < other.sites / block.sites < 3 / 2] + [block]
    return [block.name for block in last]


def _spread(names: Sequence[str], count: int) -> list[str]:
    if len(names) <= count:
        return list(names)
    return [names[round(index * (len(names) - 1) / (count - 1))] for index in range(count)]


def check_nodes(survey: Survey, name: str, nodes: Sequence[str]) -> None:
    """Raise `UnknownLayer` for a node that is not there or does not come before the neuron's layer."""
    layer = survey.layer(name)
    earlier = {other.name for other in survey.before(layer)}
    for node in nodes:
        survey.layer(node)
        if node not in earlier:
            raise UnknownLayer(
                f"node {node!r} does not come before layer {name!r}, so the neuron cannot depend on it: "
                f"choose from {', '.join(default_nodes(survey, name))} or other earlier layers"
            )


def asked_nodes(survey: Survey, layers: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """Those of ``nodes`` that a pass over the data set measures for neurons of several ``layers``: all but the colours
    of the picture, of which it knows more.

    Raises `UnknownLayer` for a node that is not there or comes before none of the layers.
    """
    earlier = {other.name for layer in layers for other in survey.before(survey.layer(layer))}
    for node in nodes:
        if node != INPUT and survey.layer(node).name not in earlier:
            raise UnknownLayer(
                f"node {node!r} does not come before {' or '.join(map(repr, layers))}, so no neuron there can depend "
                "on it: leave it out, or name an earlier layer"
            )
    return [node for node in nodes if node != INPUT]


def matched_nodes(survey: Survey, name: str, nodes: Sequence[str] = (), model_name: str = "") -> tuple[str, ...]:
    """What is matched for neurons of layer ``name``: the colours of the picture, then ``nodes``, or the default ones
    where none are given, each once and in the order in which they run, since weights depend on the position.

    Raises `UnknownLayer` for a node that is not there or does not come before the layer.
    """
    nodes = [node for node in nodes or default_nodes(survey, name, model_name) if node != INPUT]
    check_nodes(survey, name, nodes)
    return (INPUT, *sorted(set(nodes), key=lambda node: survey.layer(node).ended))


@dataclass(frozen=True)
class LayerRow:
    """A line of a `LayerTable`: how many channels (neurons) and sites a layer has, and the nodes that are matched for
    its neurons by default."""

    layer: str
    channels: int
    sites: int
    nodes: tuple[str, ...]
    leading_tokens: int = 0
    """How many of the sites, the first, are none of the image's: tokens for the class, registers, distillation."""
    trailing_tokens: int = 0
    """How many of the last are none of the image's."""

    @property
    def sites_shown(self) -> str:
        """The sites as they are shown: leading tokens first, then the image's, then trailing ones.

        >>> LayerRow("blocks.11", 384, 1374, (), 5).sites_shown
        '5+1369'
        """
        own = self.sites - self.leading_tokens - self.trailing_tokens
        if self.trailing_tokens:
            return f"{self.leading_tokens}+{own}+{self.trailing_tokens}"
        return f"{self.leading_tokens}+{own}" if self.leading_tokens else str(own)


@dataclass(frozen=True, repr=False)
class LayerTable:
    """Layers in the order in which they end; it prints as a table, and shows itself as one in a notebook."""

    rows: tuple[LayerRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerRow]:
        return iter(self.rows)

    def __getitem__(self, layer: str) -> LayerRow:
        """The line of a layer; raises `UnknownLayer` with the nearest names."""
        for row in self.rows:
            if row.layer == layer:
                return row
        known = nearest(layer, [row.layer for row in self.rows])
        raise UnknownLayer(f"the table has no layer {layer!r}; the nearest are {known}; every=True lists all")

    def __repr__(self) -> str:
        width = max([len("layer"), *(cell_len(in_line(row.layer)) for row in self.rows)])
        wide = max([len("sites"), *(len(row.sites_shown) for row in self.rows)])
        lines = (
            f"{set_cell_size(in_line(row.layer), width)}  {row.channels:>8}  {row.sites_shown:>{wide}}  "
            f"{', '.join(map(in_line, row.nodes))}"
            for row in self
        )
        head = f"{'layer':<{width}}  channels  {'sites':>{wide}}  nodes matched by default"
        return "\n".join((head, *lines))

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in ("layer", "channels", "sites", "nodes matched by default"))
        rows = "".join(
            f"<tr><td>{escape(row.layer)}</td><td>{row.channels}</td><td>{row.sites_shown}</td>"
            f"<td>{escape(', '.join(row.nodes))}</td></tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def layer_table(survey: Survey, model_name: str = "", every: bool = False) -> LayerTable:
    """Blocks and classes, or ``every`` layer; the colours of the picture are matched beside all default nodes."""
    shown = [layer for layer in survey.layers.values() if every or layer.block or layer.classes]
    return LayerTable(
        tuple(
            LayerRow(
                layer.name,
                layer.channels,
                layer.sites,
                (INPUT, *default_nodes(survey, layer.name, model_name)),
                layer.leading_tokens,
                layer.trailing_tokens,
            )
            for layer in shown
        )
    )
