"""Ctrl-C, as a terminal sends it to all of a run's processes, ends them; and a reader that goes away is no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.cli import INTERRUPTED
from flows.jobs import AtlasJob, Running
from stores import open_atlas
from tests.flows.conftest import LAYER, PICTURE, Made, atlas_job, references_job, targets_job
from tests.flows.processes import Gate, Run, environment, goes_on, killed, scheduler, vital_run, worker

pytestmark = pytest.mark.slow

SENTENCE = f"Error: {INTERRUPTED}"


def lease_of(atlas: Path) -> Path:
    """What is there while the first block is made."""
    return atlas / "runs" / f"lease-{LAYER}-0"


def job_of(made: Made, folder: Path, **running: object) -> AtlasJob:
    picture = PICTURE.model_copy(update={"steps": 10_000})
    return atlas_job(
        made.store, folder / "atlas.zarr", picture=picture, running=Running.model_validate({"threads": 1, **running})
    )


def interrupted(run: Run, atlas: Path, times: int = 1) -> tuple[int, str]:
    """Code and last words of a run that gets Ctrl-C while it makes its first block."""
    with killed(run):
        while not lease_of(atlas).exists():
            assert goes_on(run), run.communicate()
        for _ in range(times):
            os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate()
    assert "Traceback" not in said  # of its workers, neither
    return run.returncode, said[said.find("Error: ") :].strip()


def left_of(group: int) -> list[int]:
    """Processes of the group that have not ended; others than these come and go meanwhile."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            ended = process.info["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # init has yet to take note of
            if os.getpgid(process.pid) == group and not ended:
                found.append(process.pid)
    return found


@pytest.mark.parametrize("running", [{}, {"workers": 1}], ids=["in process", "with a worker"])
def test_ctrl_c_ends_a_run_at_work(made: Made, tmp_path: Path, running: dict[str, object]) -> None:
    atlas = tmp_path / "atlas.zarr"
    gate = Gate(tmp_path, lease_of(atlas))  # it would wait for ever
    run = vital_run(job_of(made, tmp_path, **running), tmp_path, **gate.environment)
    assert interrupted(run, atlas) == (130, SENTENCE)
    assert running or not lease_of(atlas).exists()  # the block is given back
    while left_of(run.pid):  # the test's own time limit ends this
        pass
    assert not open_atlas(str(atlas)).layer(LAYER).done().any()


def test_ctrl_c_ends_a_run_whose_tasks_a_scheduler_gives_out(made: Made, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas.zarr"
    gate = Gate(tmp_path, lease_of(atlas))
    with scheduler(tmp_path) as (_, address), worker(tmp_path, address, "--no-nanny", **gate.environment):
        assert interrupted(vital_run(job_of(made, tmp_path, scheduler=address), tmp_path), atlas) == (130, SENTENCE)


@pytest.fixture(scope="module")
def deaf(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Statistics of a network that Python cannot interrupt."""
    from flows.recipes.references import select_references
    from flows.recipes.targets import measure_targets
    from tests.flows import tiny
    from vital.settings import ModelSettings

    made = Made(tmp_path_factory.mktemp("deaf"))
    network = ModelSettings(name="tests.flows.tiny:deaf_network", input_size=tiny.SIDE)
    tiny.shards(made.shards, 1)
    select_references(references_job(made.shards, made.store, model=network, layers=(LAYER,)))
    measure_targets(targets_job(made.store))
    return made


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_run_that_python_cannot_interrupt(deaf: Made, tmp_path: Path, times: int) -> None:
    """As in a long step of a large network, where no handler runs; neither does the second Ctrl-C abort it."""
    atlas = tmp_path / "atlas.zarr"
    run = vital_run(job_of(deaf, tmp_path), tmp_path, TINY_GATE_AFTER=str(lease_of(atlas)))
    assert interrupted(run, atlas, times) == (130, SENTENCE)


@pytest.mark.parametrize("words", [("layers", "tests.flows.tiny:network"), ("--help",)])
def test_a_reader_that_has_seen_enough_is_no_error(words: tuple[str, ...]) -> None:
    """As `vital layers resnet50 | head -1`."""
    command = [sys.executable, "-m", "flows.cli.main", *words]
    ends = os.pipe()
    os.close(ends[0])
    ran = subprocess.run(command, env=environment(), stdout=ends[1], stderr=subprocess.PIPE, text=True)
    os.close(ends[1])
    assert ran.stderr == ""


@pytest.mark.parametrize("imported", ["cyclopts", "cyclopts.parameter", "flows.cli.making", "flows.jobs"])
def test_ctrl_c_while_the_command_is_imported(imported: str) -> None:
    """What is half imported says nothing of itself."""
    program = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Asking:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {imported!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Asking())\n"
        "from flows.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "layers", "nothing"]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", f"{SENTENCE}\n")


def test_a_factory_in_the_current_folder_is_found(tmp_path: Path) -> None:
    """As with ``python -m``, also by a command that is a file elsewhere; and it hides nothing that is installed."""
    (tmp_path / "mine.py").write_text("import torch\ndef net(): return torch.nn.Conv2d(3, 8, 3)\n", "utf-8")
    (tmp_path / "torchvision.py").write_text("raise SystemExit('hidden')\n", "utf-8")
    program = "import sys; sys.path.remove(''); from flows.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "layers", "mine:net", "--input-size", "32"]
    ran = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


ASCII = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("said", [ASCII, {"PYTHONIOENCODING": "cp1252"}], ids=["locale", "output"])
def test_a_machine_whose_own_encoding_is_not_utf_8(made: Made, tmp_path: Path, said: dict[str, str]) -> None:
    """As in a batch job without LANG: the credits of the embedded photographs are read, other letters are shown."""
    program = (
        "import sys; from flows.cli.main import main\n"
        "for line in sys.stdin.buffer.read().decode('utf-8').splitlines():\n"
        "    sys.argv[1:] = line.split()\n"
        "    print('code', main(), file=sys.stderr, flush=True)\n"
        "from flows.pages.atlas import read_credits; read_credits(None)\n"
    )
    words = f"pages {made.atlas} --out {tmp_path / 'pages'} --title слой --no-references\ninfo слой"
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(**said), input=words.encode("utf-8"), capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    done, code, refused = ran.stderr.partition(b"code 0\n")
    assert code, done
    assert "слой" in (tmp_path / "pages" / "index.html").read_text("utf-8")
    assert refused.startswith(b"Error: ")
    assert refused.endswith(b"\ncode 1\n")
    assert b"Traceback" not in ran.stderr
