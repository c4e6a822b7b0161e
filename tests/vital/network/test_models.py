import copy
import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import Tiny, randomise
from vital.errors import UnknownModel, UnsuitableInput
from vital.network.models import load_model, weights_digest, wrap
from vital.network.sources import IMAGENET_MEAN, torchvision_models
from vital.settings import ModelSettings

SMALL = "squeezenet1_1"


class Trap:
    """What runs when a pickle of it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.mkdir, (Path(self.mark),)  # type: ignore[return-value]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch cache without any weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of someone's own networks."""
    name = "somebodys_networks"
    (tmp_path / f"{name}.py").write_text(
        "from tests.reference.networks import Tiny\n\n"
        "def small():\n    return Tiny()\n\n"
        "def nothing():\n    return {'a': 1}\n\n"
        "def broken():\n    raise KeyError('a.b')\n"
    )
    (tmp_path / "broken_networks.py").write_text("def small(:\n")
    (tmp_path / "training_script.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--lr'])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownModel, match=r"no model 'resnet5'; the nearest are .*resnet50.*package\.module:factory"):
        load_model(ModelSettings(name="resnet5"))


def test_a_model_comes_frozen_and_in_evaluation_mode() -> None:
    model = load_model(ModelSettings(name=SMALL, weights="random", input_size=48))
    assert not model.network.training
    assert not any(module.training for module in model.network.modules())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.preprocessing.side == 48
    assert model.preprocessing.mean == IMAGENET_MEAN


def test_random_weights_are_the_same_each_time_and_leave_the_caller_s_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_model(ModelSettings(name=SMALL, weights="random"))
    assert torch.equal(torch.rand(3), expected)
    second = load_model(ModelSettings(name=SMALL, weights="random"))
    assert first.identity == second.identity


def test_a_state_dict_file_is_loaded_and_tells_in_the_identity(tmp_path: Path) -> None:
    given = load_model(ModelSettings(name=SMALL, weights="random")).network
    randomise(given, 7)
    plain, wrapped = tmp_path / "plain.pt", tmp_path / "wrapped.pt"
    state = given.state_dict()
    torch.save(state, plain)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}, wrapped)
    models = [load_model(ModelSettings(name=SMALL, weights=str(file))) for file in (plain, wrapped)]
    for model in models:
        for name, tensor in model.network.state_dict().items():
            assert torch.equal(tensor, state[name])
    digests = {weights_digest(model.network) for model in (*models,)}
    assert digests == {weights_digest(given)}
    assert models[0].identity["weights"] in digests
    other = load_model(ModelSettings(name=SMALL, weights="random"))
    assert weights_digest(other.network) not in digests


def test_the_digest_depends_on_every_value_and_not_on_the_memory_layout() -> None:
    network = randomise(Tiny(), 0)
    digest = weights_digest(network)
    other: Any = randomise(Tiny(), 0)
    assert weights_digest(other.to(memory_format=torch.channels_last)) == digest
    with torch.no_grad():
        network.get_parameter("5.bias")[3] += 1e-3
    assert weights_digest(network) != digest


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "was-run", tmp_path / "evil.pt"
    torch.save({"weight": Trap(mark)}, file)
    for evil in (file, tmp_path / "evil.pkl"):
        if not evil.exists():
            evil.write_bytes(pickle.dumps(Trap(mark)))
        with pytest.raises(UnknownModel, match="is not a state dict that can be read safely"):
            load_model(ModelSettings(name=SMALL, weights=str(evil)))
        assert not mark.exists()
    torch.load(file, weights_only=False)  # the trap works
    assert mark.exists()


def test_a_broken_or_missing_file_is_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    with pytest.raises(UnknownModel, match=r"broken\.pt is not a state dict"):
        load_model(ModelSettings(name=SMALL, weights=str(broken)))
    with pytest.raises(UnknownModel, match="no such file"):
        load_model(ModelSettings(name=SMALL, weights=str(tmp_path / "missing.pt")))
    with pytest.raises(UnknownModel, match="no weights file"):
        load_model(ModelSettings(weights=str(tmp_path / "missing.pt")))


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "tiny.pt"
    torch.save(Tiny().state_dict(), file)
    with pytest.raises(UnknownModel, match="do not fit"):
        load_model(ModelSettings(name=SMALL, weights=str(file)))
    torch.save([1, 2, 3], file)
    with pytest.raises(UnknownModel, match="do not fit"):
        load_model(ModelSettings(name=SMALL, weights=str(file)))


@pytest.mark.usefixtures("empty_cache")
def test_weights_that_are_not_in_the_cache_are_not_fetched_unasked() -> None:
    with pytest.raises(UnknownModel, match=r"not in the local cache .*--download"):
        load_model(ModelSettings(name=SMALL))
    with pytest.raises(UnknownModel, match=r"SqueezeNet1_1_Weights\.IMAGENET1K_V1.*--download"):
        load_model(ModelSettings(name=SMALL, weights="IMAGENET1K_V1"))


def test_a_misnamed_weights_entry_lists_the_choices() -> None:
    with pytest.raises(UnknownModel, match=r"no weights 'IMAGENET9'.*IMAGENET1K_V1"):
        load_model(ModelSettings(name=SMALL, weights="IMAGENET9"))


