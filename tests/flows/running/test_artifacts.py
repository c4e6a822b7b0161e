"""What runs leave in Prefect's pages."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterTags
from pydantic import ValidationError

from flows.jobs import AtlasJob, FullJob, LayerJob, Running
from flows.recipes.atlas import build_atlas
from flows.recipes.full import full_run
from flows.recipes.references import select_references
from flows.steps.pictures import made_blocks
from stores.errors import StoreError
from tests.flows.conftest import LAYER, Made, atlas_job, references_job
from tests.flows.running.test_cluster import job_at

pytestmark = pytest.mark.slow


@pytest.fixture
def latest(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The last artifact of a kind that a run of this test has left: others use the same server."""

    def ask(key: str) -> str:
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
                flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[str(tmp_path)])),
            )
        return str(max(found, key=lambda one: one.created or 0).data)

    with tags(str(tmp_path)):
        yield ask


def test_a_run_is_summarised(made: Made, tmp_path: Path, latest: Callable[[str], str]) -> None:
    atlas = tmp_path / "atlas.zarr"
    build_atlas(atlas_job(made.store, atlas))
    assert float(latest("progress")) == 100
    first = latest("atlas")
    assert f"## {atlas}: atlas" in first
    assert "38 pictures in " in first
    assert "- 2 of 2 blocks, 38 made" in first
    assert "made from base " in first
    build_atlas(atlas_job(made.store, atlas, LAYER))
    assert "No pictures were missing." in latest("atlas")


def test_a_failed_run_says_why(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latest: Callable[[str], str]
) -> None:
    """The second task fails; the summary has the reason, and what the first has left."""
    atlas = tmp_path / "atlas.zarr"
    calls: list[tuple[int, ...]] = []

    def only_once(job: AtlasJob, blocks: tuple[int, ...], fly: object = None) -> Callable[[], None]:
        if calls:
            raise RuntimeError("the machine is on fire")
        calls.append(blocks)
        return made_blocks(job, blocks)

    monkeypatch.setattr("flows.recipes.atlas.made_blocks", only_once)
    with pytest.raises(RuntimeError, match="on fire"):
        build_atlas(atlas_job(made.store, atlas))
    said = latest("atlas")
    assert "**Ended before it was done:** the machine is on fire" in said
    assert "- 1 of 2 blocks, 8 not made yet, 31 made" in said
    assert " a minute" not in said


def test_a_full_run_links_to_its_pages(made: Made, tmp_path: Path, latest: Callable[[str], str]) -> None:
    """Written once, at the end, where the job says; a folder that holds something else is refused before any work."""
    pages = tmp_path / "two words"
    job = job_at(made.shards, tmp_path, Running(threads=1)).model_copy(update={"pages": str(pages)})
    pages.mkdir()
    (pages / "index.html").write_text("something else")
    with pytest.raises(StoreError, match="holds an index\\.html that is not of an atlas's pages"):
        full_run(job)
    assert not (tmp_path / "stats.zarr").exists()
    (pages / "index.html").unlink()
    full_run(job)
    [link] = re.findall(r"\]\(<(.*)>\)", latest("pages"))
    assert Path(unquote(urlsplit(link).path)) == pages / "index.html"
    assert (pages / "index.html").is_file()
    assert f"`vital view '{pages}'`" in latest("pages")


@pytest.mark.parametrize("pages", ["s3://bucket/pages", ""])
def test_pages_go_into_a_folder(pages: str) -> None:
    with pytest.raises(ValidationError, match=r"is a URL: give a folder|at least 1 character"):
        FullJob(shards=("a",), store="b", out="c", layers=(LayerJob(layer="d"),), pages=pages)


def test_an_extension_is_summarised(made: Made, tmp_path: Path, latest: Callable[[str], str]) -> None:
    folder, store = tmp_path / "shards", tmp_path / "stats.zarr"
    shutil.copytree(made.shards, folder)
    last = max(folder.iterdir())
    last.rename(tmp_path / last.name)
    select_references(references_job(folder, store))
    assert "10 images in " in latest("references")
    (tmp_path / last.name).rename(last)
    select_references(references_job(folder, store, extend=True))
    assert "10 images in " in latest("references")
    assert "- shards: 2, images: 20, " in latest("references")
