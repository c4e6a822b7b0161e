"""What goes wrong around a run, for real: nothing written is lost or half visible, a restart does what is missing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from flows.jobs import AtlasJob, Running
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import AtlasLayer
from stores.arrays.opening import open_store
from stores.errors import StoreError
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, Made, atlas_job, references_job, targets_job
from tests.flows.processes import Gate, Run, ended, goes_on, killed, one_sentence, scheduler, vital_run, worker
from tests.flows.recipes.test_pipeline import digests
from tests.object_storage import bucket

pytestmark = pytest.mark.slow

BLOCKS = 2


def job_of(made: Made, atlas: Path, **running: object) -> AtlasJob:
    return atlas_job(made.store, atlas, running=Running.model_validate({"threads": 1, **running}))


def bytes_of(atlas: Path) -> dict[str, str]:
    """Everything but the leases and where the statistics lie."""
    return {name: found for name, found in digests(atlas).items() if name != "zarr.json"}


def blocks_made(atlas: Path) -> list[int]:
    try:
        return [int(block) for block in AtlasLayer(open_store(str(atlas), "atlas", "r"), LAYER).done().nonzero()[0]]
    except StoreError:  # not declared yet
        return []


def until(run: Run, seen: Callable[[], object]) -> None:
    """Wait for a state that the run brings about."""
    try:
        while not seen():
            assert goes_on(run), ended(run)
    except BaseException:
        with killed(run):
            raise


def first_is_done(atlas: Path) -> Path:
    """What is there once the first block is written."""
    return atlas / LAYER / "done" / "c" / "0"


def chunk_times(atlas: Path) -> dict[Path, int]:
    """When each file of pixels was written."""
    return {path: path.stat().st_mtime_ns for path in (atlas / LAYER / "pixels" / "c").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def expected(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    atlas = tmp_path_factory.mktemp("expected") / "atlas.zarr"
    build_atlas(job_of(made, atlas))
    return bytes_of(atlas)


def test_a_scheduler_that_is_killed_ends_the_run_in_one_sentence(
    made: Made, tmp_path: Path, expected: dict[str, str]
) -> None:
    atlas = tmp_path / "atlas.zarr"
    held = Gate(tmp_path, first_is_done(atlas)).environment
    with scheduler(tmp_path) as (process, address), worker(tmp_path, address, "--no-nanny", **held):
        run = vital_run(job_of(made, atlas, scheduler=address), tmp_path)
        until(run, lambda: blocks_made(atlas))
        process.kill()
        code, said = ended(run)
    assert (code, one_sentence(said)) == (1, True), said
    assert address in said
    assert "again" in said
    assert blocks_made(atlas) == [0]
    first = chunk_times(atlas)
    build_atlas(job_of(made, atlas))
    assert {path: time for path, time in chunk_times(atlas).items() if path in first} == first
    assert bytes_of(atlas) == expected


@pytest.fixture(scope="module")
def hungry(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Statistics of a network that can run out of memory."""
    found = Made(tmp_path_factory.mktemp("hungry"))
    model = MODEL.model_copy(update={"name": "tests.flows.tiny:hungry_network"})
    select_references(references_job(made.shards, found.store, model=model, layers=(LAYER,)))
    measure_targets(targets_job(found.store))
    return found


MEBIBYTE = 1 << 20


def test_a_worker_whose_memory_ends_makes_the_same_pictures_in_smaller_batches(hungry: Made, tmp_path: Path) -> None:
    """A real refusal of the allocator: batches of four need 400 MiB where 300 may be added, batches of two fit."""
    atlas, short = tmp_path / "atlas.zarr", {"TINY_HUNGER": str(100 * MEBIBYTE), "TINY_ROOM": str(300 * MEBIBYTE)}
    with scheduler(tmp_path) as (_, address), worker(tmp_path, address, "--no-nanny", **short):
        code, said = ended(
            vital_run(atlas_job(hungry.store, atlas, running=Running(scheduler=address, threads=1)), tmp_path)
        )
    assert code == 0, said
    build_atlas(atlas_job(hungry.store, tmp_path / "whole.zarr", running=Running(threads=1)))
    group, whole = (open_store(str(path), "atlas", "r") for path in (atlas, tmp_path / "whole.zarr"))
    assert AtlasLayer(group, LAYER).made().sum() > tiny.CHANNELS // 2
    np.testing.assert_array_equal(AtlasLayer(group, LAYER).made(), AtlasLayer(whole, LAYER).made())
    mine, other = (AtlasLayer(one, LAYER).rows(range(tiny.CHANNELS))["loss"] for one in (group, whole))
    np.testing.assert_allclose(mine, other, rtol=1e-3)


