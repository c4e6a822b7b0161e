"""Photographs whose object is known to the pixel: embedded ones on plain grounds, cut out and laid on others."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

OBJECTS = (
    "cat_hammer7", "cat_hammer9", "cat_hammer5", "cat_volleyball", "cat_measuringtape2", "cat_measuringtape3",
    "cat_measuringtape1", "cat_fish25", "cat_weighingmachine", "cat_screwdriver3", "cat_spray", "cat_scissors1",
    "cat_plier1", "cat_plier4", "cat_plier2", "cat_plier3", "cat_wrench", "cat_cuttingtool", "cat_multimeter1",
    "cat_tweezer1", "farm_duck", "cat_bucket", "cat_fish28", "cat_cup",
)  # fmt: skip
"""Looked at: their masks are right but for holes in handles, which count as object."""
GROUNDS = (
    "mon_wonders_greatwallofchina", "mon_usa_navajo", "mon_usa_canyondechelly", "mon_india_hawamahal",
    "mon_india_ajantacave", "cat_dam4", "cat_geothermal", "mon_wonders_machupicchu", "mon_wonders_colosseum",
    "mon_france_pontdugard", "mon_usa_fortsumter", "mon_wonders_petra",
)  # fmt: skip
SHARES = (0.45, 0.7)
"""The object's longer side, as shares of the composite's side."""
TOLERANCE = 0.1
"""How far a plain ground's colours are from the median of the border, of 1."""
LARGEST = 256
"""Side of the photograph that an object is cut from, in pixels."""


@dataclass(frozen=True, eq=False)
class Composites:
    """Composites and the same photographs without their objects, and the object's share of every pixel."""

    names: tuple[str, ...]
    pixels: UInt8[Tensor, "image 3 side side"]
    grounds: UInt8[Tensor, "image 3 side side"]
    masks: Float[Tensor, "image side side"]

    def __len__(self) -> int:
        return len(self.names)

    def shares(self, sites: int) -> Float[Tensor, "image site"]:
        """The object's share of every site of a square map with so many."""
        grid = round(sites**0.5)
        return F.adaptive_avg_pool2d(self.masks[:, None], grid).flatten(1)


def composites(side: int, count: int, seed: int = 0) -> Composites:
    """The first ``count`` composites, at most 48: every object once, then each again at the other size, in another
    place of another photograph."""
    wanted = {f"gcompris_{name}" for name in (*OBJECTS, *GROUNDS)}
    photos = {key.removeprefix("gcompris_"): photo for key, photo in photographs(wanted)}
    stream = np.random.default_rng(seed)
    plan = [(name, SHARES[(turn + row) % 2]) for turn in range(2) for row, name in enumerate(OBJECTS)][:count]
    made = []
    for number, (name, share) in enumerate(plan):
        ground = squared(photos[GROUNDS[(number + number // len(OBJECTS)) % len(GROUNDS)]], side)
        made.append((ground, *laid(ground, *cut(photos[name]), share, stream)))
    grounds, pixels, masks = (torch.stack(part) for part in zip(*made, strict=True))
    return Composites(tuple(f"{name} {share}" for name, share in plan), pixels, grounds, masks)


def photographs(keys: Collection[str] = ()) -> Iterator[tuple[str, Image.Image]]:
    """The embedded photographs by their keys, all of them or these."""
    for shard in sorted(resources.files("flows.demo").iterdir(), key=str):
        if not shard.name.endswith(".tar"):
            continue
        with shard.open("rb") as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                key, _, ending = member.name.rpartition(".")
                content = tar.extractfile(member)
                if ending in ("cls", "json") or (keys and key not in keys) or content is None:
                    continue
                yield key, Image.open(io.BytesIO(content.read())).convert("RGB")


def squared(photo: Image.Image, side: int) -> UInt8[Tensor, "3 side side"]:
    """The middle of a photograph."""
    least = min(photo.size)
    left, top = (photo.width - least) // 2, (photo.height - least) // 2
    box = (left, top, left + least, top + least)
    resized = photo.resize((side, side), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def cut(photo: Image.Image) -> tuple[Float[Tensor, "3 row column"], Float[Tensor, "row column"]]:
    """Colours in 0..1 and mask of an object in its bounding box: what no path of the border's colour leads to."""
    small = photo.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    colours = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
    border = torch.cat([colours[:, 0], colours[:, -1], colours[:, :, 0], colours[:, :, -1]], 1)
    plain = (colours - border.median(1).values[:, None, None]).abs().amax(0) < TOLERANCE
    mask = (~reached_from_border(plain)).float()[None]
    mask = 1 - F.max_pool2d(1 - mask, 5, 1, 2)  # fringes and specks go with it
    mask = F.max_pool2d(mask, 3, 1, 1)[0]
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return colours[:, box[0], box[1]], mask[box]


def reached_from_border(plain: Bool[Tensor, "row column"]) -> Bool[Tensor, "row column"]:
    """What is ``plain`` and joined to the border by what is plain."""
    inner = torch.zeros_like(plain)
    inner[1:-1, 1:-1] = True
    reached = plain & ~inner
    while True:
        grown = F.max_pool2d(reached[None].float(), 3, 1, 1)[0].bool() & plain
        if torch.equal(grown, reached):
            return reached
        reached = grown


def laid(
    ground: UInt8[Tensor, "3 side side"],
    colours: Float[Tensor, "3 row column"],
    mask: Float[Tensor, "row column"],
    share: float,
    stream: np.random.Generator,
) -> tuple[UInt8[Tensor, "3 side side"], Float[Tensor, "side side"]]:
    """An object on a ground, in some place, and its mask there."""
    side, scale = ground.shape[-1], share * ground.shape[-1] / max(mask.shape)
    size = [max(1, round(length * scale)) for length in mask.shape]
    whole = torch.cat([colours * mask, mask[None]])
    small = F.interpolate(whole[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = (int(stream.integers(0, side - length + 1)) for length in size)
    placed = F.pad(small, (left, side - left - size[1], top, side - top - size[0]))
    pixels = placed[:3] + (1 - placed[3]) * ground / 255
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8), placed[3]
