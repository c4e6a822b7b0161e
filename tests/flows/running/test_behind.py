"""What is made is written while the next is made: one at a time, errors carried, nothing left unwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any, ClassVar

import numpy as np
import pytest
from distributed import Client

from flows.jobs import AtlasJob, Running, TargetsJob
from flows.recipes import atlas as atlas_recipe
from flows.recipes import targets as recipe
from flows.recipes.atlas import build_atlas
from flows.recipes.targets import measure_targets
from flows.running import blocks as runner
from flows.running.behind import written_behind
from flows.running.blocks import BlockWork, made_in_turn, shares_of
from flows.running.cluster import UNKNOWN_WORKERS, workers_of
from flows.running.workers.workplaces import wanted
from flows.steps.pictures import made_blocks
from flows.steps.targets import measured_blocks
from stores import AtlasLayer, Targets, open_atlas, open_statistics
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder, read_lease
from stores.errors import UnreachableStore
from tests.flows.conftest import LAYER, Made, atlas_job, targets_job
from tests.flows.processes import scheduler, worker
from tests.flows.recipes.test_pipeline import digests

WAIT = 60.0
"""Seconds after which something that should have happened has not."""


def test_a_write_goes_on_while_the_next_is_made_and_never_two_at_once() -> None:
    said: list[str] = []
    begun, go_on = [Event(), Event()], [Event(), Event()]

    def write(number: int) -> None:
        said.append(f"{number} begun")
        begun[number].set()
        assert go_on[number].wait(WAIT)
        said.append(f"{number} written")

    def held(number: int) -> ExitStack:
        stack = ExitStack()
        stack.callback(said.append, f"{number} left")
        return stack

    with written_behind() as behind:
        behind(lambda: write(0), held(0))
        assert begun[0].wait(WAIT)
        said.append("1 made")  # while 0 is being written
        second = Thread(target=lambda: behind(lambda: write(1), held(1)))
        second.start()
        go_on[0].set()
        assert begun[1].wait(WAIT)
        second.join(WAIT)
        go_on[1].set()
    assert said == ["0 begun", "1 made", "0 written", "0 left", "1 begun", "1 written", "1 left"]


def fail(why: str) -> None:
    raise OSError(why)


def writes(
    *each: Callable[[], object], then: Callable[[], object] = lambda: None, held: ExitStack | None = None
) -> None:
    """Hand over each, something held for the last, and do what comes ``then``."""
    with written_behind() as behind, held or ExitStack() as of_last:
        for write in each:
            behind(write, of_last if write is each[-1] else ExitStack())
        then()


def test_the_error_of_a_write_is_raised_where_the_next_is_handed_over_or_at_the_end() -> None:
    left: list[str] = []
    with pytest.raises(OSError, match="no room"):
        writes(lambda: fail("no room"))
    held = ExitStack()
    held.callback(left.append, "what was held for the second")
    with pytest.raises(OSError, match="no room"):
        writes(lambda: fail("no room"), lambda: left.append("written"), held=held)
    assert left == ["what was held for the second"]


def test_an_error_of_what_is_made_waits_for_the_write_and_tells_of_its_error() -> None:
    written: list[str] = []

    def of_the_next() -> None:
        raise ValueError("of the next")

    with pytest.raises(ValueError, match="of the next") as raised:
        writes(lambda: written.append("first"), then=of_the_next)
    assert (written, getattr(raised.value, "__notes__", [])) == (["first"], [])
    with pytest.raises(ValueError, match="of the next") as raised:
        writes(lambda: fail("no room"), then=of_the_next)
    assert raised.value.__notes__ == ["what was made before could not be written: no room"]


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Path:
    """A copy whose targets of a layer of two blocks are to be measured again."""
    there = tmp_path / "stats.zarr"
    shutil.copytree(made.store, there)
    targets_of(there).forget([0, 1])
    return there


def targets_of(store: Path) -> Targets:
    return open_statistics(str(store), "r+").targets(LAYER, "image-lrp")


def test_a_block_of_targets_is_written_while_the_next_is_measured(
    made: Made, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring, write, measured = Event(), Targets.write, measured_blocks

    def late(self: Targets, block: int, arrays: Any) -> None:
        if block == 0:
            assert measuring.wait(WAIT)  # for ever, if nothing of the next were done before this is written
            assert read_lease(self.root, self.path, 0) is not None  # which still is ours
            assert self.done().tolist() == [False, False]
        write(self, block, arrays)

    def seen(job: Any, blocks: tuple[int, ...], urls: Any) -> Any:
        found = measured(job, blocks, urls)
        if blocks == (1,):
            measuring.set()
        return found

    monkeypatch.setattr(Targets, "write", late)
    monkeypatch.setattr(recipe, "measured_blocks", seen)
    measure_targets(targets_job(store))
    again, before = targets_of(store), targets_of(made.store)
    assert again.done().all()
    assert read_lease(again.root, again.path, 0) is read_lease(again.root, again.path, 1) is None
    rows = before.rows(range(before.count))
    for name, values in again.rows(range(again.count)).items():
        np.testing.assert_array_equal(values, rows[name], err_msg=name)


def test_a_block_that_cannot_be_written_ends_the_run_and_the_next_run_makes_what_is_missing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(Targets, "write", lambda *given: fail("no room"))
        with pytest.raises(UnreachableStore, match=r"failed while tasks were running \(no room\)"):
            measure_targets(targets_job(store))
    targets = targets_of(store)
    assert not targets.done().any()
    assert read_lease(targets.root, targets.path, 0) is read_lease(targets.root, targets.path, 1) is None
    measure_targets(targets_job(store))
    assert targets_of(store).done().all()


def of_pictures(made: Made, atlas: Path) -> AtlasJob:
    return atlas_job(made.store, atlas, running=Running(threads=1))


@pytest.mark.slow
def test_pictures_are_written_while_the_next_are_optimised_with_the_same_bytes(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimising, write, there = Event(), AtlasLayer.write, made_blocks
    at_once, behind = tmp_path / "once.zarr", tmp_path / "behind.zarr"
    with monkeypatch.context() as one_by_one:
        one_by_one.setattr(atlas_recipe, "TURNS_OF_PICTURES", 1)
        build_atlas(of_pictures(made, at_once))

    def late(self: AtlasLayer, block: int, arrays: Any) -> None:
        if block == 0:
            assert optimising.wait(WAIT)  # for ever, if nothing of the next were done before this is written
            assert read_lease(self.root, self.path, 0) is not None  # which still is ours
            assert self.done().tolist() == [False, False]
        write(self, block, arrays)

    def seen(job: AtlasJob, blocks: tuple[int, ...]) -> Callable[[], None]:
        of_these = there(job, blocks)
        if blocks == (1,):
            optimising.set()
        return of_these

    monkeypatch.setattr(AtlasLayer, "write", late)
    monkeypatch.setattr(atlas_recipe, "made_blocks", seen)
    build_atlas(of_pictures(made, behind))
    mine, others = digests(behind), digests(at_once)
    assert mine == others


def test_pictures_that_cannot_be_written_end_the_run_and_the_next_run_makes_what_is_missing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas, write = tmp_path / "atlas.zarr", AtlasLayer.write

    def first_alone(self: AtlasLayer, block: int, arrays: Any) -> None:
        if block == 1:
            fail("no room")
        write(self, block, arrays)

    with monkeypatch.context() as failing:
        failing.setattr(AtlasLayer, "write", first_alone)
        with pytest.raises(UnreachableStore, match=r"failed while tasks were running \(no room\)"):
            build_atlas(of_pictures(made, atlas))
    layer = open_atlas(str(atlas)).layer(LAYER)
    assert layer.done().tolist() == [True, False]
    assert read_lease(layer.root, layer.path, 0) is read_lease(layer.root, layer.path, 1) is None
    build_atlas(of_pictures(made, atlas))
    assert open_atlas(str(atlas)).layer(LAYER).done().all()


def sizes(tasks: int, in_turn: int, shares: int) -> list[int]:
    every: dict[tuple[int, ...], float] = {(block,): 1.0 for block in range(tasks)}
    work = BlockWork(BlocksAt("url", "statistics", "path"), every, "", "", {}, in_turn, shares)
    return [len(told["groups"]) for told, _ in work.calls(list(every), {})]


def test_tasks_are_given_away_together_yet_ever_fewer_so_that_workers_end_together() -> None:
    assert sizes(20, 16, 1) == [16, 4]
    assert sizes(64, 4, 16) == [4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, *[1] * 16]
    assert sizes(8, 4, 16) == [1] * 8
    assert sizes(0, 4, 16) == []
    for tasks, in_turn, shares in ((1, 1, 1), (1000, 16, 8), (99, 4, 6)):
        assert sum(sizes(tasks, in_turn, shares)) == tasks
        assert max(sizes(tasks, in_turn, shares)) <= in_turn


def test_a_worker_is_told_of_each_group_what_is_its_own() -> None:
    every: dict[tuple[int, ...], float] = {(block,): float(block) for block in range(5)}
    work = BlockWork(BlocksAt("url", "statistics", "path"), every, "", "", {one: {"urls": one} for one in every}, 2)
    calls = work.calls([(1,), (2,), (4,)], {"job": "job"})
    assert [weight for _, weight in calls] == [3.0, 4.0]
    assert [[group["blocks"] for group in told["groups"]] for told, _ in calls] == [[(1,), (2,)], [(4,)]]
    assert calls[1][0] == {"job": "job", "groups": [{"blocks": (4,), "urls": (4,)}]}


def test_a_task_that_nobody_waits_for_ends_with_the_group_that_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    at, said, waited_for = BlocksAt("url", "statistics", "path"), list[str](), iter([True, True, False, False])
    monkeypatch.setattr(runner, "leased", lambda *given: nullcontext(True))
    monkeypatch.setattr(runner, "wanted", lambda: next(waited_for))

    def made_of(job: TargetsJob, blocks: int) -> Callable[[], None]:
        said.append(f"made {blocks}")
        return lambda: said.append(f"written {blocks}")

    job = TargetsJob(store="url", layer=LAYER)
    made_in_turn(job, at, [{"blocks": number} for number in range(4)], Holder.new(), made_of)
    assert sorted(said) == ["made 0", "made 1", "written 0", "written 1"]


class Asked:
    """What a task of this process's own worker is asked, and answers; it is known by name, and so is not sent."""

    found: ClassVar[list[bool]] = []
    before, given_up, after = Event(), Event(), Event()


def asking() -> None:
    Asked.found.append(wanted())
    Asked.before.set()
    assert Asked.given_up.wait(WAIT)
    while wanted():  # the worker hears of it a little later
        assert not Asked.after.wait(0.01)
    Asked.found.append(wanted())
    Asked.after.set()


def test_a_worker_knows_whether_its_task_is_waited_for() -> None:
    assert wanted(), "in no worker"
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:  # type: ignore[no-untyped-call]
        future = client.submit(asking)
        assert Asked.before.wait(WAIT)
        future.release()
        Asked.given_up.set()
        assert Asked.after.wait(WAIT)
    assert Asked.found == [True, False]


@pytest.mark.slow
def test_workers_of_a_scheduler_are_those_that_it_has(tmp_path: Path) -> None:
    with scheduler(tmp_path) as (_, address):
        assert workers_of(Running(scheduler=address)) == UNKNOWN_WORKERS
        assert shares_of(Running(scheduler=address)) == 2 * UNKNOWN_WORKERS
        with worker(tmp_path, address), Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(1)
            assert workers_of(Running(scheduler=address)) == 1
