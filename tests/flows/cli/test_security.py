"""Hostile input through the commands: nothing runs, nothing escapes, no secret stays anywhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import s3fs

from flows.jobs import ReferencesJob
from flows.reports.plan import ReportJob
from stores.files import has_secret
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import LAYER, Made
from tests.flows.running.test_cluster import ROOT
from tests.flows.steps.test_inputs import done, refused
from tests.object_storage import bucket

pytestmark = pytest.mark.slow

MODEL = ("--model", "tests.flows.tiny:network", "--input-size", tiny.SIDE, "--references", 2, "--levels", 16)
SECRET = "hunter2-very-secret"
"""What must be found nowhere."""


class Harmful:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._mark}",)


def hostile_tar(path: Path, mark: Path) -> None:
    """Names that climb, links, devices, pickles, and keys that are markup, among ordinary images."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for number, name in enumerate(
            ("../../../climbs", "/absolute", "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "plain")
        ):
            add(f"{name}.jpg", tiny.jpeg(number))
            add(f"{name}.cls", str(number % 3).encode())
        for kind in ("pkl", "pickle", "pyd", "pth", "npy"):
            add(f"plain.{kind}", pickle.dumps(Harmful(mark)))
        for link, sort in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("device.jpg", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(link)
            info.type, info.linkname = sort, "/etc/passwd"
            tar.addfile(info)


def test_a_hostile_shard_does_nothing_but_be_read(tmp_path: Path) -> None:
    mark, work = tmp_path / "ran", tmp_path / "a" / "b" / "c" / "work"
    hostile_tar(work / "shards" / "hostile-000000.tar", mark)
    store, atlas, pages = work / "stats.zarr", work / "atlas.zarr", work / "pages"
    said = done(vital("references", work / "shards", "--store", store, "--layer", LAYER, "--layer", "classes", *MODEL))
    assert "5 read and used" in said
    for layer, nodes in ((LAYER, ("--node", "0")), ("classes", ("--node", "0"))):
        done(vital("targets", "--store", store, "--layer", layer, *nodes))
        done(vital("atlas", "--store", store, "--layer", layer, "--out", atlas, "--side", 24, "--steps", 1))
    done(vital("pages", atlas, "--out", pages))
    done(vital("export", atlas, "--out", work / "export", "--layer", "classes"))
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and work not in path.parents]
    assert outside == []
    for file in pages.rglob("*"):
        if file.suffix in (".html", ".js"):
            text = file.read_text("utf-8")
            assert "<script>alert" not in text
            assert "<img src=x" not in text
    assert b"root:x:0" not in b"".join(file.read_bytes() for file in work.rglob("*") if file.is_file())


@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle", "numcodecs.json2"])
def test_a_store_that_asks_for_a_pickle_is_refused(made: Made, tmp_path: Path, codec: str) -> None:
    mark = tmp_path / "ran"
    atlas = tmp_path / "atlas.zarr"
    shutil.copytree(made.atlas, atlas)
    meta = atlas / LAYER / "status" / "zarr.json"
    content = json.loads(meta.read_text())
    content["codecs"] = [{"name": codec, "configuration": {}}]
    meta.write_text(json.dumps(content))
    for chunk in (atlas / LAYER / "status" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(pickle.dumps(Harmful(mark)))
    refused(vital("info", atlas), "Error:")
    assert not mark.exists()


def test_weights_that_are_code_are_refused(tmp_path: Path) -> None:
    mark, weights = tmp_path / "ran", tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps(Harmful(mark)))
    said = vital("layers", "resnet18", "--weights", weights)
    refused(said, "not a state dict that can be read safely")
    assert not mark.exists()


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@host/a.tar",
        f"https://host/a.tar?X-Amz-Credential=x&X-Amz-Signature={SECRET}",
        f"s3://key:{SECRET}@bucket/a.tar",
        f"simplecache::https://host/a.tar?token={SECRET}",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str, tmp_path: Path) -> None:
    """What a job says is kept in Prefect's database: credentials belong into the environment."""
    assert has_secret(url)
    said = vital("references", url, "--store", tmp_path / "s.zarr", "--layer", LAYER, *MODEL)
    assert said.exit_code == 2
    assert "give credentials in the environment" in said.output
    assert SECRET not in said.output
    with pytest.raises(ValueError, match="password or a signed query") as caught:
        ReferencesJob(shards=(url,), store="s.zarr", layers=(LAYER,))
    assert SECRET not in str(caught.value)
    for field in ("shards", "held_out"):
        with pytest.raises(ValueError, match="password or a signed query"):
            ReportJob.model_validate({"out": "report", field: (url,)})
    assert not (tmp_path / "s.zarr").exists()


def test_credentials_of_the_environment_are_kept_nowhere(
    tmp_path: Path, prefect_server: str, prefect_database: Path
) -> None:
    """A whole run against a bucket; then every file that it left is searched, Prefect's database and logs included."""
    with contextlib.contextmanager(bucket)() as url:
        tiny.shards(tmp_path / "shards")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment = ours | {
            "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "key", "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT), "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_TO_API_ENABLED": "true",
        }  # fmt: skip
        arguments = ["--verbose", "references", str(tmp_path / "shards"), "--store", f"{url}/secret-stats.zarr"]
        arguments += ["--layer", "1", *map(str, MODEL), "--model", "tests.flows.tiny:two_layers"]
        ran = subprocess.run([sys.executable, "-m", "flows.cli.main", *arguments], env=environment, capture_output=True)
        assert ran.returncode == 0, ran.stderr
        files = s3fs.S3FileSystem(anon=False)
        kept = [files.cat_file(name) for name in files.find(f"{url}/secret-stats.zarr")]
    written = [path for path in (tmp_path / "prefect").rglob("*") if path.is_file()]
    database = [path.read_bytes() for path in prefect_database.parent.glob(f"{prefect_database.name}*")]
    assert any(b"secret-stats.zarr" in content for content in database)
    everything = [ran.stdout, ran.stderr, *kept, *database, *(path.read_bytes() for path in written)]
    assert len(kept) > 10
    assert not any(SECRET.encode() in content for content in everything)
