"""Jobs that hold wherever their tasks run."""

from pathlib import Path

import pytest

from flows.jobs import ReferencesJob, settled
from vital.settings import ModelSettings


def test_a_network_in_a_folder_is_the_same_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets" / "vit").mkdir(parents=True)
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    def of(name: str, weights: str | None = None) -> tuple[str, str | None]:
        model = ModelSettings(name=name, weights=weights)
        job = settled(ReferencesJob(shards=("a.tar",), store="s.zarr", layers=("classes",), model=model))
        return job.model.name, job.model.weights

    assert of("hf/nets/vit", "weights.pt") == (f"hf/{tmp_path}/nets/vit", str(tmp_path / "weights.pt"))
    assert of(f"hf/{tmp_path}/nets/vit", "random") == (f"hf/{tmp_path}/nets/vit", "random")
    assert of("hf/google/vit-base") == ("hf/google/vit-base", None)
    assert of("timm/nets/vit") == ("timm/nets/vit", None)
