"""References read again: how many requests a run of targets makes for its shards, counted at the file system."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from flows.jobs import Running
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running.process import load_stored
from flows.steps import targets as steps
from flows.steps.images import StoredImages, load_images, moved_urls, read_placed
from flows.steps.targets import declare_targets, measuring, moved_of_tasks
from flows.steps.targets.graded import draws_of, learnt_from
from stores import Statistics, open_statistics
from stores.errors import MissingShard, UnreadableShard
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import GAP, read_spans
from tests.flows import tiny
from tests.flows.conftest import LAYER, VARIANT, Made, references_job, targets_job
from tests.flows.recipes.test_pipeline import digests
from vital.errors import DoesNotFit
from vital.measuring.targets import measure

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:UPath 'tallied' filesystem:UserWarning")]

SHARDS, IMAGES = 6, 5


class Counted(MemoryFileSystem):  # type: ignore[misc]
    """A service that counts what it is asked for, of a protocol that no benchmark in the same process has."""

    protocol = "tallied"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    asked: ClassVar[Counter[str]] = Counter()
    read = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("tallied://").strip("/")

    @classmethod
    def forget(cls) -> None:
        """Begin to count anew."""
        cls.asked.clear()
        Counted.read = 0

    def info(self, path: str, **options: Any) -> Any:
        """Asked for a size."""
        self.asked["info"] += 1
        return super().info(path, **options)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """Asked for a listing."""
        self.asked["ls"] += 1
        return super().ls(path, detail, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        """Asked for some bytes."""
        self.asked["range"] += 1
        data = super().cat_file(path, start, end, **options)
        Counted.read += len(data)
        return data


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Shards on a disk and the same at a service; the folder of the store to be, and the shards' pattern there."""
    fsspec.register_implementation("tallied", Counted, clobber=True)
    system = fsspec.filesystem("tallied")
    for path in tiny.shards(tmp_path / "shards", SHARDS, IMAGES):
        system.pipe_file(f"/moved/{path.name}", path.read_bytes())
    Counted.forget()
    yield tmp_path, f"tallied://moved/tiny-{{000000..{SHARDS - 1:06d}}}.tar"
    system.store.clear()
    Counted.forget()