def test_cached_weights_bring_their_own_preprocessing_and_names(empty_cache: Path) -> None:
    """The cache holds a file of the right name; only its checksum would need the real one."""
    weights = torchvision_models().get_model_weights(SMALL).DEFAULT
    folder = empty_cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    given = load_model(ModelSettings(name=SMALL, weights="random")).network
    torch.save(given.state_dict(), folder / weights.url.rpartition("/")[2])
    model = load_model(ModelSettings(name=SMALL))
    assert model.preprocessing.side == 224
    assert len(model.class_names) == 1000
    assert model.class_names[0] == "tench"
    assert weights_digest(model.network) == weights_digest(given)


def test_a_factory_of_one_s_own_is_called(factories: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.pt"
    given = randomise(Tiny(), 3)
    torch.save(given.state_dict(), file)
    settings = ModelSettings(
        name=f"{factories}:small", weights=str(file), input_size=32, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)
    )
    model = load_model(settings)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.network(images), given(images))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.notes == ()
    [note] = load_model(ModelSettings(name=f"{factories}:small", input_size=32)).notes
    assert (
        "does not say how images are prepared, and ImageNet's usual is taken (--mean 0.485 0.456 0.406, --std" in note
    )
    assert isinstance(load_model(ModelSettings(name=f"{factories}:small")).network, nn.Module)


@pytest.mark.parametrize("name", ["missing_module:small", "{}:missing", "{}:", "{}:a:b", "no-name:small"])
def test_a_factory_that_cannot_be_imported_is_said_so(factories: str, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"cannot be imported .*package\.module:factory"):
        load_model(ModelSettings(name=name.format(factories)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{}:broken", r"'somebodys_networks:broken' fails by itself \(KeyError: 'a\.b'\): call it in Python"),
        ("broken_networks:small", r"as its module fails by itself \(SyntaxError: .*line 1\)"),
        ("training_script:small", r"as its module ends the process \(SystemExit: 2\): put what it runs under if"),
        ("./nets/somebodys.py:small", r"cannot be imported .*: give nets\.somebodys:small, importable"),
    ],
)
def test_errors_of_a_factory_are_its_own(factories: str, name: str, told: str) -> None:
    with pytest.raises(UnknownModel, match=told):
        load_model(ModelSettings(name=name.format(factories)))


class Parted(nn.Module):
    """A part of it is compiled, and asked for what it has."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        body.scale = 2.0  # type: ignore[assignment]
        self.body: Any = torch.compile(body, backend="eager")
        self.again = self.body

    def forward(self, images: Tensor) -> Tensor:
        """Twice what the body gives."""
        return cast(Tensor, self.again(images) * self.body.scale)


@pytest.mark.parametrize("parted", [False, True])
def test_a_compiled_network_runs_as_it_was_written_and_so_do_its_copies(parted: bool) -> None:
    """Compiled code would be made anew for every layer that is watched, and Dynamo warns of that."""
    plain = randomise(Tiny(), 3).eval()
    body = copy.deepcopy(plain)
    module = Parted(body) if parted else cast(nn.Module, torch.compile(body, backend="eager"))
    network = wrap(module, side=32, mean=(0.5,) * 3, std=(0.5,) * 3).network
    assert [name for name, _ in network.named_modules()] == [name for name, _ in module.named_modules()]
    images = torch.rand(2, 3, 32, 32)
    for one in (network, copy.deepcopy(network)):
        assert not any(type(part).__name__ == "OptimizedModule" for part in one.modules())
        torch.testing.assert_close(one(images), plain(images) * (2 if parted else 1))


def test_a_factory_must_give_a_network(factories: str) -> None:
    with pytest.raises(UnknownModel, match=r"returned dict, not a torch\.nn\.Module"):
        load_model(ModelSettings(name=f"{factories}:nothing"))


def test_the_embedded_model_is_there_without_a_network() -> None:
    model = load_model(ModelSettings())
    assert model.preprocessing.side == 224
    assert model.preprocessing.normalise(torch.tensor([127]).byte().expand(1, 3, 2, 2)).abs().max() < 1e-6
    assert len(model.class_names) == 1000
    with torch.inference_mode():
        assert model.network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def as_a_user(function: Any) -> Any:
    """The function without the shape checks of the tests, which would refuse a wrong type before it does."""
    return inspect.unwrap(function)


def test_keywords_are_settings_by_name_and_change_settings_that_are_given() -> None:
    by_name = load_model(SMALL, weights="random", input_size=48, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    settings = ModelSettings(name=SMALL, weights="random", input_size=96, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert by_name.identity == load_model(settings, input_size=48).identity
    assert by_name.preprocessing.side == 48
    assert by_name.preprocessing.std == (0.4, 0.5, 0.6)


def test_keywords_out_of_bounds_and_live_modules_are_refused_in_one_sentence() -> None:
    with pytest.raises(UnsuitableInput, match=r"^input_size = 8: Input should be greater than or equal to 16$"):
        load_model(SMALL, weights="random", input_size=8)
    with pytest.raises(UnsuitableInput, match=r"not a Tiny: use vital\.wrap for a live module"):
        as_a_user(load_model)(Tiny())
