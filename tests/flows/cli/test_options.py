"""Command lines and the jobs they stand for; what help says of options; one sentence for each wrong line."""

from __future__ import annotations

import errno
import re
import shlex
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from flows.cli.main import main
from flows.cli.options import HEADINGS, refusal
from flows.cli.parsing import COMMANDS, command_line, joined
from flows.jobs import AtlasJob, EvaluateJob, NamesJob, ReferencesJob, Running, TargetsJob
from flows.reports.plan import ReportJob
from stores.errors import MissingStore
from tests.flows.command import vital
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

SECRET = "hunter2-very-secret"


def parsed(line: str) -> dict[str, Any]:
    """What the command that ``line`` asks for is given."""
    words = shlex.split(line)
    _, bound, _ = command_line(words[0]).parse_args(joined(words))
    return dict(bound.arguments)


@pytest.mark.parametrize(
    ("line", "job"),
    [
        (
            "references a.tar --store s b.tar --layer l --layer classes --references 3 --lowest --directions d.npy "
            "--dictionary e.npz --model resnet50 --weights w.pt --download --mean 0.1 0.2 0.3 --std 1 1 1 --workers 2 "
            "--extend --precision tf32 --deterministic",
            ReferencesJob(
                shards=("a.tar", "b.tar"), store="s", layers=("l", "classes"), directions=("d.npy",), extend=True,
                dictionaries=("e.npz",), statistics=StatisticsSettings(references=3, lowest=True), precision="tf32",
                running=Running(workers=2, deterministic=True),
                model=ModelSettings(
                    name="resnet50", weights="w.pt", download=True, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)
                ),
            ),
        ),
        (
            "targets --store=s --layer l --neurons 0:64 --node x --node y --crop image --fewest 2 --shards a "
            "--shards b",
            TargetsJob(
                store="s", layer="l", neurons="0:64", shards=("a", "b"),
                variant=VariantSettings(nodes=("x", "y"), crop="image", fewest=2),
            ),
        ),
        (
            "atlas --store s --layer l --out o --preset paper --steps 7 --betas 0.1 0.2 --batch 4 --relevance lrp "
            "--scheduler tcp://host:8786 --threads 3",
            AtlasJob(
                store="s", layer="l", out="o", batch=4, variant=VariantSettings(relevance="lrp"),
                picture=PictureSettings(preset="paper", steps=7, betas=(0.1, 0.2)),
                running=Running(scheduler="tcp://host:8786", threads=3),
            ),
        ),
        ("atlas --store s --layer l --out o --batch auto", AtlasJob(store="s", layer="l", out="o")),
        (
            "evaluate a --judge j --judge k --layer l --sibling q --download",
            EvaluateJob(atlas="a", judges=("j", "k"), layers=("l",), siblings=("q",), download=True),
        ),
        ("evaluate --layer l a", EvaluateJob(atlas="a", layers=("l",))),
        ("evaluate --atlas a", EvaluateJob(atlas="a")),
        ("names --atlas a", NamesJob(atlas="a")),
        ("targets s --layer l", TargetsJob(store="s", layer="l")),
        ("atlas s --layer l --out o", AtlasJob(store="s", layer="l", out="o")),
        (
            "names a --vocabulary w.txt --judge open_clip:ViT-B-32/f.pt --layer l --words 1 --quantile 0.99",
            NamesJob(
                atlas="a", vocabulary="w.txt", judge="open_clip:ViT-B-32/f.pt", layers=("l",), words=1, quantile=0.99
            ),
        ),
        ("names a", NamesJob(atlas="a", vocabulary="classes")),
        (
            "report --out o --method vital --method maco --no-ablation --held-out h --seeds 1",
            ReportJob(out="o", methods=("vital", "maco"), no_ablation=True, held_out=("h",), seeds=1),
        ),
    ],
)  # fmt: skip
def test_a_command_line_is_the_job(line: str, job: object) -> None:
    assert parsed(line)["job"] == job


def test_what_is_left_out_is_left_to_the_settings() -> None:
    """A preset fills in what is not given, so a default must not count as given."""
    natural, paper = (
        parsed(f"atlas --store s --layer l --out o {preset}")["job"].picture for preset in ("", "--preset paper")
    )
    assert natural.model_fields_set == set()
    assert (natural.steps, paper.steps, paper.parametrisation) == (300, 2000, "pixel")


