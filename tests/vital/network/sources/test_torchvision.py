"""torchvision's networks are torchvision's own: logits, arguments and pixels as its weights ask for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.reference.networks import randomise
from vital.errors import UnsuitableInput
from vital.network.models import load_model
from vital.network.sources import jpeg_decoder, torchvision_models
from vital.network.sources.torchvision_networks import (
    COMPILER,
    _published,
    _without_compiler,
    build,
    preprocessing_of,
)

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


@pytest.mark.slow
def test_a_network_comes_without_pytorch_s_compiler() -> None:
    program = (
        "import sys; from vital.network.sources.torchvision_networks import build; build('squeezenet1_1');"
        "assert 'torchvision' in sys.modules; assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4])


def test_what_torchvision_asks_the_compiler_the_compiler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    with _without_compiler():
        asked = sys.modules[COMPILER].is_compile_supported
    assert COMPILER not in sys.modules
    compiler: Any = SimpleNamespace(is_compile_supported=lambda kind: kind == "cpu")
    monkeypatch.setitem(sys.modules, COMPILER, compiler)
    with _without_compiler():
        assert sys.modules[COMPILER] is compiler, "it was there before, and stays"
    assert (asked("cpu"), asked("mps")) == (True, False)


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


class Nvjpeg:
    """A stand-in for a GPU and torchvision's decoder there; says what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails
        mode = SimpleNamespace(RGB="RGB")
        io: Any = SimpleNamespace(decode_jpeg=self.decoded, ImageReadMode=mode)
        monkeypatch.setitem(sys.modules, "torchvision.io", io)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.calls.append("GPU is done"))
        jpeg_decoder.cache_clear()

    def synchronize(self) -> None:
        self.calls.append("stream is done")

    def decoded(self, files: list[Tensor], mode: str, device: torch.device) -> list[Tensor]:
        assert {(file.dtype, file.dim()) for file in files} == {(torch.uint8, 1)}
        assert (mode, device.type) == ("RGB", "cuda")
        self.calls.append(f"decode {len(files)}")
        if self.fails:
            raise RuntimeError(self.fails)
        return [torch.from_numpy(np.array(Image.open(BytesIO(file.numpy().tobytes())))) for file in files]


@pytest.fixture
def _no_decoder_is_kept() -> Iterator[None]:
    yield
    jpeg_decoder.cache_clear()


@pytest.mark.usefixtures("_no_decoder_is_kept")
def test_a_gpu_decodes_when_its_stream_has_done_what_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision writes into memory of the caller's stream without waiting for what that stream still reads."""
    gpu, buffer = Nvjpeg(monkeypatch), BytesIO()
    Image.new("RGB", (24, 8), (200, 10, 10)).save(buffer, "JPEG")
    decode = jpeg_decoder(torch.device("cuda", 3))
    gpu.calls.clear()
    assert [tuple(one.shape) for one in decode([buffer.getvalue()] * 2)] == [(8, 24, 3)] * 2
    assert gpu.calls == ["stream is done", "decode 2"]
    gpu.fails = "nvjpegDecode failed: 5"
    with pytest.raises(RuntimeError, match="failed: 5"):
        decode([buffer.getvalue()])
    assert gpu.calls[2:] == ["stream is done", "decode 1", "GPU is done"]  # it might still write


@pytest.mark.usefixtures("_no_decoder_is_kept")
def test_a_torchvision_whose_decoder_only_says_that_it_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Nvjpeg(monkeypatch, "decode_jpegs_cuda: torchvision not compiled with nvJPEG support")
    with pytest.raises(UnsuitableInput, match=r"nothing with nvJPEG \(decode_jpegs_cuda: .*or use --jpeg simplejpeg"):
        jpeg_decoder(torch.device("cuda"))
    with pytest.raises(UnsuitableInput, match="the network is on cpu"):
        jpeg_decoder(torch.device("cpu"))
    Nvjpeg(monkeypatch, "CUDA out of memory. Tried to allocate 20.00 MiB")
    with pytest.raises(RuntimeError, match="out of memory"):
        jpeg_decoder(torch.device("cuda"))


def test_a_file_without_auxiliary_classifiers_is_googlenet_s_and_what_it_does_not_say_is_told(tmp_path: Path) -> None:
    """As it is saved after published weights were loaded."""
    theirs: Any = randomise(build("googlenet", aux_logits=False), 3).eval()
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    mine = load_model("googlenet", weights=str(tmp_path / "own.pth"))
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(mine.network(images), theirs(images), rtol=1e-4, atol=1e-4)  # the order of sums
    turned, prepared = mine.notes
    assert "does not say whether googlenet turns the colours first (transform_input)" in turned
    assert "own.pth does not say how images are prepared" in prepared
    assert "--input-size 224, --mean 0.485 0.456 0.406, --std" in prepared
