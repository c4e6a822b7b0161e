"""New shards added to a store, other bytes under a known name, and settings that differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.reading.extension import PENDING
from stores import Targets, open_statistics
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.dataset.index import read_index, read_shards
from stores.dataset.kept.references import read_references, write_references
from stores.dataset.layers import write_layer
from stores.errors import ForeignStore, MissingStore, SchemaMismatch, Status, UnreadableShard
from stores.files import read_arrays
from tests.flows import tiny
from tests.flows.conftest import LAYER, Made, references_job, targets_job
from tests.flows.recipes.test_pipeline import digests, oracle_activations
from vital.measuring.kept.sampling import unit_hash
from vital.settings import StatisticsSettings

pytestmark = pytest.mark.slow

KEPT = StatisticsSettings(references=3, levels=16, lowest=True, queries=2, sample=12)


class Grown:
    """Three shards, of which the first two lie in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.all, self.old, self.store = folder / "all", folder / "old", folder / "stats.zarr"
        tiny.shards(self.all, 3)
        self.old.mkdir()
        for number in range(2):
            shutil.copy(self.all / f"tiny-00000{number}.tar", self.old)


@pytest.fixture
def grown(tmp_path: Path) -> Grown:
    return Grown(tmp_path)


def select(shards: Path, store: Path, **changes: object) -> None:
    select_references(references_job(shards, store, statistics=KEPT, **changes))


def places(store: Path) -> dict[str, str]:
    return {path: digest for path, digest in digests(store).items() if path != "shards/url/c/0"}


def test_an_extended_store_has_the_bytes_of_one_made_from_all_shards(grown: Grown, tmp_path: Path) -> None:
    select(grown.old, grown.store)
    before = digests(grown.store)
    with pytest.raises(SchemaMismatch, match=r"made from 2 shards and 3 are given: add --extend .*tiny-000002.tar"):
        select(grown.all, grown.store)
    assert digests(grown.store) == before
    for number in range(2):  # what is not read again may not even be a tar
        name = f"tiny-00000{number}.tar"
        (grown.old / name).write_bytes(b"x" * (grown.all / name).stat().st_size)
    shutil.copy(grown.all / "tiny-000002.tar", grown.old)
    select(grown.old, grown.store, extend=True)
    select(grown.all, tmp_path / "whole.zarr")
    assert places(grown.store) == places(tmp_path / "whole.zarr")
    assert read_shards(open_store(str(grown.store), "statistics", "r")).images.tolist() == [10, 10, 10]
    statistics = open_statistics(str(grown.store))
    drawn = sorted(range(30), key=lambda image: unit_hash(statistics.keys([image])[0]))[:12]
    for layer in (LAYER, "classes"):
        assert statistics.sample(layer).image.tolist() == sorted(drawn)
        chosen = statistics.references(layer).image, statistics.queries(layer).image
        assert not any(set(one) & set(other) - {-1} for one, other in zip(*chosen, strict=True))
    select(grown.old, grown.store, extend=True)
    assert places(grown.store) == places(tmp_path / "whole.zarr")


