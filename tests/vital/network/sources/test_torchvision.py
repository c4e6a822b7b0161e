"""torchvision's networks are torchvision's own: logits, arguments and pixels as its weights ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.reference.networks import randomise
from vital.network.models import load_model
from vital.network.sources import torchvision_models
from vital.network.sources.torchvision_networks import _published, preprocessing_of

MODELS = torchvision_models()
NAMES = MODELS.list_models(module=MODELS)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch cache that a test fills with stand-ins under the published names."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("the network was asked"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def published_file(weights: Any) -> str:
    return str(weights.url.rpartition("/")[2])


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_a_network_with_weights_gives_torchvision_s_own_logits(name: str, cache: Path) -> None:
    """These two turn colours first when they have weights; trained ones have other heads beside."""
    weights = MODELS.get_model_weights(name).DEFAULT
    stand_in = randomise(MODELS.get_model(name, weights=None, aux_logits=True, init_weights=False), 3)
    torch.save(stand_in.state_dict(), cache / published_file(weights))
    theirs: Any = MODELS.get_model(name, weights=weights).eval()
    mine = load_model(name)
    assert theirs.transform_input
    side = weights.transforms().crop_size[0]
    image = np.random.default_rng(0).integers(0, 256, (side + 40, side + 90, 3), np.uint8)
    pixels = mine.preprocessing.crop(image)[None]
    with torch.inference_mode():
        expected = theirs(weights.transforms()(Image.fromarray(image))[None])
        found = mine.network(mine.preprocessing.normalise(pixels))
        # Resizing may differ by one step of 256; given the same pixels, only the order of sums.
        assert torch.nn.functional.cosine_similarity(found, expected) > 0.999
        same = theirs(mine.preprocessing.normalise(pixels))
    torch.testing.assert_close(found, same, rtol=1e-4, atol=1e-4)


def entries() -> Iterator[Any]:
    for name in NAMES:
        yield from MODELS.get_model_weights(name)


def test_every_entry_of_weights_is_shown_images_as_it_was_evaluated() -> None:
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)).resize((405, 311))
    )
    seen: set[tuple[object, ...]] = set()
    for weights in entries():
        mine, usual = preprocessing_of(weights), weights.transforms()
        assert (mine.side, mine.shorter) == (usual.crop_size[0], usual.resize_size[0])
        kind = tuple(str(part) for part in mine.identity().values())
        if kind in seen:
            continue
        seen.add(kind)
        found = mine.normalise(mine.crop(image)[None])[0]
        apart = (found - usual(Image.fromarray(image))).abs() * 255 * min(mine.std)
        assert apart.max() <= 2.01, weights  # steps of 256: where bicubic goes beyond them it is cut off
        assert apart.mean() <= 0.3, weights
    assert len(seen) > 10


def test_weights_of_another_side_have_their_own_network_and_every_network_is_built_safely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choices = MODELS.get_model_weights("vit_b_16")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torchvision unpickled by itself"))
    with torch.device("meta"):
        state: Mapping[str, Tensor] = MODELS.vit_b_16(image_size=384).state_dict()
        loaded = _published("vit_b_16", choices.IMAGENET1K_SWAG_E2E_V1, lambda: state)
    assert loaded.network.image_size == 384
    assert (loaded.preprocessing.side, loaded.preprocessing.interpolation) == (384, "bicubic")
    assert "get_state_dict" not in vars(choices)


def test_a_file_of_a_published_name_is_those_weights(tmp_path: Path) -> None:
    weights = MODELS.get_model_weights("mobilenet_v3_small").DEFAULT
    file = tmp_path / published_file(weights)
    given = randomise(MODELS.mobilenet_v3_small(), 1)
    torch.save(given.state_dict(), file)
    model = load_model("mobilenet_v3_small", weights=str(file))
    assert model.preprocessing == preprocessing_of(weights)
    assert model.class_names[0] == "tench"


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_weights_of_somebody_s_training_bring_their_own_number_of_classes(name: str, tmp_path: Path) -> None:
    given: nn.Module = randomise(MODELS.get_model(name, num_classes=7), 2).eval()
    torch.save({"model": given.state_dict(), "epoch": 3}, tmp_path / "mine.pth")
    model = load_model(name, weights=str(tmp_path / "mine.pth"), input_size=64)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.network(images), given(images).detach(), rtol=1e-4, atol=1e-4)
    assert any("was built with the 7 classes of" in note for note in model.notes)
