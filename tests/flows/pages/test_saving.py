"""Pictures as files: `vital show` and `vital export`."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from tests.flows.command import vital
from tests.flows.pages.test_pages import refused
from tests.flows.walkable import LATER, SIDE, Walkable

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "kind"), [("one.png", "PNG"), ("one.webp", "WEBP"), ("one.jpg", "JPEG")])
def test_show_saves_what_the_atlas_holds(walked: Walkable, tmp_path: Path, name: str, kind: str) -> None:
    assert vital("show", walked.atlas, LATER, 3, "--out", tmp_path / name).exit_code == 0
    pixels = np.asarray(array_at(open_store(str(walked.atlas), "atlas", "r"), f"{LATER}/pixels")[3])
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.mode, image.size) == (kind, "RGB", (SIDE, SIDE))
        if kind != "JPEG":
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_show_with_a_mask_and_another_size(walked: Walkable, tmp_path: Path) -> None:
    assert vital("show", walked.atlas, LATER, 3, "--mask", "--out", tmp_path / "m.png").exit_code == 0
    alpha = np.asarray(array_at(open_store(str(walked.atlas), "atlas", "r"), f"{LATER}/alpha")[3])
    with Image.open(tmp_path / "m.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[..., 3], alpha)
    assert vital("show", walked.atlas, LATER, 3, "--side", 48, "--out", tmp_path / "s.png").exit_code == 0
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == (48, 48)


def test_show_refuses_names_it_cannot_write(walked: Walkable, tmp_path: Path) -> None:
    refused(vital("show", walked.atlas, LATER, 3, "--out", tmp_path / "one.xyz"), "one.xyz", ".png")
    refused(vital("show", walked.atlas, LATER, 3, "--mask", "--out", tmp_path / "one.jpg"), "transparent", "--mask")
    refused(vital("show", walked.atlas, LATER, 3, "--out", tmp_path / "no" / "one.png"), "no folder", "make it first")
    refused(vital("show", walked.atlas, "nowhere", 3, "--out", tmp_path / "one.png"), "nowhere", LATER)
    assert list(tmp_path.iterdir()) == []


def test_export_as_a_zip(walked: Walkable, tmp_path: Path) -> None:
    for name in ("a", "b"):
        said = vital(
            "export", walked.atlas, "--layer", LATER, "--neurons", "3,5:7,30:40", "--out", tmp_path / f"{name}.zip"
        )
        assert said.exit_code == 0, said.output
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = {name.removeprefix("a/") for name in archive.namelist()}
        table = list(csv.DictReader(io.StringIO(archive.read("a/neurons.csv").decode())))
        pixels = np.asarray(array_at(open_store(str(walked.atlas), "atlas", "r"), f"{LATER}/pixels")[5])
        with Image.open(io.BytesIO(archive.read(f"a/{LATER}-00005.png"))) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)
    rows = [int(row["neuron"]) for row in table]
    assert rows == [3, 5, 6, 30, 31]
    assert names == {"contact-sheet.png", "neurons.csv", *(f"{LATER}-{row:05d}.png" for row in rows)}
    with zipfile.ZipFile(tmp_path / "a.zip") as one, zipfile.ZipFile(tmp_path / "b.zip") as two:
        assert [one.read(name) for name in one.namelist()] == [two.read(name) for name in two.namelist()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_export_as_a_folder_of_masked_webp(walked: Walkable, tmp_path: Path) -> None:
    words = ("export", walked.atlas, "--layer", "classes", "--format", "webp", "--mask", "--no-sheet", "--out")
    assert vital(*words, tmp_path / "out").exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "contact-sheet.png" not in names
    alpha = np.asarray(array_at(open_store(str(walked.atlas), "atlas", "r"), "classes/alpha")[1])
    with Image.open(tmp_path / "out/classes-00001.webp") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGBA"))[..., 3], alpha)
    refused(vital(*words, tmp_path / "out"), "exists already")


def test_export_refuses_what_is_not_there(walked: Walkable, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x.zip")
    refused(vital("export", walked.atlas, "--layer", "nowhere", *out), "nowhere", LATER)
    refused(vital("export", walked.atlas, "--layer", LATER, "--neurons", "35:40", *out), "35:40", "vital info")
    refused(vital("export", walked.atlas, "--layer", LATER, "--neurons", "90", *out), "90", "0 to 39")
    assert list(tmp_path.iterdir()) == []
