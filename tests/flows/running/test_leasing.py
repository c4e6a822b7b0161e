"""Two runs on one atlas: the work is shared, nothing is lost, and a dead run's share is taken over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.jobs import AtlasJob, Running
from flows.recipes import atlas as flow
from flows.recipes.atlas import build_atlas
from flows.running import blocks as runner
from flows.running.blocks import leased
from flows.steps.pictures import made_blocks
from stores import AtlasLayer
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder, read_lease, take
from stores.arrays.opening import open_store
from tests.flows.conftest import LAYER, PICTURE, Made, atlas_job
from tests.flows.processes import Gate, ended, goes_on, killed, vital_run
from tests.flows.recipes.test_pipeline import digests

pytestmark = pytest.mark.slow

SLOW = PICTURE.model_copy(update={"steps": 10})
OTHER = Holder("other", "another-machine", 1)


def bytes_of(atlas: Path) -> dict[str, str]:
    """Everything but the leases and where the statistics lie."""
    return {
        name: digest for name, digest in digests(atlas).items() if not name.startswith("runs/") and name != "zarr.json"
    }


def job_of(made: Made, atlas: Path, **running: object) -> AtlasJob:
    return atlas_job(made.store, atlas, picture=SLOW, running=Running.model_validate({"threads": 1, **running}))


@pytest.fixture(scope="module")
def expected(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    atlas = tmp_path_factory.mktemp("expected") / "atlas.zarr"
    build_atlas(job_of(made, atlas))
    return bytes_of(atlas)


def test_two_runs_at_once_both_end_with_the_whole_atlas(made: Made, tmp_path: Path, expected: dict[str, str]) -> None:
    atlas = tmp_path / "atlas.zarr"
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    for run in [vital_run(job_of(made, atlas), folder) for folder in folders]:
        code, said = ended(run)
        assert code == 0, said
    assert bytes_of(atlas) == expected
    assert not [path for path in (atlas / "runs").iterdir() if path.name.startswith("lease")]


def test_a_run_killed_at_work_is_taken_over_at_once_on_its_machine(
    made: Made, tmp_path: Path, expected: dict[str, str]
) -> None:
    """Killed with -9 at its second block, while it holds a lease that would last a day."""
    atlas = tmp_path / "atlas.zarr"
    job, first = job_of(made, atlas, lease=86400.0), atlas / LAYER / "done" / "c" / "0"
    with killed(vital_run(job, tmp_path, **Gate(tmp_path, first).environment)) as run:
        while not (first.exists() and list((atlas / "runs").glob("lease-*"))):
            assert goes_on(run), "the run ended before it could be killed"
    assert not AtlasLayer(open_store(str(atlas), "atlas", "r"), LAYER).done().all()
    build_atlas(job)
    assert bytes_of(atlas) == expected


def test_what_another_run_makes_is_not_made_twice(
    made: Made, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run in this process while another one, as far as leases tell, makes the first block, and then has made it."""
    atlas, job, mine = tmp_path / "atlas.zarr", None, []
    job = job_of(made, atlas)
    build_atlas(job.model_copy(update={"neurons": "32:40"}))
    group = open_store(str(atlas), "atlas", "a")
    assert take(group, LAYER, 0, OTHER, 60.0)

    def other() -> None:
        with leased(BlocksAt(str(atlas), "atlas", LAYER), (0,), OTHER, job.running) as its:
            assert its
            made_blocks(job, (0,))()

    def counted(asked: AtlasJob, blocks: tuple[int, ...]) -> Callable[[], None]:
        mine.append(blocks)
        return lambda: None

    monkeypatch.setattr(flow, "made_blocks", counted)
    working = threading.Thread(target=other)
    working.start()
    build_atlas(job)
    working.join()
    assert mine == []
    assert bytes_of(atlas) == expected


def test_a_run_that_no_longer_renews_is_taken_over_after_its_term(
    made: Made, tmp_path: Path, expected: dict[str, str]
) -> None:
    atlas = tmp_path / "atlas.zarr"
    job = job_of(made, atlas, lease=0.5)
    build_atlas(job.model_copy(update={"neurons": "32:40"}))
    assert take(open_store(str(atlas), "atlas", "a"), LAYER, 0, OTHER, 0.5)
    build_atlas(job)
    assert bytes_of(atlas) == expected
    assert read_lease(open_store(str(atlas), "atlas", "r"), LAYER, 0) is None


def test_tasks_that_did_nothing_are_not_asked_again_at_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers elsewhere respect the lease of a run whose process is seen to have ended here."""
    atlas, done = tmp_path / "atlas.zarr", []
    monkeypatch.setattr(runner, "run_tasks", lambda _, task, calls: done.append("asked"))
    monkeypatch.setattr(runner, "_unwritten", lambda blocks, tasks: tasks if len(done) < 6 else [])
    # Of the runner alone: Prefect's own threads sleep as well.
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=lambda seconds: done.append("waited")))
    build_atlas(job_of(made, atlas))
    assert done == ["asked", "waited"] * 3
