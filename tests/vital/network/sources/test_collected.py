"""Networks of other packages by name: the packages' own networks and preprocessing, fetched only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.reference.networks import randomise
from vital.errors import UnknownModel, UnsuitableInput
from vital.network.layers import survey
from vital.network.models import Model, at_side, load_model
from vital.network.probe import CLASSES, probe
from vital.network.sources import collected, torchvision_models

torchvision_models()  # which timm and transformers import
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
IMAGE = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)).resize((205, 231)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which is not asked for anything."""
    monkeypatch.setattr(import_module("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        import_module("huggingface_hub"), "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked")
    )
    return tmp_path


def cached(hub: Path, repository: str, state: dict[str, Tensor]) -> None:
    """Weights as the hub's cache has them."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")


def logits(model: Model, images: Tensor) -> Tensor:
    with torch.inference_mode(), probe(model.network, [CLASSES], survey(model).layouts()) as run:
        return run(images)[CLASSES][..., 0]


def shown(model: Model) -> Tensor:
    return model.preprocessing.normalise(model.preprocessing.crop(IMAGE)[None])


def check_pixels(model: Model, expected: Tensor) -> None:
    """Within a step or two of 256 of what the package's own transform makes of the image with Pillow."""
    apart = (shown(model)[0] - expected).abs() * 255 * min(model.preprocessing.std)
    assert expected.shape == shown(model)[0].shape
    assert apart.max() <= 2.01
    assert apart.mean() <= 0.3


timm: Any = pytest.importorskip("timm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_efficientnet", "test_resnet"])
def test_a_timm_network_is_timm_s_own_with_its_transform(name: str, hub: Path) -> None:
    theirs = randomise(timm.create_model(name), 3).eval()
    cached(hub, timm.get_pretrained_cfg(name).hf_hub_id, dict(theirs.state_dict()))
    model = load_model(f"timm/{name}")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=theirs))
    check_pixels(model, transform(Image.fromarray(IMAGE)))
    torch.testing.assert_close(logits(model, shown(model)), theirs(shown(model)).detach(), rtol=1e-4, atol=1e-4)
    assert len(model.class_names) == 1000
    assert model.class_names[0].startswith("tench")


@pytest.mark.usefixtures("hub")
def test_timm_s_weights_are_fetched_when_asked_for_alone() -> None:
    with pytest.raises(UnknownModel, match=r"weights of timm/test_vit are not in the local cache .*--download.*random"):
        load_model("timm/test_vit")
    with pytest.raises(UnknownModel, match=r"timm has no model 'test_vitt'; the nearest are .*test_vit"):
        load_model("timm/test_vitt")


def test_random_weights_are_the_same_each_time_and_files_are_opened(tmp_path: Path) -> None:
    first, second = (load_model("timm/test_vit", weights="random") for _ in range(2))
    assert first.identity == second.identity
    torch.save({"state_dict": first.network.state_dict()}, tmp_path / "a.pth")
    again = load_model("timm/test_vit", weights=str(tmp_path / "a.pth"))
    assert again.identity["weights"] == first.identity["weights"]
    assert "the table 'state_dict'" in again.notes[0]


@pytest.mark.slow
def test_timm_makes_a_network_for_as_many_channels_as_are_asked_for() -> None:
    model = load_model("timm/test_vit", weights="random", channels=5, mean=0.3, std=0.2)
    assert (model.preprocessing.channels, model.preprocessing.mean) == (5, (0.3,) * 5)
    assert survey(model).layer("patch_embed").channels == 64
    grey = load_model("timm/test_vit", weights="random", channels=1)
    assert grey.preprocessing.channels == 1
    with pytest.raises(
        UnsuitableInput, match="takes 5 channels, and nothing says how they were normalised: give --mean"
    ):
        load_model("timm/test_vit", weights="random", channels=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "leading"),
    [("test_vit", 1), ("test_vit2", 1), ("test_vit3", 0), ("test_vit4", 1)],
)
def test_leading_tokens_of_timm_s_transformers_are_those_that_they_state(name: str, leading: int) -> None:
    model = load_model(f"timm/{name}", weights="random")
    layers = survey(model)
    stated: Any = model.network
    last = [layer for layer in layers.layers.values() if layer.block and layer.sites > 1][-1]
    assert last.leading_tokens == stated.num_prefix_tokens
    assert last.sites == stated.num_prefix_tokens + stated.patch_embed.num_patches


