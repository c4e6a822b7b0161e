"""How images reach the network: several decoders, batches that do not fit, and a decoder on a GPU, which here is a
twin of it on the processor."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from flows.jobs import Running
from flows.recipes.references import select_references
from flows.running import process
from flows.running.process import LoadedModel, load
from flows.steps.reading import feeding
from flows.steps.reading.feeding import BATCH, BATCH_ON_GPU, Feed
from flows.steps.reading.labels import BY_NUMBER
from flows.steps.reading.shards import Partial, scan_shards
from stores.errors import ForeignStore, MissingShard, Status, UnreadableImage
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile, expand
from stores.shards.reading import ShardReader
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, references_job
from vital.errors import DoesNotFit, UnsuitableInput
from vital.measuring.gathering import LOWEST, Batch, Gathering, Plan
from vital.network.probe import CLASSES
from vital.settings import StatisticsSettings

PLAN = Plan((LAYER, CLASSES), ("1",), 3, 16)


@pytest.fixture(scope="module")
def here() -> LoadedModel:
    return load(MODEL, Running(device="cpu"))


def inked() -> bytes:
    """A JPEG of cyan, magenta, yellow and black."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(tiny.jpeg(77))).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(tiny.jpeg(78))).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ShardFile:
    """A shard of everything: images, a broken one, one that is too long, other formats, labels right and wrong."""
    members: dict[str, bytes] = {}
    for number in range(25):
        members |= {f"a{number:02d}.jpg": tiny.jpeg(number), f"a{number:02d}.cls": str(number % 3).encode()}
    members["a04.jpg"] = tiny.jpeg(4)[:-300]
    members["a05.jpg"] = tiny.jpeg(5, (1100, 10))
    members["a06.jpg"] = inked()
    members["a07.cls"] = b"999"
    members["a08.cls"] = b"a cat"
    members |= {"b.png": png(), "c.txt": b"no image", "d.jpg": b"no image either", "e.jpg": tiny.jpeg(30)}
    folder = tmp_path_factory.mktemp("mixed")
    tiny.write_tar(folder / "mixed.tar", members)
    [shard] = expand((str(folder),))
    return shard