def test_the_last_of_an_option_that_is_given_twice_counts() -> None:
    job = parsed("atlas --store s --layer l --out o --steps 3 --betas 0.5 0.6 --store t --steps 4 --betas 0.1 0.2")[
        "job"
    ]
    assert (job.store, job.picture.steps, job.picture.betas) == ("t", 4, (0.1, 0.2))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("moments --store s --layer l", "`vital moments` is called `vital targets` now"),
        ("tragets", "there is no command tragets: the nearest is targets, and `vital --help` lists all"),
        ("atlas --stesp 3", "there is no option --stesp: the nearest is --steps, and `vital atlas --help` lists all"),
        (f"atlas --stroe=s3://key:{SECRET}@b/s", "there is no option --stroe: the nearest is --store"),
        (
            "targets s --layer a --layer b",
            "--layer was given more than once, and takes one value here",
        ),
        ("atlas s --layer a --out o --neurons 0 --neurons 5", "--neurons was given more than once"),
        ("export a --layer l --out o --layer m", "--layer was given more than once"),
        ("targets --layer l --store ''", "--store is given nothing"),
        ("targets --layer l", "STORE is missing: `vital targets --help`"),
        ("references --store s --layer l", "SHARDS is missing"),
        ("pages --out o", "ATLAS is missing"),
        ("evaluate", "ATLAS is missing: `vital evaluate --help`"),
        ("look", "ATLAS is missing"),
        ("look a.zarr", "PHOTO is missing: say `vital look ATLAS PHOTO`, or `vital look PHOTO --atlas ATLAS`"),
        (f"look a.zarr s3://key:{SECRET}@b/cat.jpg", "PHOTO: a path on this machine was expected, but s3://b/cat.jpg"),
        ("names --words 3", "ATLAS is missing"),
        ("names a --vocabulary", "--vocabulary needs 1 value"),
        ("atlas --store s --layer l --out o --steps", "--steps needs 1 value"),
        ("atlas --store s --layer l --out o --betas 0.1", "--betas needs 2 values"),
        ("layers m --mean 0.1 much", "'much' is one argument too many"),
        ("targets --store --layer l", "--store needs 1 value"),
        ("info", "STORE is missing: `vital info --help`"),
        ("targets s.zarr --layer l --neurons ''", "--neurons is given nothing: give it a value, or leave it out"),
        ("atlas s.zarr --layer l --out a.zarr --neurons=", "--neurons is given nothing"),
        (f"evaluate a s3://key:{SECRET}@b/s", "'s3://b/s' is one argument too many: `vital evaluate --help`"),
        ("atlas --store s --layer l --out o --steps 0", "--steps: Input should be greater than or equal to 1, but '0'"),
        ("atlas --store s --layer l --out o --steps x", "--steps: Input should be a valid integer"),
        ("atlas --store s --layer l --out o --batch many", "--batch: auto or a number from 1 was expected, but 'many'"),
        ("atlas --store s --layer l --out o --batch 0", "--batch: auto or a number from 1 was expected, but '0'"),
        ("atlas --store s --layer l --out o --betas 0.5 1.5", "--betas: Input should be less than 1, but '1.5'"),
        ("targets --store s --layer l --node n --crop all", "--crop: Input should be 'patch' or 'image', but 'all'"),
        ("report --out o --method all", "--method: Input should be 'vital', "),
        ("report --out o --input-size 3", "--input-size: Input should be greater than or equal to 16, but '3'"),
        ("targets --store s --layer l --workers 2 --scheduler a", "workers are started here, a scheduler has its own"),
        (f"targets --layer l --store s3://key:{SECRET}@b/s", "--store: s3://b/s was given with a password"),
        ("view /nowhere/at/all", 'FOLDER: "/nowhere/at/all" does not exist: check the path'),
        ("view . --port 70000", "--port: "),
        ("view . --port x", "--port: "),
        ("show u l three", "NEURON: "),
        ("show u l 3 --side 7", "--side: "),
        ("demo --neurons 193", "--neurons: "),
        ("export u --layer l --out o --format gif", "--format: "),
        ("run /nowhere.yaml", "FILE: "),
    ],
)
def test_a_wrong_line_is_one_sentence_that_names_the_option(line: str, words: str) -> None:
    said = vital(*shlex.split(line))
    assert said.exit_code == 2, said.output
    assert said.output.startswith("Error: ")
    assert said.output.count("\n") == 1
    assert words.removesuffix(": ") in said.output
    assert SECRET not in said.output
    assert "╭" not in said.output


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileExistsError(17, "File exists", "a.tar"), "a.tar is a file, or lies below one, where a folder is needed: "),
        (NotADirectoryError(20, "Not a directory", "a.tar/s"), "a.tar/s is a file, or lies below one"),
        (PermissionError(13, "Permission denied", "/s"), "/s cannot be read or written (Permission denied): check the"),
        (OSError("a sentence of its own"), "a sentence of its own"),
        (
            NoCredentialsError(),
            "a service failed (NoCredentialsError: Unable to locate credentials): check the",
        ),
    ],
)
def test_what_the_system_refuses_is_a_sentence_without_its_number(error: Exception, told: str) -> None:
    sentence, code = refusal(error)
    assert sentence.startswith(told)
    assert code == 1