@pytest.mark.slow
def test_a_timm_transformer_takes_pictures_of_another_side() -> None:
    model = load_model("timm/test_vit", weights="random")
    larger = at_side(model, 192)
    assert survey(larger).layers["blocks.0"].sites == 1 + (192 // 16) ** 2
    assert survey(model).layers["blocks.0"].sites == 1 + (160 // 16) ** 2
    assert (
        load_model("timm/test_vit", weights="random", input_size=192).identity["weights"] == model.identity["weights"]
    )


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("vital.network.sources.collected.importlib.import_module", missing)
    for name, extra in (("timm/a", "timm"), ("hf/a/b", "hf"), ("open_clip/a/b", "clip")):
        with pytest.raises(UnknownModel, match=rf"needs the package \w+: pip install 'vital-atlas\[{extra}\]'"):
            load_model(name)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder as transformers writes one: a small vision transformer that tells three animals apart."""
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config)
    network.save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(
        size={"height": 64, "width": 64}, resample=3, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_of_transformers_gives_its_logits_names_and_preprocessing(vit: Path) -> None:
    transformers: Any = import_module("transformers")
    model = load_model(f"hf/{vit}")
    theirs = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    expected = transformers.ViTImageProcessorPil.from_pretrained(vit)(Image.fromarray(IMAGE), return_tensors="pt")
    check_pixels(model, expected["pixel_values"][0])
    torch.testing.assert_close(logits(model, shown(model)), theirs(shown(model)).logits.detach(), rtol=1e-4, atol=1e-4)
    assert model.class_names == ("cat", "dog", "owl")
    assert model.classifies
    rows = {row.layer: row for row in model.layers()}
    blocks = [name for name in rows if "layer" in name and rows[name].sites == 17]
    assert len(blocks) == 2
    assert all(survey(model).layer(name).leading_tokens == 1 for name in blocks)


def test_a_folder_of_transformers_may_lie_at_home(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(vit.parent))
    there, home = (load_model(name=f"hf/{folder}") for folder in (vit, f"~/{vit.name}"))
    assert home.identity["weights"] == there.identity["weights"]


def test_tokens_behind_the_patches_of_transformers_are_no_sites(tmp_path: Path) -> None:
    """Of YOLOS, whose image is none of a square: the shorter side is taken."""
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[64, 80],
        patch_size=16, num_detection_tokens=10, use_mid_position_embeddings=False,
    )  # fmt: skip
    transformers.YolosModel(config).save_pretrained(tmp_path)
    model = load_model(f"hf/{tmp_path}")
    assert model.preprocessing.side == 64
    assert model.layers()["encoder.layer.0"].sites_shown == "1+16+10"
    assert not model.classifies
    assert "has no classifier" in model.notes[-1]


@pytest.mark.usefixtures("hub")
def test_a_model_of_text_is_refused_as_such(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    ).save_pretrained(tmp_path)
    with pytest.raises(UnknownModel, match=r"is a BertModel, which takes text \(input_ids\) and no images"):
        load_model(f"hf/{tmp_path}", weights="random")


def test_what_is_not_in_transformers_cache_is_not_fetched_unasked() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UnknownModel, match=r"hf/nobody/nothing are not in the local cache .*--download"):
        load_model("hf/nobody/nothing")
    with pytest.raises(UnknownModel, match="give ORGANISATION/NAME"):
        load_model("hf/no/such/folder")


@pytest.mark.parametrize(
    ("usual", "told"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (224, 256, False)),
        ({"size": {"height": 384, "width": 384}, "do_center_crop": False}, (384, 384, True)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 256, False)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, (384, 384, True)),
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, (224, 224, False)),
        ({"size": 224}, (224, 224, True)),
        ({}, (32, 32, True)),
    ],
)
def test_every_way_of_writing_sizes_is_read(usual: dict[str, Any], told: tuple[int, int, bool]) -> None:
    made = collected._hf_preprocessing(usual, 32)
    assert (made.side, made.shorter, made.squash) == told


def test_pixels_that_are_scaled_otherwise_are_said_in_0_to_1() -> None:
    made = collected._hf_preprocessing(
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 8
    )
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 2, 2)
    torch.testing.assert_close(made.normalise(pixels)[0, 0, 0], torch.tensor([-1.0, 1.0]))
    plain = collected._hf_preprocessing({"do_normalize": False}, 8)
    torch.testing.assert_close(plain.normalise(pixels)[0, 0, 0], torch.tensor([0.0, 1.0]))


def test_the_tower_of_open_clip_that_looks_gives_its_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip: Any = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config)
    model = load_model("open_clip/Tiny/random")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = open_clip.create_model("Tiny").eval()
    images = shown(model)
    torch.testing.assert_close(logits(model, images), theirs.encode_image(images).detach(), rtol=1e-4, atol=1e-4)
    check_pixels(model, open_clip.create_model_and_transforms("Tiny")[2](Image.fromarray(IMAGE)))
    tokens = [layer for layer in survey(model).layers.values() if layer.block and layer.sites == 17]
    assert tokens
    assert {layer.leading_tokens for layer in tokens} == {1}
    with pytest.raises(UnknownModel, match=r"Tiny has no weights 'openai': choose from none"):
        load_model("open_clip/Tiny/openai")