def assert_same(one: Partial, other: Partial) -> None:
    for mine, theirs in (
        (one.gathered.arrays(), other.gathered.arrays()),
        (one.samples.columns(), other.samples.columns()),
        (one.shards.columns(), other.shards.columns()),
    ):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_several_decoders_give_the_partial_of_one(here: LoadedModel, mixed: ShardFile) -> None:
    one = scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=7, decoders=1))
    for decoders in (2, 5):
        assert_same(scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=7, decoders=decoders)), one)
    status = dict(zip(one.samples.key.tolist(), one.samples.status.tolist(), strict=True))
    found = {key: Status(value) for key, value in status.items() if value != Status.OK}
    assert found == {
        "a04": Status.UNDECODABLE, "a05": Status.TOO_LARGE, "a07": Status.FOREIGN_LABEL, "a08": Status.WRONG_LABEL,
        "c": Status.NO_IMAGE, "d": Status.UNDECODABLE,
    }  # fmt: skip
    assert one.gathered.image_sums.count == len(status) - len(found) + 1
    samples = list(ShardReader(mixed))
    assert [sample.key for sample in samples] == list(status)
    for sample in samples:
        if status[sample.key] == Status.UNDECODABLE:
            with pytest.raises(UnreadableImage):
                decode(sample.image or b"")
        elif sample.image:
            decode(sample.image)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Memory for so many images; gives the sizes of the batches that were tried."""

    def make(images: int) -> list[int]:
        tried: list[int] = []
        real = Gathering.add

        def add(self: Gathering, batch: Batch) -> None:
            tried.append(len(batch.pixels))
            if len(batch.pixels) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            real(self, batch)

        monkeypatch.setattr(Gathering, "add", add)
        monkeypatch.setattr("flows.steps.reading.shards._fitting", {})
        return tried

    return make


def test_a_batch_that_does_not_fit_is_halved_and_later_shards_begin_with_as_few(
    here: LoadedModel, mixed: ShardFile, room: Callable[[int], list[int]]
) -> None:
    expected = scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=6))
    tried = room(6)
    assert_same(scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=24)), expected)
    assert tried[:3] == [24, 12, 6]
    tried.clear()
    assert_same(scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=24)), expected)
    assert max(tried) == 6


def test_one_image_that_does_not_fit_and_a_fixed_batch_end_the_run(
    here: LoadedModel, mixed: ShardFile, room: Callable[[int], list[int]]
) -> None:
    room(0)
    with pytest.raises(DoesNotFit, match=r"8 images together do not fit .*give --batch 4"):
        scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=8, fixed=True))
    with pytest.raises(DoesNotFit, match="one image does not fit into memory"):
        scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=8))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[ShardFile]:
    """Three shards, the second without a usable image."""
    folder = tmp_path_factory.mktemp("several")
    for shard, images in ((0, range(5)), (2, range(5, 12))):
        members = {f"{shard}{number:02d}.jpg": tiny.jpeg(number) for number in images}
        tiny.write_tar(folder / f"{shard}.tar", members)
    tiny.write_tar(folder / "1.tar", {"1a.jpg": b"no image", "1b.jpg": tiny.jpeg(4)[:40]})
    return expand((str(folder),))


def test_shards_together_add_what_they_add_one_by_one(here: LoadedModel, several: list[ShardFile]) -> None:
    sums = Plan((LAYER, f"{LAYER}{LOWEST}", CLASSES), ("1",), 3, 16, sample=4)
    whole = scan_shards(several, here, sums, BY_NUMBER, Feed(batch=3, decoders=2))
    total, images = None, 0
    for shard in several:
        part = scan_shards([shard], here, sums, BY_NUMBER, Feed(batch=3))
        moved = part.gathered.shifted(images)
        total, images = moved if total is None else total + moved, images + len(part.samples)
    assert total is not None
    for name, values in total.arrays().items():
        np.testing.assert_array_equal(whole.gathered.arrays()[name], values, err_msg=name)
    assert whole.samples.shard.tolist() == [0] * 5 + [1] * 2 + [2] * 7
    assert (whole.shards.images.tolist(), whole.shards.rejected.tolist()) == ([5, 2, 7], [0, 2, 0])
    assert whole.shards.name.tolist() == [shard.name for shard in several]


def test_the_next_shard_is_decoded_before_the_last_batch_of_the_one_before_is_done(
    here: LoadedModel, several: list[ShardFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Event()
    first, real_add, real_decode = tiny.jpeg(5), Gathering.add, decode
    added: list[int] = []

    def decoding(data: bytes, **rest: Any) -> np.ndarray:
        if data == first:
            begun.set()
        return real_decode(data, **rest)

    def add(self: Gathering, batch: Batch) -> None:
        added.append(len(batch.pixels))
        if len(added) == 2:  # the last of the first shard
            assert begun.wait(60), "nothing of a later shard is decoded while this one is computed"
        real_add(self, batch)

    monkeypatch.setattr(feeding, "decode", decoding)
    monkeypatch.setattr(Gathering, "add", add)
    scan_shards(several, here, PLAN, BY_NUMBER, Feed(batch=3))
    assert added == [3, 2, 3, 3, 1], "no batch is of two shards"


def test_a_shard_that_is_gone_is_named_though_it_is_read_ahead(here: LoadedModel, several: list[ShardFile]) -> None:
    gone = replace(several[2], url=several[2].url + ".gone", name="2.tar.gone")
    with pytest.raises(MissingShard, match=r"2\.tar\.gone"):
        scan_shards([*several[:2], gone], here, PLAN, BY_NUMBER, Feed(batch=3))


def test_other_errors_of_the_pass_are_not_taken_for_memory(
    here: LoadedModel, mixed: ShardFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Gathering, "add", add)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=8))


def test_a_gpu_s_decoder_gets_what_is_for_it_and_all_else_goes_the_usual_way(
    here: LoadedModel, mixed: ShardFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def twin(device: torch.device) -> Callable[[Sequence[bytes]], list[Tensor]]:
        def decode_all(files: Sequence[bytes]) -> list[Tensor]:
            asked.append(len(files))
            try:
                return [torch.from_numpy(simplejpeg.decode_jpeg(file)).permute(2, 0, 1) for file in files]
            except ValueError as error:
                raise RuntimeError(f"nvjpegDecode failed: {error}") from error

        return decode_all

    monkeypatch.setattr("flows.steps.reading.feeding.jpeg_decoder", twin)
    expected = scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=8))
    assert not asked
    assert_same(scan_shards([mixed], here, PLAN, BY_NUMBER, Feed(batch=8, jpeg="nvjpeg")), expected)
    # The broken one makes its group fail, which is tried one by one; the long one and the inks never come so far.
    assert asked[0] == 6
    assert asked[1:7] == [1] * 6
    assert max(asked) == 8


def test_what_a_gpu_decodes_shares_no_memory_with_what_the_network_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for streams: batches are made on the decoder's, are ready when they are handed over, and their memory
    is kept until the network's stream has read them."""
    calls: list[str] = []
    current = ["network"]

    def stream(name: str) -> Mock:
        """No real one is made without a GPU, by a torch that knows GPUs."""
        made = Mock(spec=torch.cuda.Stream)
        made.name = name
        made.synchronize.side_effect = lambda: calls.append(f"{name} is done")
        return made

    class Pixels:
        def record_stream(self, stream: Mock) -> None:
            calls.append(f"{stream.name} reads")

    @contextmanager
    def on(stream: Mock) -> Iterator[None]:
        current.append(stream.name)
        yield
        current.pop()

    def batches() -> Iterator[tuple[list[object], Pixels]]:
        try:
            for number in range(2):
                calls.append(f"{number} on {current[-1]}")
                yield [], Pixels()
        finally:
            calls.append("closed")

    monkeypatch.setattr(torch.cuda, "stream", on)
    made: Any = feeding._apart
    calls.extend(f"used on {current[-1]}" for _ in made(batches(), stream("decoder"), stream("network")))
    each = ["decoder is done", "network reads", "used on network"]
    assert calls == ["0 on decoder", *each, "1 on decoder", *each, "closed"]


