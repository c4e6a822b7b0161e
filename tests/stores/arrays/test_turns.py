"""Turns: one run at a time changes a store as a whole, whoever asks when."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import zarr

from stores.arrays import turns
from stores.arrays.leases import Holder, Watch, take
from stores.arrays.opening import open_store
from stores.arrays.turns import Turn

TERM = 60.0


class Asking:
    """Two runs on other machines, the first with the smaller number, and the store at which they ask."""

    def __init__(self, folder: Path) -> None:
        self.group: zarr.Group = open_store(str(folder / "s"), "statistics", "a")
        self.url = str(folder / "s")
        self.first, self.second = (Turn(self.url, Holder(run, "another-machine", 1), TERM) for run in ("a", "b"))


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_a_turn_is_waited_for_until_it_ends(asking: Asking, order: tuple[str, str]) -> None:
    one, other = (getattr(asking, name) for name in order)
    assert one.ask(asking.group) is None
    for _ in range(2):
        assert other.ask(asking.group) == one.holder
    one.renew(asking.group)
    assert other.ask(asking.group) == one.holder
    one.end(asking.group)
    assert other.ask(asking.group) is None
    assert one.ask(asking.group) == other.holder
    other.end(asking.group)
    assert one.ask(asking.group) is None


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
@pytest.mark.parametrize("before", [False, True])
def test_a_turn_is_never_that_of_two(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str], before: bool
) -> None:
    """The other asks while one does, before or after it has said so."""
    one, other = (getattr(asking, name) for name in order)
    theirs: list[Turn] = []

    def ask(turn: Turn) -> None:
        if turn not in theirs and turn.ask(asking.group) is None:
            theirs.append(turn)

    def meanwhile(*asked: Any) -> bool:
        monkeypatch.setattr(turns, "take", take)
        if before:
            ask(other)
        took = take(*asked)
        if not before:
            ask(other)
        return took

    monkeypatch.setattr(turns, "take", meanwhile)
    ask(one)
    for _ in range(3):  # who has none asks again
        ask(one)
        ask(other)
    assert len(theirs) == 1


def test_a_run_that_is_seen_to_have_ended_is_not_waited_for(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Holder.new()
    gone = Holder("0", here.host, here.pid)
    assert Turn(asking.url, gone, TERM).ask(asking.group) is None
    assert asking.first.ask(asking.group) == gone
    monkeypatch.setattr("stores.arrays.leases._running", lambda pid: pid != os.getpid())
    assert asking.first.ask(asking.group) is None


def test_tasks_that_work_on_blocks_are_told_apart_from_runs_that_ask(asking: Asking) -> None:
    watch = Watch(asking.url, "", Holder.new())
    assert asking.first.ask(asking.group) is None
    assert turns.at_work(watch, asking.group) is None
    assert take(asking.group, "targets/layer/variant", 3, asking.second.holder, TERM)
    assert turns.at_work(watch, asking.group) == asking.second.holder
