"""What runs leave in Prefect's pages."""

from __future__ import annotations

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.atlas import build_atlas
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
