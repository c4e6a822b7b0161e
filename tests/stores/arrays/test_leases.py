"""Leases: whose work it is, for as long as it lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr

from stores.arrays import leases
from stores.arrays.leases import Holder, Lease, Watch, read_lease, release, renew, take
from stores.arrays.names import MOST_BYTES, placed
from stores.arrays.opening import open_store

TERM = 60.0


@pytest.fixture(params=["local", "memory"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> zarr.Group:
    place = str(tmp_path / "atlas") if request.param == "local" else f"memory://{tmp_path.name}-leases"
    return open_store(place, "atlas", "a")


def elsewhere(run: str = "other") -> Holder:
    """A run on another machine, whose processes cannot be seen from here."""
    return Holder(run, "another-machine", 1)


def test_a_lease_is_refused_to_others_until_it_is_given_back(group: zarr.Group) -> None:
    mine = Holder.new()
    assert take(group, "layer4/x", 3, elsewhere(), TERM)
    assert not take(group, "layer4/x", 3, mine, TERM)
    found = read_lease(group, "layer4/x", 3)
    assert found is not None
    assert found.holder == elsewhere()
    assert take(group, "layer4/x", 4, mine, TERM)
    assert take(group, "layer4", 3, mine, TERM)
    release(group, "layer4/x", 3, elsewhere())
    assert read_lease(group, "layer4/x", 3) is None
    assert take(group, "layer4/x", 3, mine, TERM)
    assert take(group, "layer4/x", 3, mine, TERM), "one's own is no obstacle"


class Clock:
    """Of one machine; it goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch_of(clock: Clock, url: str = "memory://nowhere", path: str = "layer") -> Watch:
    return Watch(url, path, Holder.new(), clock)


def test_a_lease_that_is_not_seen_to_be_renewed_ends_with_its_own_term(group: zarr.Group) -> None:
    clock = Clock()
    watch = watch_of(clock)
    assert take(group, "layer", 0, elsewhere(), TERM)
    assert watch.held(group, 0)
    clock.now += TERM - 1
    assert watch.held(group, 0)
    renew(group, "layer", 0, elsewhere(), TERM)
    clock.now += TERM - 1
    assert watch.held(group, 0), "it was renewed since it was seen"
    clock.now += TERM - 1
    assert watch.held(group, 0), "the term runs from when the renewal was seen"
    clock.now += 1
    assert not watch.held(group, 0)
    assert take(group, "layer", 0, Holder.new(), TERM), "tasks that have not watched it find none"
    assert take(group, "layer", 1, elsewhere(), 10 * TERM)
    assert watch.held(group, 1)
    clock.now += 9 * TERM
    assert watch.held(group, 1), "whoever renews it rarely has said so"


