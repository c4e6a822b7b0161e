"""What runs leave in Prefect's pages."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.atlas import build_atlas
from flows.atlas_store import make_blocks
from flows.jobs import AtlasJob
from tests.flows.conftest import LAYER, Made, atlas_job


def latest(key: str) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda one: one.created or 0).data)


def test_a_run_is_summarised(made: Made, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas.zarr"
    build_atlas(atlas_job(made.store, atlas))
    assert float(latest("progress")) == 100
    first = latest("atlas")
    assert f"## {atlas}: atlas" in first
    assert "37 pictures in " in first
    assert "- 2 of 2 blocks, 37 made" in first
    assert "made from base " in first
    build_atlas(atlas_job(made.store, atlas, LAYER))
    assert "No pictures were missing." in latest("atlas")


def test_a_failed_run_says_why(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second task fails; the summary has the reason, and what the first has left."""
    atlas = tmp_path / "atlas.zarr"
    calls: list[tuple[int, ...]] = []

    def only_once(job: AtlasJob, blocks: tuple[int, ...]) -> None:
        if calls:
            raise RuntimeError("the machine is on fire")
        calls.append(blocks)
        make_blocks(job, blocks)

    monkeypatch.setattr("flows.atlas.make_blocks", only_once)
    with pytest.raises(RuntimeError, match="on fire"):
        build_atlas(atlas_job(made.store, atlas))
    said = latest("atlas")
    assert "**Ended before it was done:** the machine is on fire" in said
    assert "- 1 of 2 blocks, 8 not made yet, 31 made" in said
    assert " a minute" not in said


def test_the_summary_links_to_the_pages(made: Made, tmp_path: Path) -> None:
    job = atlas_job(made.store, tmp_path / "atlas.zarr").model_copy(update={"pages": str(tmp_path / "two words")})
    build_atlas(job)
    [link] = re.findall(r"\]\((.*)\)", latest("atlas"))
    index = Path(unquote(urlsplit(link).path))
    assert index == tmp_path / "two words/index.html"
    assert index.is_file()


def test_pages_go_into_a_folder() -> None:
    with pytest.raises(ValueError, match="s3://bucket/pages is a URL: give a folder"):
        AtlasJob(store="a", layer="b", out="c", pages="s3://bucket/pages")