def test_a_run_asks_for_each_shard_once_and_for_neighbours_together(service: tuple[Path, str]) -> None:
    """Two tasks: each used to expand every shard again, by two requests, and to ask for every image by itself."""
    folder, pattern = service
    here, there = folder / "here.zarr", folder / "there.zarr"
    select_references(references_job(folder / "shards", here, layers=(LAYER,)))
    shutil.copytree(here, there)
    measure_targets(targets_job(here))
    Counted.forget()
    measure_targets(targets_job(there, shards=(pattern,)))
    assert Counted.asked["info"] == SHARDS  # not 2 · SHARDS in the run and in each of its tasks
    assert Counted.asked["ls"] == 0
    statistics = open_statistics(str(here))
    references = statistics.references(LAYER)
    blocks = [np.unique(references.image[rows][references.image[rows] >= 0]) for rows in (slice(32), slice(32, 40))]
    shards = sum(len({image // IMAGES for image in images.tolist()}) for images in blocks)
    assert sum(map(len, blocks)) > Counted.asked["range"]
    assert Counted.asked["range"] <= 2 * shards  # images that more neurons share come first
    wanted = sum(int(statistics.places(images.tolist()).size.sum()) for images in blocks)
    assert wanted <= Counted.read <= wanted + GAP * (sum(map(len, blocks)) - Counted.asked["range"])
    assert digests(there) == digests(here)


def test_a_task_is_told_of_its_own_moved_shards_alone(made: Made, service: tuple[Path, str]) -> None:
    statistics = open_statistics(str(made.store))
    assert moved_urls(statistics, ()) == {}
    assert moved_urls(statistics, (str(made.shards),)) == {}  # where they were
    system = fsspec.filesystem("tallied")
    for path in sorted(made.shards.glob("*.tar")):
        system.pipe_file(f"/whole/{path.name}", path.read_bytes())
    references = statistics.references(LAYER)
    live, tasks = references.live(), [(0,), (1,)]

    def nothing() -> np.ndarray:
        return np.empty(0, np.int64)

    told = moved_of_tasks(statistics, ("tallied://whole/*.tar",), references, live, tasks, nothing)
    for blocks in tasks:
        images = references.image[blocks[0] * 32 : (blocks[0] + 1) * 32]
        names = {f"tiny-{image // 10:06d}.tar" for image in images[images >= 0].tolist()}
        assert told[blocks] == {name: f"tallied:///whole/{name}" for name in names}
    system.pipe_file("/other/tiny-000001.tar", b"0" * 512)
    with pytest.raises(UnreadableShard, match=r"tiny-000001.tar has 512 bytes but the store read"):
        moved_of_tasks(statistics, ("tallied://other/*.tar",), references, live, tasks, nothing)


def test_a_run_that_goes_on_asks_for_no_keys_where_no_shard_moved(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that has nothing to do, whether targets are stored or measured on the fly."""
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    asked: list[int] = []
    real = Statistics.keys

    def counted(self: Statistics, images: Sequence[int]) -> list[str]:
        asked.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Statistics, "keys", counted)
    measure_targets(targets_job(store))
    measure_targets(targets_job(store, shards=(str(made.shards),)))
    statistics = open_statistics(str(store))
    targets, live = statistics.targets(LAYER, "image-lrp"), statistics.references(LAYER).live()
    assert steps.OnTheFly.of_tasks(targets_job(store), statistics, targets, live, []) == {}
    assert asked == []
    told = moved_of_tasks(
        statistics, (str(made.shards),), statistics.references(LAYER), live, [(0,)],
        lambda: steps.images_learnt(statistics, targets),
    )  # fmt: skip
    assert told == {(0,): {}}
    assert asked == []
    assert len(steps.images_learnt(statistics, targets)) >= 8
    assert len(asked) == 1


def test_shards_of_images_that_memory_does_not_hold_are_not_asked_for(
    service: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pattern = service
    store = folder / "stats.zarr"
    select_references(references_job(folder / "shards", store, layers=(LAYER,)))
    job = targets_job(store, variant=VARIANT.model_copy(update={"references": 1}), shards=(pattern,))
    statistics = open_statistics(str(store), "r+")
    targets = declare_targets(statistics, job, load_stored(statistics, Running(threads=1)))
    references, live = statistics.references(LAYER, 1), np.zeros(tiny.CHANNELS, bool)
    live[0] = True

    def named(told: Mapping[str, str]) -> set[int]:
        return {int(name.removesuffix(".tar").rpartition("-")[2]) for name in told}

    def told() -> set[int]:
        learnt = steps.images_learnt(statistics, targets)
        [moved] = moved_of_tasks(statistics, (pattern,), references, live, [(0,)], lambda: learnt).values()
        fly = steps.OnTheFly.of_tasks(job, statistics, targets, live, [(0,)])[0,]
        assert named(fly.urls) == named(moved)
        return named(moved)

    own = int(references.image[0, 0]) // IMAGES
    drawn = learnt_from(statistics, LAYER)
    assert told() == {own, *(drawn // IMAGES).tolist()}
    monkeypatch.setattr("vital.measuring.targets.trends.FEWEST_GRADED", 1)
    monkeypatch.setattr("vital.measuring.targets.trends.MOST_BYTES", 1)
    first = drawn[np.argmin(draws_of(statistics.keys(drawn.tolist())))]
    assert told() == {own, int(first) // IMAGES}
    # of the others none is missed, either
    system = fsspec.filesystem("tallied")
    for gone in set(range(SHARDS)) - {own, int(first) // IMAGES}:
        system.rm(f"/moved/tiny-{gone:06d}.tar")
    here = f"tallied://moved/tiny-{{{own:06d},{int(first) // IMAGES:06d}}}.tar"
    shutil.rmtree(folder / "shards")
    fly = steps.OnTheFly.of_tasks(job.model_copy(update={"shards": (here,)}), statistics, targets, live, [(0,)])
    assert named(fly[0,].urls) == {own, int(first) // IMAGES}


def test_a_task_that_runs_out_of_memory_is_begun_anew_with_half_its_batch(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, batches = tmp_path / "stats.zarr", measure, []
    shutil.copytree(made.store, store)
    targets = open_statistics(str(store), "r+").targets(LAYER, "image-lrp")
    targets.forget([0])

    def with_little_room(*arguments: Any, batch: int, **named: Any) -> Any:
        batches.append(batch)
        found = real(*arguments, batch=batch, **named)  # it has summed some by then
        if batch > 3:
            raise MemoryError("no room")
        return found

    monkeypatch.setattr(measuring, "measure", with_little_room)
    steps.measured_blocks(targets_job(store, batch=12), (0,), {})()
    assert batches == [12, 6, 3]
    again, before = (
        open_statistics(str(url)).targets(LAYER, "image-lrp").rows(range(32)) for url in (store, made.store)
    )
    for name, values in before.items():  # the network's own passes may round otherwise in other batches
        np.testing.assert_allclose(again[name], values, rtol=2e-3, atol=2e-3, err_msg=name)
    np.testing.assert_array_equal(again["count"], before["count"])
    targets.forget([0])
    monkeypatch.setattr(measuring, "measure", lambda *_, **named: (_ for _ in ()).throw(MemoryError("none")))
    with pytest.raises(DoesNotFit, match=r"one reference does not fit into memory \(none\)"):
        steps.measured_blocks(targets_job(store, batch=2), (0,), {})()
    alike = targets_job(store, batch=2, running=Running(deterministic=True))
    with pytest.raises(DoesNotFit, match=r"2 references together do not fit .* give --batch 1"):
        steps.measured_blocks(alike, (0,), {})()


def test_images_come_in_the_order_asked_for_whatever_is_ahead(made: Made) -> None:
    statistics = open_statistics(str(made.store))
    preprocessing = load_stored(statistics, Running(threads=1)).model.preprocessing
    every = dict(load_images(statistics, list(range(20)), preprocessing, {}))
    assert list(every) == list(range(20))
    for image, pixels in every.items():
        assert torch.equal(pixels, preprocessing.crop(decode(tiny.jpeg(image))))
    places = statistics.places(list(range(20)))
    order = np.random.default_rng(0).permutation(20).tolist()
    for ahead in (1, 7, 100):
        found = list(read_placed(StoredImages(statistics, preprocessing, {}, ahead=ahead), places, order))
        assert [image for image, _ in found] == order
        assert all(torch.equal(pixels, every[image]) for image, pixels in found)
    begun = read_placed(StoredImages(statistics, preprocessing, {}, ahead=4), places, order)
    next(begun)
    begun.close()  # type: ignore[attr-defined]  # what is under way is given up


def test_a_shard_that_is_gone_or_holds_other_bytes_is_named(made: Made, tmp_path: Path) -> None:
    statistics = open_statistics(str(made.store))
    preprocessing = load_stored(statistics, Running(threads=1)).model.preprocessing
    gone = str(tmp_path / "gone.tar")
    with pytest.raises(MissingShard, match=r"there is no shard at .*gone.tar"):
        list(load_images(statistics, [0, 15], preprocessing, {"tiny-000001.tar": gone}))
    swapped = str(made.shards / "tiny-000000.tar")
    with pytest.raises(UnreadableShard, match=r"holds other bytes than when the store read it \(image image0015"):
        list(load_images(statistics, [0, 15], preprocessing, {"tiny-000001.tar": swapped}))


def test_neighbours_of_many_shards_are_read_together_and_what_lies_apart_is_not(service: tuple[Path, str]) -> None:
    """Of spans in any order, of several files; between two of a request lie at most `GAP` bytes."""
    system = fsspec.filesystem("tallied")
    data = np.random.default_rng(1).integers(0, 256, 3 * GAP, np.uint8).tobytes()
    for name in ("a", "b"):
        system.pipe_file(f"/spans/{name}.tar", data)
    a, b = (f"tallied://spans/{name}.tar" for name in "ab")
    spans = [(a, GAP + 30, 5), (b, 7, 3), (a, 10, 20), (b, 2 * GAP, 50), (a, 0, 10), (a, GAP + 31, 9)]
    Counted.forget()
    assert read_spans(spans) == [data[offset : offset + size] for _, offset, size in spans]
    assert Counted.asked["range"] == 3  # all of a: 30 and GAP + 30 are GAP apart; two of b
    assert Counted.read == GAP + 40 + 3 + 50
    with pytest.raises(UnreadableShard, match=r"a.tar holds 1 of 9 bytes at"):
        read_spans([(a, 0, 1), (a, 3 * GAP - 1, 9)])
    with pytest.raises(MissingShard, match=r"no shard at tallied://spans/none\.tar"):
        read_spans([(a, 0, 1), ("tallied://spans/none.tar", 0, 1)])


def test_a_folder_or_a_pattern_of_a_service_is_one_listing(service: tuple[Path, str]) -> None:
    for pattern in ("tallied://moved", "tallied://moved/*.tar"):
        Counted.forget()
        found = expand([pattern])
        assert [shard.name for shard in found] == [f"tiny-{number:06d}.tar" for number in range(SHARDS)]
        assert all(shard.size > 0 for shard in found)
        assert sum(Counted.asked.values()) <= 4  # whatever the number of shards