@pytest.mark.parametrize("days", [-1.0, 0.0, 1.0])
def test_clocks_of_machines_may_differ(days: float, group: zarr.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder's is a day behind or ahead of the watcher's, which only counts seconds."""
    clock, others = Clock(), Clock()
    others.now += days * 86400
    watch = watch_of(clock)
    monkeypatch.setattr(leases, "time", SimpleNamespace(time=others))
    assert take(group, "layer", 0, elsewhere(), TERM)
    for _ in range(8):
        assert watch.held(group, 0), "it works, and says so"
        assert not take(group, "layer", 0, Holder.new(), TERM)
        clock.now += TERM / 2
        others.now += TERM / 2
        renew(group, "layer", 0, elsewhere(), TERM)
    assert watch.held(group, 0)
    clock.now += TERM
    assert not watch.held(group, 0), "it has ended"


def test_a_term_runs_while_the_watcher_does_other_work(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "atlas"), Clock()
    group = open_store(path, "atlas", "a")
    watch = watch_of(clock, path)
    watch.begin(group)  # nobody has one
    for there, block in (("layer", 7), ("layer", 12), ("layer-2", 3)):
        assert take(group, there, block, elsewhere(), TERM)
    watch.begin(group)
    clock.now += TERM
    assert not watch.held(group, 7)
    assert not watch.held(group, 12)
    assert read_lease(group, "layer-2", 3) is not None, "of other blocks"
    assert watch_of(clock, path, "layer-2").held(group, 3), "who has just come waits"


def test_a_lease_of_an_earlier_version_has_the_usual_term(group: zarr.Group) -> None:
    take(group, "layer", 0, elsewhere(), TERM)
    name = "runs/lease-layer-0"
    group[name].attrs["lease"] = {"run": "other", "host": "another-machine", "pid": 1, "renewed": 3.0}
    assert read_lease(group, "layer", 0) == Lease(elsewhere(), 3.0, leases.TERM)


def test_renewing_changes_it_in_its_place(group: zarr.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    take(group, "layer", 0, elsewhere(), TERM)
    before = read_lease(group, "layer", 0)
    monkeypatch.setattr(type(group), "create_group", None)  # which removes what is there before it writes
    renew(group, "layer", 0, elsewhere(), TERM)
    after = read_lease(group, "layer", 0)
    assert before is not None
    assert after is not None
    assert after.renewed > before.renewed


def test_who_was_taken_for_dead_does_not_take_it_back(group: zarr.Group) -> None:
    clock, slow, other = Clock(), elsewhere("slow"), elsewhere()
    watch = watch_of(clock)
    take(group, "layer", 0, slow, TERM)
    assert watch.held(group, 0)
    clock.now += TERM
    assert not watch.held(group, 0)
    assert take(group, "layer", 0, other, TERM)
    renew(group, "layer", 0, slow, TERM)
    lease = read_lease(group, "layer", 0)
    assert lease is not None
    assert lease.is_of(other)


def test_a_holder_of_this_machine_that_has_ended_holds_nothing(group: zarr.Group) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    take(group, "layer", 0, Holder("dead", socket.gethostname(), ended.pid), TERM)
    watch = watch_of(Clock())
    assert not watch.held(group, 0)
    take(group, "layer", 0, Holder("dead", socket.gethostname(), ended.pid), TERM)
    assert take(group, "layer", 0, Holder.new(), TERM)
    take(group, "layer", 1, Holder("alive", socket.gethostname(), os.getpid()), TERM)
    assert not take(group, "layer", 1, Holder.new(), TERM)
    assert watch.held(group, 1)


def test_giving_back_what_nobody_has_is_nothing(group: zarr.Group) -> None:
    release(group, "layer", 7, Holder.new())
    assert read_lease(group, "layer", 7) is None


def test_what_another_run_has_taken_over_is_not_given_back(group: zarr.Group) -> None:
    slow = Holder.new()
    assert take(group, "layer", 0, slow, TERM)
    release(group, "layer", 0, slow)
    assert take(group, "layer", 0, elsewhere(), TERM)
    release(group, "layer", 0, slow)
    lease = read_lease(group, "layer", 0)
    assert lease is not None
    assert lease.is_of(elsewhere())


def test_leases_leave_nothing_behind(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "atlas"), "atlas", "a")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    mine = Holder.new()
    take(group, "layer", 0, mine, TERM)
    release(group, "layer", 0, mine)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_layer_whose_name_is_as_long_as_can_be_has_leases(group: zarr.Group) -> None:
    """A file system takes 255 bytes, and the path of targets has a variant beside the layer."""
    first, second = (f"targets/{placed(letter * MOST_BYTES)}/patch-lrp-restricted" for letter in "ab")
    assert take(group, first, 3, elsewhere(), TERM)
    assert take(group, second, 3, Holder.new(), TERM)
    assert not take(group, first, 3, Holder.new(), TERM)
    found = read_lease(group, first, 3)
    assert found is not None
    assert found.holder == elsewhere()
    release(group, first, 3, elsewhere())
    assert read_lease(group, first, 3) is None