def test_an_extension_that_was_killed_while_it_wrote_is_finished(
    grown: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(grown.old, grown.store)
    select(grown.all, tmp_path / "whole.zarr")
    written: list[str] = []

    def dying(after: int, real: Callable[..., None]) -> Callable[..., None]:
        def write(group: object, name: str, *rest: object) -> None:
            if len(written) == after:
                raise KeyboardInterrupt
            written.append(name)
            real(group, name, *rest)

        return write

    layers, references = write_layer, write_references
    for after in (0, 2, 5):
        store = tmp_path / f"{after}.zarr"
        shutil.copytree(grown.store, store)
        written.clear()
        monkeypatch.setattr("stores.dataset.store.write_layer", dying(after, layers))
        monkeypatch.setattr("stores.dataset.kept.neurons.write_references", dying(after, references))
        with pytest.raises(KeyboardInterrupt):
            select(grown.all, store, extend=True)
        monkeypatch.undo()
        with pytest.raises(SchemaMismatch, match="vital references"):
            measure_targets(targets_job(store))
        select(grown.all, store, extend=True)
        assert places(store) == places(tmp_path / "whole.zarr")
        assert read_arrays(str(store), PENDING) is None


def test_an_extension_that_was_killed_is_finished_without_the_directions_that_the_store_keeps(
    grown: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directions, layer = tmp_path / "concepts.npy", f"{LAYER}~concepts"
    np.save(directions, np.eye(2, tiny.CHANNELS))
    select(grown.old, grown.store, layers=(layer,), directions=(str(directions),))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stores.dataset.store.write_layer", killed)
    with pytest.raises(KeyboardInterrupt):
        select(grown.all, grown.store, layers=(LAYER,), extend=True)
    monkeypatch.undo()
    select(grown.all, grown.store, layers=(LAYER,), extend=True)
    assert open_statistics(str(grown.store)).ranked().keys() == {LAYER, f"{LAYER}/lowest", layer, f"{layer}/lowest"}


def test_a_new_shard_that_sorts_before_the_old_is_refused(grown: Grown) -> None:
    select(grown.old, grown.store)
    shutil.copy(grown.all / "tiny-000002.tar", grown.old / "tiny-000000a.tar")
    before = digests(grown.store)
    for extend in (False, True):
        with pytest.raises(ForeignStore, match=r"tiny-000000a.tar sorts before tiny-000001.tar.*come last"):
            select(grown.old, grown.store, extend=extend)
    assert digests(grown.store) == before


def test_targets_of_neurons_whose_references_changed_are_measured_again(grown: Grown, tmp_path: Path) -> None:
    select(grown.old, grown.store)
    label = measure_targets(targets_job(grown.store))
    select(grown.all, grown.store, extend=True)
    group = open_store(str(grown.store), "statistics", "r")
    assert not Targets.of(group, LAYER, label).done().all()
    measure_targets(targets_job(grown.store))
    select(grown.all, tmp_path / "whole.zarr")
    measure_targets(targets_job(tmp_path / "whole.zarr"))
    assert places(grown.store) == places(tmp_path / "whole.zarr")


def change_last_byte(shard: Path, image: int) -> None:
    """Another byte in the image, where a decoder does not mind."""
    data, jpeg = bytearray(shard.read_bytes()), tiny.jpeg(image)
    end = data.index(jpeg) + len(jpeg)
    data[end - 1] ^= 1
    shard.write_bytes(data)


def test_a_shard_of_equal_name_and_size_but_other_bytes_is_refused(made: Made, tmp_path: Path) -> None:
    store, moved = tmp_path / "stats.zarr", tmp_path / "moved"
    shutil.copytree(made.shards, moved)
    select_references(references_job(made.shards, store, layers=(LAYER,)))
    before = digests(store)
    for image in range(10, 20):
        change_last_byte(moved / "tiny-000001.tar", image)
    with pytest.raises(UnreadableShard, match=r"tiny-000001.tar holds other bytes than when the store read it"):
        select_references(references_job(moved, store, layers=("1",)))
    assert digests(store) == before
    with pytest.raises(UnreadableShard, match=r"tiny-000001.tar at .*moved.* holds other bytes"):
        measure_targets(targets_job(store, shards=(str(moved),)))
    (moved / "tiny-000001.tar").write_bytes(b"short")
    with pytest.raises(UnreadableShard, match=r"has 5 bytes but the store read \d+ under this name"):
        measure_targets(targets_job(store, shards=(str(moved),)))


def test_a_misspelt_store_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingStore):
        measure_targets(targets_job(tmp_path / "typo.zarr"))
    assert not (tmp_path / "typo.zarr").exists()


def test_other_settings_are_refused_by_name_even_after_a_killed_run(made: Made, tmp_path: Path) -> None:
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    job = targets_job(store)
    other = job.model_copy(update={"variant": job.variant.model_copy(update={"nodes": ("1",)})})
    with pytest.raises(ForeignStore, match=r"variant field nodes = \[\"input\",\"0\",\"1\"\] but now .*\"1\"\]"):
        measure_targets(other)
    group = open_store(str(store), "statistics", "a")
    del group.attrs[f"references/{LAYER}"]  # as if killed before the last write
    statistics = StatisticsSettings(references=5, levels=16)
    with pytest.raises(SchemaMismatch, match="keeps 3 references of layer '2' and 5 were asked for"):
        select_references(references_job(made.shards, store, statistics=statistics))


def test_the_lowest_are_the_most_negative_images(made: Made, tmp_path: Path) -> None:
    """The layer ends in a ReLU, so the convolution inside it is asked."""
    store, layer = tmp_path / "stats.zarr", f"{LAYER}.0"
    select(made.shards, store, layers=(layer, "classes"))
    group = open_store(str(store), "statistics", "r")
    found, best = read_references(group, f"{layer}/lowest"), read_references(group, layer)
    assert (np.diff(found.score, axis=1) >= 0).all()
    assert (found.score[:, 0] < best.score[:, 0]).all()
    assert found.score.min() < 0
    np.testing.assert_allclose(found.score[:, 0], np.asarray(array_at(group, f"layers/{layer}/minimum")[:]), rtol=1e-6)
    assert oracle_activations().min() == 0
    assert "references/classes/lowest" not in group


def test_labels_beyond_the_classes_are_counted_and_the_images_used(tmp_path: Path) -> None:
    members = {"a.jpg": tiny.jpeg(1), "a.cls": b"4", "b.jpg": tiny.jpeg(2), "b.cls": b"5"}
    tiny.write_tar(tmp_path / "shards" / "a.tar", members)
    select_references(references_job(tmp_path / "shards", tmp_path / "s.zarr"))
    group = open_store(str(tmp_path / "s.zarr"), "statistics", "r")
    assert read_index(group).status.tolist() == [Status.OK, Status.FOREIGN_LABEL]
    assert read_shards(group).rejected.tolist() == [0]
    assert array_at(group, f"layers/{LAYER}/sums/count")[...] == 2
    classes = read_references(group, "classes")
    assert (classes.image == 0).sum() == 1
    assert (classes.image == 1).sum() == 0


def test_an_empty_rank_has_no_site_and_a_single_site_sees_the_whole_image(made: Made, tmp_path: Path) -> None:
    tiny.write_tar(tmp_path / "shards" / "a.tar", {"a.jpg": tiny.jpeg(1)})
    select_references(references_job(tmp_path / "shards", tmp_path / "s.zarr", layers=(LAYER, "3")))
    group = open_store(str(tmp_path / "s.zarr"), "statistics", "r")
    found = read_references(group, LAYER)
    assert (found.image[:, 1:] == -1).all()
    assert (found.site[:, 1:] == -1).all()
    assert (found.site[:, 0] >= 0).all()
    assert (read_references(group, "3").box[:, 0] == [0, 0, tiny.SIDE, tiny.SIDE]).all()


def test_the_score_of_class_references_says_what_it_is(made: Made) -> None:
    group = open_store(str(made.store), "statistics", "r")
    assert "drawn from the image's key" in str(array_at(group, "references/classes/score").attrs["meaning"])
    assert "activation" in str(array_at(group, f"references/{LAYER}/score").attrs["meaning"])
