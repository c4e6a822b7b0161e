"""Two runs on one store at the same moment: neither shortens, doubles or outdates what the other writes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows.recipes import references as flow
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.dataset import claim_statistics
from flows.steps.reading import turns
from flows.steps.reading.extension import extend
from flows.steps.reading.merging import merge_partials
from stores import Targets, open_statistics
from stores.arrays.blocks import DONE
from stores.arrays.leases import Holder, release, take
from stores.arrays.opening import open_store
from stores.errors import ForeignStore, SchemaMismatch
from tests.flows import tiny
from tests.flows.conftest import LAYER, references_job, targets_job
from tests.flows.recipes.test_pipeline import digests

pytestmark = pytest.mark.slow

OTHER = Holder("other", "another-machine", 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three shards, and the first of them by itself."""
    folder = tmp_path_factory.mktemp("shards")
    every, old = folder / "all", folder / "old"
    tiny.shards(every, 3)
    old.mkdir()
    shutil.copy(every / "tiny-000000.tar", old)
    return every, old


def select(shards: Path, store: Path, **changes: Any) -> None:
    select_references(references_job(shards, store, **{"layers": (LAYER,), **changes}))


def of_all(store: Path) -> dict[str, str]:
    """What does not say where shards lay."""
    return {path: digest for path, digest in digests(store).items() if path != "shards/url/c/0"}


class Beside:
    """A second run that begins when the first one has its turn, and of which the first waits to hear that it waits."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._waits, self.errors = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, args=(run,))

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._waits.set()

    def begins(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def work(*given: Any) -> Any:
            if self._thread.ident is None:
                self._thread.start()
                assert self._waits.wait(120)
            return real(*given)

        return work

    def sleep(self, seconds: float) -> None:
        """What the product does between two looks."""
        self._waits.set()
        threading.Event().wait(min(seconds, 0.01))

    def end(self) -> None:
        self._thread.join(120)


def test_two_first_runs_that_merge_at_once_write_what_one_writes(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, merged = tmp_path / "s.zarr", list[int]()
    beside = Beside(lambda: select(folders[0], store))

    def merge(*given: Any) -> None:
        merged.append(given[0].shard_count())
        merge_partials(*given)

    monkeypatch.setattr(flow, "merge_partials", beside.begins(merge))
    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=beside.sleep))
    select(folders[0], store)
    beside.end()
    assert not beside.errors
    assert merged == [0], "the second finds that nothing is left to do"
    assert "writes into" in capsys.readouterr().err
    monkeypatch.undo()
    select(folders[0], tmp_path / "alone.zarr")
    assert of_all(store) == of_all(tmp_path / "alone.zarr")
    assert not list((store / "runs").glob("lease-*"))


def test_what_a_new_store_is_made_from_is_written_by_one_run_at_a_time(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attributes are written together: another run that began as early would take away those that it has not seen."""
    store, order = tmp_path / "s.zarr", list[str]()
    beside = Beside(lambda: select(folders[1], store))

    def claim(*given: Any) -> Any:
        order.append("begun")
        claimed = claim_statistics(*given)
        order.append("claimed")
        return claimed

    monkeypatch.setattr(flow, "claim_statistics", beside.begins(claim))
    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=beside.sleep))
    select(folders[1], store)
    beside.end()
    assert not beside.errors
    assert order == ["begun", "claimed"] * 2
    assert open_statistics(str(store)).labels


def test_a_first_run_over_other_shards_at_once_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had begun when the store was empty, and would mark its numbers as those of the other's shards."""
    store = tmp_path / "s.zarr"
    beside = Beside(lambda: select(folders[1], store))
    monkeypatch.setattr(flow, "merge_partials", beside.begins(merge_partials))
    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=beside.sleep))
    select(folders[0], store)
    beside.end()
    assert [type(error) for error in beside.errors] in ([ForeignStore], [SchemaMismatch])
    assert open_statistics(str(store)).shard_count() == 3


def test_two_runs_that_extend_at_once_add_new_shards_once(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    select(folders[1], store)
    beside = Beside(lambda: select(folders[0], store, extend=True))
    monkeypatch.setattr(flow, "extend", beside.begins(extend))
    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=beside.sleep))
    select(folders[0], store, extend=True)
    beside.end()
    assert not beside.errors
    monkeypatch.undo()
    select(folders[0], tmp_path / "whole.zarr")
    assert of_all(store) == of_all(tmp_path / "whole.zarr")


def test_layers_that_another_run_has_brought_meanwhile_are_not_left_behind(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scanned = tmp_path / "s.zarr", flow.gathered
    select(folders[1], store)

    def meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(flow, "gathered", scanned)
        select(folders[1], store, layers=("1",))
        return scanned(*given)

    monkeypatch.setattr(flow, "gathered", meanwhile)
    with pytest.raises(SchemaMismatch, match=r"another run has brought 1 to the store.*run the same command again"):
        select(folders[0], store, extend=True)
    select(folders[0], store, extend=True)
    assert {LAYER, "1"} <= set(open_statistics(str(store)).measured())


def test_an_extension_waits_for_a_task_that_measures_old_references(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task of another run says that its block is done when it has ended; that is not to stay."""
    store = tmp_path / "s.zarr"
    select(folders[1], store)
    label = measure_targets(targets_job(store))
    group = open_store(str(store), "statistics", "r+")
    targets = Targets.of(group, LAYER, label)
    before = open_statistics(str(store)).references(LAYER).image
    assert take(group, targets.path, 0, OTHER, 60.0)

    def ends(_: float) -> None:
        targets.array(DONE)[0] = 1
        release(group, targets.path, 0, OTHER)

    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=ends))
    select(folders[0], store, extend=True)
    said = capsys.readouterr().err
    assert said.count("another run (process 1 of another-machine) measures targets in") == 1
    after = open_statistics(str(store)).references(LAYER).image
    assert not np.array_equal(before[:32], after[:32])
    assert not targets.done([0])
