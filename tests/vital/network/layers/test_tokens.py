"""Leading tokens are found from the network: counted where it puts them, however many there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.maps import relevance, responses
from vital.network.layers import survey
from vital.network.models import Model, wrap

SIDE, PATCH, WIDTH = 64, 16, 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        given = self.norm1(tokens)
        tokens = tokens + self.attn(given, given, given, need_weights=False)[0]
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class Transformer(nn.Module):
    """A vision transformer with some leading tokens, before all blocks or before the last one only (as CaiT)."""

    def __init__(self, leading: int, late: bool = False, trailing: int = 0) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.lead = nn.Parameter(torch.randn(1, leading, WIDTH) * 3)
        self.pos = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2, WIDTH) * 0.1)
        self.blocks, self.head = nn.ModuleList([Block() for _ in range(3)]), nn.Linear(WIDTH, 5)
        self.late = late
        self.trail = nn.Parameter(torch.randn(1, trailing, WIDTH) * 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2) + self.pos
        for number, block in enumerate(self.blocks):
            if number == 2 * self.late:
                lead, trail = (part.expand(len(images), -1, -1) for part in (self.lead, self.trail))
                tokens = torch.cat([lead, tokens, trail], 1)
            tokens = block(tokens)
        result: Tensor = self.head(tokens.mean(1))
        return result


def transformer(leading: int, late: bool = False) -> Model:
    return wrap(Transformer(leading, late), side=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)


# 9 tokens beyond 16 patches make 25, a square; 4 beyond make 20, one more than none.
@pytest.mark.parametrize("leading", [0, 1, 2, 4, 5, 9])
def test_every_layer_of_tokens_has_as_many_as_the_network_puts_before_the_patches(leading: int) -> None:
    layers = survey(transformer(leading)).layers
    for name in ("blocks.0", "blocks.0.norm1", "blocks.1.mlp.1", "blocks.2"):
        assert (layers[name].sites, layers[name].leading_tokens) == (16 + leading, leading)
    assert layers["patch"].leading_tokens == layers["head"].leading_tokens == 0


@pytest.mark.parametrize("leading", [1, 3])
def test_tokens_that_come_late_are_of_the_layers_after_them(leading: int) -> None:
    layers = survey(transformer(leading, late=True)).layers
    assert [layers[f"blocks.{number}"].leading_tokens for number in range(3)] == [0, 0, leading]


@pytest.mark.parametrize(("leading", "trailing"), [(1, 10), (0, 3)])
def test_tokens_after_the_patches_are_no_sites_either(leading: int, trailing: int) -> None:
    """As YOLOS has them, for objects to detect: made the greatest there are, still no image's peak is at one."""
    model = wrap(Transformer(leading, False, trailing), side=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    model.network.trail.data.fill_(50.0)  # type: ignore[operator]
    layers = survey(model)
    layer = layers.layer("blocks.0")
    assert (layer.leading_tokens, layer.own_sites, layer.trailing_tokens) == (leading, 16, trailing)
    assert model.layers()["blocks.0"].sites_shown == f"{leading}+16+{trailing}"
    pixels = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    rows = torch.arange(4).numpy()
    ranking = gather(
        model, layers, Plan(("blocks.0",), (), 4, 16), Batch(pixels, rows, rows * 0 - 1, ["a"] * 4)
    ).rankings
    assert set(ranking["blocks.0"].sites.ravel().tolist()) <= set(range(16))
    seen = responses(model, layers, {"blocks.0": [0, 1]}, pixels)["blocks.0"]
    assert seen.maps.shape == (4, 2, 16)
    assert relevance(model, "blocks.1:0", list(pixels.permute(0, 2, 3, 1).numpy()), node="blocks.0").shape == (4, 4, 4)


def test_leading_tokens_never_win_and_boxes_are_those_of_patches() -> None:
    """Their activations are made the greatest there are: still each image's peak is at one of its patches."""
    model = transformer(5)
    model.network.lead.data.fill_(50.0)  # type: ignore[operator]
    layers = survey(model)
    pixels = torch.randint(0, 256, (6, 3, SIDE, SIDE), dtype=torch.uint8)
    rows = torch.arange(6).numpy()
    gathered = gather(model, layers, Plan(("blocks.0",), (), 6, 16), Batch(pixels, rows, rows * 0 - 1, ["a"] * 6))
    network = model.network
    with torch.inference_mode():
        tokens = network.patch(model.preprocessing.normalise(pixels)).flatten(2).transpose(1, 2) + network.pos  # type: ignore[operator]
        after = network.blocks[0](torch.cat([network.lead.expand(6, -1, -1), tokens], 1))  # type: ignore[index, operator]
    peaks, sites = after[:, 5:].max(1)
    ranking = gathered.rankings["blocks.0"]
    for channel in range(WIDTH):
        best = ranking.images[channel]
        torch.testing.assert_close(torch.from_numpy(ranking.scores[channel]).float(), peaks[best, channel])
        assert ranking.sites[channel].tolist() == sites[best, channel].tolist()
