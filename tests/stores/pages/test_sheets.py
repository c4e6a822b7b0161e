import numpy as np
import pytest

from stores.pages.sheets import Cell, Grid, contact_sheet, sheet_png


def cells(count: int, photo: bool) -> list[Cell]:
    grey = np.full((20, 30, 3), 250, np.uint8)
    return [
        Cell(
            "a name far too long for its cell " * 3,
            f"layer4.2 {place}",
            np.full((16, 16, 3), 40 * (place + 1) % 256, np.uint8),
            grey if photo else None,
            (0.25, 0.25, 0.75, 0.75) if photo else None,
        )
        for place in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_contact_sheet_shows_every_pair(count: int) -> None:
    sheet = contact_sheet(iter(cells(count, True)), count, Grid(columns=3, side=64, gap=20, paired=True), "An atlas")
    pixels = np.asarray(sheet).astype(int)
    assert sheet.width == 20 + min(max(count, 1), 3) * (2 * 64 + 2 + 20)
    if count:
        top, right = 20 + 4 * 11, 20 + 64 + 2
        assert pixels[top + 30, 20 + 30].tolist() == [40, 40, 40]
        assert np.abs(pixels[top + 8, right + 8] - 250).max() <= 2
        # the patch's outline, dark outside and light inside
        assert pixels[top + 30, right + 15].max() < 60
        assert pixels[top + 30, right + 16].min() > 240
    assert sheet_png(sheet).startswith(b"\x89PNG")


def test_a_sheet_without_photographs_has_pictures_only() -> None:
    assert contact_sheet(cells(2, False), 2, Grid(side=64, gap=20)).width == 20 + 2 * (64 + 20)


def test_the_same_cells_are_the_same_bytes() -> None:
    first, second = (sheet_png(contact_sheet(cells(3, True), 3, Grid(side=32, paired=True))) for _ in range(2))
    assert first == second
