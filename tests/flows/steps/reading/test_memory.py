"""Freed memory goes back to the system after every shard."""

from __future__ import annotations

import pytest

from flows.jobs import Running
from flows.running.process import load
from flows.steps.reading.labels import BY_NUMBER
from flows.steps.reading.shards import scan_shards
from stores.shards.finding import expand
from tests.flows.conftest import LAYER, MODEL, Made
from vital.measuring.gathering import Plan

pytestmark = pytest.mark.slow


def test_it_does_so_after_every_shard(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("flows.steps.reading.shards.give_back", lambda: given.append("back"))
    shards = expand([str(made.shards)])
    scan_shards(shards, load(MODEL, Running()), Plan((LAYER,), (), 2, 16), BY_NUMBER)
    assert len(given) == len(shards)