def test_a_decoder_that_does_not_do_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shards(tmp_path / "shards", 1, 3)
    kept = StatisticsSettings(references=2, levels=16, jpeg="nvjpeg")
    job = references_job(tmp_path / "shards", tmp_path / "s.zarr", statistics=kept, running=Running(device="cpu"))
    with pytest.raises(UnsuitableInput, match="nvjpeg decodes on a GPU and the network is on cpu: use --jpeg"):
        select_references(job)
    assert not (tmp_path / "s.zarr").exists()
    usual = references_job(tmp_path / "shards", tmp_path / "s.zarr", running=Running(device="cpu"))
    select_references(usual)
    monkeypatch.setattr("flows.steps.reading.feeding.jpeg_decoder", lambda device: None)
    with pytest.raises(ForeignStore, match="field jpeg = simplejpeg but now it is nvjpeg"):
        select_references(job)


def test_a_task_decodes_with_the_cores_that_its_network_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shards(tmp_path / "shards", 1, 3)
    job = references_job(tmp_path / "shards", tmp_path / "s.zarr", running=Running())
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(process, "cores", lambda: 16)
    monkeypatch.setattr(process, "ALL_THREADS", 16)
    assert Feed.of(job, cpu) == Feed(BATCH, 1)
    assert Feed.of(job, cuda) == Feed(BATCH_ON_GPU, 16)
    few = job.model_copy(update={"running": Running(threads=4)})
    assert (Feed.of(few, cpu).decoders, Feed.of(few, cuda).decoders) == (12, 16)
    monkeypatch.setattr(process, "ALL_THREADS", 6)
    assert Feed.of(job, cpu).decoders == 10
    told = job.model_copy(update={"batch": 9, "running": Running(decoders=3, deterministic=True)})
    assert Feed.of(told, cpu) == Feed(9, 3, fixed=True)
