"""A pass of more shards than one task joins, killed with -9 while shards are read and while partials are joined."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.recipes.references import select_references
from flows.steps.reading import merging
from flows.steps.reading.merging import FAN, ROWS, Tree, written_partials
from stores import open_statistics
from tests.flows import tiny
from tests.flows.conftest import LAYER, references_job
from tests.flows.processes import program
from tests.flows.recipes.test_pipeline import digests
from vital.measuring.gathering import Gathered

pytestmark = pytest.mark.slow

SHARDS, BRANCHES = 2 * FAN + 2, 3


def killed_after(job: str, files: int) -> None:
    run = program("tests.flows.dying", job, str(files))
    _, said = run.communicate()
    assert run.returncode == -signal.SIGKILL, said[-2000:]


def test_a_run_killed_within_the_tree_loses_only_what_was_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, store = tmp_path / "shards", tmp_path / "store.zarr"
    tiny.shards(shards, SHARDS, images=2)
    job = references_job(shards, store)
    said = job.model_dump_json()

    def written() -> set[str]:
        return written_partials(str(store))

    # A leaf is two files: its rows, then the rest.
    killed_after(said, 2 * 20 + 1)
    whole = [name for name in written() if not name.endswith(ROWS)]
    assert len(whole) == 20
    # 14 leaves more and one branch: had it read anything again, it would be killed before that.
    killed_after(said, 2 * (SHARDS - 20) + 1)
    assert len([name for name in written() if name.endswith(ROWS)]) == SHARDS
    joined, left = SHARDS // BRANCHES, len(written()) - SHARDS
    assert left == SHARDS - joined + 1, "a branch is there, and its parts are gone"
    # What is read and joined is neither read nor joined again.
    monkeypatch.setattr("flows.recipes.references.scan_shards", lambda *arguments: pytest.fail("a shard is read again"))
    joins: list[str] = []

    def noting(url: str, name: str, gathered: Gathered, images: int, write: Any = merging._write) -> None:
        joins.append(name)
        write(url, name, gathered, images)

    monkeypatch.setattr(merging, "_write", noting)
    select_references(job)
    assert len(joins) == BRANCHES - 1
    assert written() == set()
    monkeypatch.undo()
    # The same bytes as of one task that reads all shards, one after the other.
    monkeypatch.setattr(Tree, "of", partial(Tree.of, tasks=1))
    select_references(references_job(shards, tmp_path / "whole.zarr"))
    assert digests(store) == digests(tmp_path / "whole.zarr")
    assert open_statistics(str(store)).image_count() == 2 * SHARDS
    assert LAYER in open_statistics(str(store)).ranked()
