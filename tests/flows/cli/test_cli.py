"""The command as a user meets it: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.cli.parsing import COMMANDS
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.conftest import LAYER, Made

TINY = ("--model", "tests.flows.tiny:network", "--input-size", str(tiny.SIDE))


def refused(result: Result, *words: str, code: int = 1) -> None:
    """One sentence, no traceback, the promised exit code."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    message = result.output[result.output.index("Error:") :]
    for word in words:
        assert word in message, message


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    with Image.open(file) as image:
        return image.size


def references(shards: Path, store: Path, *more: object) -> Result:
    return vital(
        "references", shards, "--store", store, *TINY, "--layer", LAYER, "--references", 3, "--levels", 16, *more
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(command: str) -> None:
    result = vital(*filter(None, [command]), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_nothing_is_listed_that_does_not_exist_yet() -> None:
    assert set(COMMANDS) == {
        "demo",
        "layers",
        "pack",
        "references",
        "targets",
        "atlas",
        "run",
        "info",
        "evaluate",
        "names",
        "report",
        "pages",
        "view",
        "show",
        "look",
        "export",
    }


@pytest.mark.slow
def test_from_a_folder_of_images_to_one_picture(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "images" / label / f"{number}.jpg").write_bytes(tiny.jpeg(number + 10 * (label == "dog")))
    assert vital("pack", tmp_path / "images", "--out", tmp_path / "shards").exit_code == 0
    store, atlas = tmp_path / "stats.zarr", tmp_path / "atlas.zarr"
    said = references(tmp_path / "shards", store)
    assert said.exit_code == 0, said.output
    assert "images: 8" in said.output
    said = vital("targets", "--store", store, "--layer", LAYER, "--neurons", "0:3", "--node", "0", "--node", "1")
    assert said.exit_code == 0, said.output
    assert "rounded out to 1 whole blocks of 32: 32 neurons" in said.output
    said = vital(
        "atlas", "--store", store, "--layer", LAYER, "--neurons", "0:3", "--out", atlas, "--steps", 2, "--side", 24
    )
    assert said.exit_code == 0, said.output
    alone = vital("info", store).output
    assert "1 of 2 blocks" in (both := vital("info", store, atlas).output)
    assert both.startswith(f"{alone}\n{atlas}: atlas")
    said = vital("pages", atlas, "--out", tmp_path / "pages")
    assert said.exit_code == 0, said.output
    layer = next((tmp_path / "pages").rglob("layer.js")).read_text()
    assert f'"name":"{LAYER}"' in layer
    assert size_of(tmp_path / "pages" / "contact-sheet.png")[0] > 100
    assert vital("show", atlas, LAYER, 0, "--out", tmp_path / "one.png").exit_code == 0
    assert size_of(tmp_path / "one.png") == (24, 24)


def test_layers_of_a_model() -> None:
    said = vital("layers", "tests.flows.tiny:network", "--input-size", tiny.SIDE)
    assert said.exit_code == 0
    assert any(line.split()[:3] == [LAYER, "40", "64"] for line in said.output.splitlines())
    assert any(line.startswith("classes") for line in said.output.splitlines())


def test_unknown_model_names_the_nearest() -> None:
    refused(vital("layers", "resnet51"), "resnet51", "resnet50")


def test_layers_say_what_was_taken_of_a_file_of_weights_and_why_there_are_no_classes(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.{name}": one for name, one in tiny.network().state_dict().items()}}, file)
    said = vital("layers", "tests.flows.tiny:network", "--input-size", tiny.SIDE, "--weights", file)
    assert said.output.startswith(f"of {file} the table 'state_dict' and names that begin with 'model.' were taken\n")
    colours = ("--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2")
    said = vital("layers", "tests.flows.tiny:maps_alone", "--input-size", tiny.SIDE, *colours)
    assert "'classes' is not there: the network gives a tensor of shape (2, 4, 8, 8)" in said.output
    assert [line.split()[:3] for line in said.output.splitlines()[1:3]] == [["0", "8", "256"], ["1", "4", "64"]]


def test_leading_tokens_are_shown_before_the_image_s_own() -> None:
    said = vital("layers", "tests.flows.tiny:transformer", "--input-size", tiny.SIDE)
    assert "1+16" in said.output


def test_an_input_size_that_the_network_cannot_take() -> None:
    refused(
        vital("layers", "vit_b_16", "--input-size", 100), "patches of 16", "100 × 100", "multiple of 16, such as 96"
    )
    refused(vital("layers", "maxvit_t", "--input-size", 100), "maxvit_t", "100 × 100", "--input-size")


def test_unknown_layer_names_the_nearest(made: Made, tmp_path: Path) -> None:
    refused(
        vital("references", made.shards, "--store", tmp_path / "s.zarr", *TINY, "--layer", "layer9"),
        "layer9",
        "vital layers",
    )
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("command", ["targets", "atlas"])
def test_a_misspelt_layer_is_told_the_nearest_wherever_it_is_given(made: Made, tmp_path: Path, command: str) -> None:
    out = ("--out", tmp_path / "a.zarr") if command == "atlas" else ()
    said = vital(command, "--store", made.store, "--layer", "clases", *out)
    refused(said, "no layer 'clases'", "classes", "vital layers")
    assert not (tmp_path / "a.zarr").exists()


def test_layer_without_references(made: Made) -> None:
    refused(vital("targets", "--store", made.store, "--layer", "1"), "no references of layer '1'", "vital references")


def test_neuron_out_of_range(made: Made, tmp_path: Path) -> None:
    refused(vital("targets", "--store", made.store, "--layer", LAYER, "--neurons", "0:41"), "0:41", "0 to 39")
    refused(vital("show", made.atlas, LAYER, 99), "99", "0 to 39")
    refused(vital("show", made.atlas, "classes", 4), "no picture")


def test_missing_shard_and_missing_store(tmp_path: Path) -> None:
    refused(references(tmp_path / "nowhere.tar", tmp_path / "s.zarr"), "nowhere.tar")
    refused(vital("info", tmp_path / "nowhere.zarr"), "nowhere.zarr")


@pytest.mark.slow
def test_a_truncated_shard_is_kept_and_fails_unless_allowed(tmp_path: Path) -> None:
    whole = tiny.shards(tmp_path / "shards", 1)[0]
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    refused(references(tmp_path / "shards", tmp_path / "s.zarr"), "tiny-000000.tar", "--allow-rejected")
    refused(references(tmp_path / "shards", tmp_path / "s.zarr"), "tiny-000000.tar")  # and again: nothing is forgotten
    said = vital("info", tmp_path / "s.zarr")
    assert "short shard tiny-000000.tar" in said.output
    assert f"references/{LAYER}" in said.output
    said = references(tmp_path / "shards", tmp_path / "t.zarr", "--allow-rejected", 1)
    assert said.exit_code == 0, said.output


def test_another_model_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s.zarr")
    other = ("--model", "tests.flows.tiny:other_network", "--input-size", tiny.SIDE)
    said = vital(
        "references",
        made.shards,
        "--store",
        tmp_path / "s.zarr",
        *other,
        "--layer",
        LAYER,
        "--references",
        3,
        "--levels",
        16,
    )
    refused(said, "field", "other_network")


def test_other_shards_are_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s.zarr")
    tiny.shards(tmp_path / "shards", 2, images=4)
    refused(references(tmp_path / "shards", tmp_path / "s.zarr"), "tiny-000000.tar")


def test_another_number_of_references_is_refused_before_work(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s.zarr")
    said = references(made.shards, tmp_path / "s.zarr", "--references", 4)
    refused(said, "3 references", "4 were asked")
    assert "images seen" not in said.output


def test_other_picture_settings_are_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.atlas, tmp_path / "a.zarr")
    nodes = (
        "--store",
        made.store,
        "--layer",
        LAYER,
        "--out",
        tmp_path / "a.zarr",
        "--side",
        24,
        "--relevant-weight",
        1,
    )
    refused(vital("atlas", *nodes, "--steps", 3, "--seed", 5), "seed", "5", "0")
    refused(vital("atlas", *nodes, "--steps", 9), "9", "3")


def test_targets_that_were_not_measured_are_named(made: Made, tmp_path: Path) -> None:
    said = vital("atlas", "--store", made.store, "--layer", LAYER, "--out", tmp_path / "a.zarr", "--crop", "patch")
    refused(said, "patch-lrp", "vital targets")


def test_bad_values_are_usage_errors(made: Made, tmp_path: Path) -> None:
    base = ("atlas", "--store", made.store, "--layer", LAYER, "--out", tmp_path / "a.zarr")
    refused(vital(*base, "--steps", 0), "--steps", code=2)
    refused(vital(*base, "--batch", "many"), "--batch", code=2)
    refused(vital("targets", "--layer", LAYER), "STORE is missing", code=2)
    refused(vital(*base, "--device", "cuda:0"), "cuda") if not _cuda() else None


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_names_that_command_a_terminal_are_spelt() -> None:
    name = ("--all", "--input-size", str(tiny.SIDE), *("--mean", "0", "0", "0", "--std", "1", "1", "1"))
    said = vital("layers", "tests.flows.tiny:hostile", *name).output
    lines = said.splitlines()
    assert lines[len(tiny.HOSTILE)].startswith(r"[red]%2F=2F\n\t\x1b[31m\u202e  ")
    assert len(lines) == 1 + len(tiny.HOSTILE) + 2  # a heading, the convolutions, fc and the classes
    assert not set(said) & set("\t\x1b\u202e")