def test_workers_that_die_of_memory_again_and_again_end_the_run_in_one_sentence(hungry: Made, tmp_path: Path) -> None:
    """The nanny ends a worker at 95 % of its bound and starts another; after as many as Dask allows, four unless it is
    told otherwise, it gives the task up."""
    atlas, greedy = tmp_path / "atlas.zarr", {"TINY_HUNGER": str(1 << 30), "TINY_HOLD": "1"}
    job = atlas_job(hungry.store, atlas, batch=1, running=Running(threads=1))
    told = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with scheduler(tmp_path, **told) as (_, address), worker(tmp_path, address, "--memory-limit", "1GiB", **greedy):
        elsewhere = job.model_copy(update={"running": Running(scheduler=address, threads=1)})
        code, said = ended(vital_run(elsewhere, tmp_path))
    assert (code, one_sentence(said)) == (1, True), said
    assert "2 workers died one after the other" in said
    assert blocks_made(atlas) == []
    assert not chunk_times(atlas)
    build_atlas(job)
    assert blocks_made(atlas) == list(range(BLOCKS))


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory, for which a test needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_in_one_sentence_and_hides_nothing_half_written(
    made: Made, small_disk: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """Full after the first block; when there is room again, the same command makes the rest."""
    atlas = small_disk / "atlas.zarr"
    job, gate = job_of(made, atlas), Gate(tmp_path, first_is_done(atlas))
    run = vital_run(job, tmp_path, **gate.environment)
    until(run, lambda: blocks_made(atlas))
    with pytest.raises(OSError, match="No space left"):
        fill(small_disk / "filler")
    gate.open()
    code, said = ended(run)
    assert (code, one_sentence(said)) == (1, True), said
    assert "No space left on device" in said
    assert str(atlas) in said
    assert blocks_made(atlas) == [0]
    first = chunk_times(atlas)
    (small_disk / "filler").unlink()
    build_atlas(job)
    assert {path: time for path, time in chunk_times(atlas).items() if path in first} == first
    assert bytes_of(atlas) == expected
    assert not [path for path in atlas.rglob("*") if "partial" in path.name], "left-overs of files half written"


class Outage:
    """A proxy before the object store that answers 503 as often as ``left`` says, and counts what it refused. Once
    something was written at ``after``, it answers nothing else."""

    def __init__(self, behind: str) -> None:
        outage = self
        self.refused, self.left, self.after = 0, 0, "/nowhere"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):  # GET, PUT, POST, DELETE and HEAD alike
                    return self._answer
                raise AttributeError(name)

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers: dict[str, str] = {}
                if outage.left:
                    outage.left, outage.refused = outage.left - 1, outage.refused + 1
                    status, content = 503, b"<Error><Code>ServiceUnavailable</Code></Error>"
                else:
                    status, headers, content = self._asked(body)
                    if self.command == "PUT" and self.path.partition("?")[0].endswith(outage.after):
                        outage.left = 1_000_000
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

            def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                connection = HTTPConnection(behind.removeprefix("http://"))
                with closing(connection):
                    connection.request(self.command, self.path, body, dict(self.headers))
                    found = connection.getresponse()
                    return found.status, dict(found.headers), found.read()

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def outage() -> Iterator[Outage]:
    with contextmanager(bucket)():
        proxy = Outage(os.environ["AWS_ENDPOINT_URL"])
        serving = threading.Thread(target=proxy.server.serve_forever)
        serving.start()
        try:
            yield proxy
        finally:
            proxy.server.shutdown()
            proxy.server.server_close()
            serving.join()


def test_a_store_that_answers_errors_for_a_while_costs_time_and_a_lasting_one_the_run(
    made: Made, outage: Outage, tmp_path: Path, expected: dict[str, str]
) -> None:
    """botocore asks again, later and later, AWS_MAX_ATTEMPTS times; then the run ends in one sentence."""
    atlas = "s3://atlas/faults.zarr"
    job = job_of(made, Path("nowhere")).model_copy(update={"out": atlas})
    through = {"AWS_ENDPOINT_URL": outage.url}
    outage.after = f"/{LAYER}/done/c/0"
    code, said = ended(vital_run(job, tmp_path, **through))
    assert (code, one_sentence(said)) == (1, True), said
    assert atlas in said
    assert "run the same command again" in said
    assert outage.refused >= 5
    outage.left, outage.after = 0, "/nowhere"
    assert remote_blocks(atlas) == 1

    outage.refused, outage.left = 0, 4
    code, said = ended(vital_run(job, tmp_path, **through))
    assert code == 0, said
    assert (outage.refused, remote_blocks(atlas)) == (4, BLOCKS)
    filesystem = fsspec.filesystem("s3")
    for name, digest in expected.items():
        assert hashlib.sha256(filesystem.cat(f"{atlas}/{name}")).hexdigest() == digest, name


def remote_blocks(url: str) -> int:
    try:
        return int(AtlasLayer(open_store(url, "atlas", "r"), LAYER).done().sum())
    except StoreError:  # not declared yet
        return 0