def test_without_a_command_there_is_its_help_and_bad_usage() -> None:
    for words in ((), ("--verbose",)):
        said = vital(*words)
        assert said.exit_code == 2
        assert said.output == vital("--help").output
    assert vital("-h").output == vital("--help").output
    assert vital("-h").exit_code == 0


def test_the_version_is_said() -> None:
    said = vital("--version")
    assert said.exit_code == 0
    assert said.output.startswith("vital, version ")


def test_verbose_raises_what_failed_but_not_what_was_asked_wrongly() -> None:
    assert vital("info", "nowhere.zarr").exit_code == 1
    with pytest.raises(MissingStore):
        main(["--verbose", "info", "nowhere.zarr"])
    assert vital("--verbose", "info").exit_code == 2


@pytest.mark.parametrize(("terminal", "widest"), [(80, 80), (110, 110), (200, 110)])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_keeps_within_the_terminal(
    monkeypatch: pytest.MonkeyPatch, command: str, terminal: int, widest: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(terminal))
    lines = vital(*filter(None, [command]), "--help").output.splitlines()
    assert max(map(len, lines)) <= widest
    assert not {"╭", "│"} & set("".join(lines))
    simple = ("demo", "pack", "run", "info", "view", "show")
    assert any("vital " in line and "Usage:" not in line for line in lines) or command in simple  # an example


def test_help_says_bounds_choices_and_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    said = " ".join(vital("atlas", "--help").output.split())
    for words in (
        "--steps INT optimisation steps [from 1 to 100000; default: 300]",
        "--betas FLOAT FLOAT Adam's decay rates [from 0 to below 1; default: 0.9 0.99]",
        "--learning-rate FLOAT Adam's peak learning rate [above 0; default: 0.1]",
        "[patch, image; default: image]",
        "--threads INT torch's threads of a task [from 1; default: cores / workers]",
        "statistics store that holds the targets [required]",
    ):
        assert words in said
    for name, field in PictureSettings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in said
        assert " ".join(str(field.description).split("  [")[0].split()) in said
    assert "[stored, fly; default: stored]" in said
    assert "--fewest INT" in said  # of targets on the fly
    assert "layer4.2@3,3" in vital("references", "--help").output


@pytest.mark.parametrize("words", [["info", "caf\udce9"], ["--verbose", "show", "a.zarr", "\udcd1", "0"]])
def test_words_that_are_no_text_are_refused_before_work(words: list[str]) -> None:
    """The name of a file in another encoding; Python hands it over with the bytes as they are."""
    ran = vital(*words)
    assert ran.exit_code == 2
    assert re.fullmatch(r"Error: '.*\\udc.*' is no utf-8 text: rename .* PYTHONUTF8=1 .*\n", ran.output)


def test_what_a_terminal_would_obey_is_not_said() -> None:
    said = vital("info", "\x1b[31mred\x1b[0m\a.zarr").output
    assert said.startswith("Error: ")
    assert "red.zarr" in said
    assert "\x1b" not in said
    assert r"at a\nb.zarr" in vital("info", "a\nb.zarr").output
    assert vital("info", "a\nb.zarr").output.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name: str) -> None:
    said = vital(name, "--help").output
    assert "xample:" in said
    assert f"  vital {name} " in said or f"Example: vital {name} " in said


def test_every_command_has_a_purpose_and_the_settings_their_headings() -> None:
    listed = vital("--help").output
    assert all(f"  {name}" in listed and purpose in listed for name, (_, purpose) in COMMANDS.items())
    assert all(
        f"{heading}:" in vital("atlas", "-h").output for heading in {HEADINGS[PictureSettings], HEADINGS[Running]}
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("file", "shown"), [((), ""), (("/a/s.zarr",), ", as /a/s.zarr shows")])
def test_a_full_disk_is_told_with_the_way_out(number: int, file: tuple[str, ...], shown: str) -> None:
    assert refusal(OSError(number, "no room", *file)) == (
        f"the disk is full, or your share of it{shown}: make room; what is finished stays; run the same command again, "
        "which makes what is missing",
        1,
    )
