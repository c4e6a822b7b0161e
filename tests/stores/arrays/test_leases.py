"""Leases: whose work it is, for as long as it lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from stores.arrays.leases import Holder, read_lease, release, renew, take
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


def test_a_lease_that_is_not_renewed_ends_with_its_term(group: zarr.Group) -> None:
    assert take(group, "layer", 0, elsewhere(), TERM)
    lease = read_lease(group, "layer", 0)
    assert lease is not None
    assert lease.alive(TERM)
    assert not lease.alive(0.0)
    assert take(group, "layer", 0, Holder.new(), 0.0)


def test_renewing_makes_it_younger(group: zarr.Group) -> None:
    take(group, "layer", 0, elsewhere(), TERM)
    before = read_lease(group, "layer", 0)
    renew(group, "layer", 0, elsewhere())
    after = read_lease(group, "layer", 0)
    assert before is not None
    assert after is not None
    assert after.renewed > before.renewed


def test_a_holder_of_this_machine_that_has_ended_holds_nothing(group: zarr.Group) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    take(group, "layer", 0, Holder("dead", socket.gethostname(), ended.pid), TERM)
    assert take(group, "layer", 0, Holder.new(), TERM)
    take(group, "layer", 1, Holder("alive", socket.gethostname(), os.getpid()), TERM)
    assert not take(group, "layer", 1, Holder.new(), TERM)


def test_giving_back_what_nobody_has_is_nothing(group: zarr.Group) -> None:
    release(group, "layer", 7, Holder.new())
    assert read_lease(group, "layer", 7) is None


def test_what_another_run_has_taken_over_is_not_given_back(group: zarr.Group) -> None:
    slow = Holder.new()
    assert take(group, "layer", 0, slow, TERM)
    assert take(group, "layer", 0, elsewhere(), 0.0)
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
