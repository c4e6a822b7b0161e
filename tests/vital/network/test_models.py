import copy
import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import Tiny, randomise
from vital.errors import UnknownModel, UnsuitableInput
from vital.network.layers import survey
from vital.network.models import load_model, weights_digest, wrap
from vital.network.probe import probe
from vital.network.sources import IMAGENET_MEAN, IMAGENET_STD, torchvision_models
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


def as_a_user(function: Any) -> Any:
    """The function without the shape checks of the tests, which would refuse a wrong type before it does."""
    return inspect.unwrap(function)


USUAL: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def test_a_wrapped_network_gives_the_activations_of_the_bare_one() -> None:
    """In double precision: in single, sums depend on how a network's memory is laid out."""
    bare = randomise(torchvision_models().resnet18(num_classes=7), 3)
    model = wrap(bare, side=64, **USUAL)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (np.array(part)[:, None, None] for part in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = torch.from_numpy((images.numpy() / 255 - mean) / std)
    torch.testing.assert_close(model.preprocessing.normalise(images).double(), normalised, rtol=0, atol=1e-6)
    seen: list[torch.Tensor] = []
    bare.double().get_submodule("layer3").register_forward_hook(lambda m, i, output: seen.append(output.clone()))
    logits = bare(normalised)
    model.network.double()
    with probe(model.network, ["layer3", "classes"]) as run:
        activations = run(normalised)
    torch.testing.assert_close(activations["layer3"], seen[0].flatten(2))
    torch.testing.assert_close(activations["classes"][..., 0], logits)


def test_a_wrapped_module_stays_as_it_is_and_what_it_learns_does_not_reach_the_copy() -> None:
    module = Tiny().double()
    module.train()
    model = wrap(module, side=32, class_names=[f"class {number}" for number in range(10)], **USUAL)
    assert model.name == "Tiny"
    assert model.class_names[9] == "class 9"
    assert module.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in module.parameters())
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.network.parameters())
    with torch.no_grad():
        module.get_parameter("5.bias").add_(1)
    again = wrap(module, side=32, **USUAL)
    assert model.identity["weights"] == weights_digest(model.network) != again.identity["weights"]
    assert survey(model).layer("classes").channels == 10


def test_a_wrapped_network_has_the_identity_of_the_same_network_by_name() -> None:
    loaded = load_model(SMALL, weights="random", input_size=64)
    assert wrap(loaded.network, side=64, name=SMALL, **USUAL).identity == loaded.identity
    other = wrap(loaded.network, side=64, name=SMALL, mean=(0.5, 0.5, 0.5), std=IMAGENET_STD)
    assert other.identity != loaded.identity


class Uncopyable(nn.Module):
    """Keeps an activation, as some networks do after they have run: torch does not copy it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 2, 1)
        self.kept = self.inner(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("module", "others", "message"),
    [
        ("resnet50", {}, r"takes a torch\.nn\.Module with weights, not a str"),
        (nn.ReLU(), {}, "not a ReLU without weights"),
        (Uncopyable(), {}, r"Uncopyable cannot be copied \(.*\): wrap it before it has run"),
        (Tiny(), {"side": 8}, "side = 8 is no side of an input: give 16 to 2048 pixels"),
        (Tiny(), {"side": 4096}, "side = 4096 is no side"),
        (Tiny(), {"side": 64.5}, r"side = 64\.5 is no side"),
        (Tiny(), {"mean": (0.5, 0.5)}, r"mean = \(0\.5, 0\.5\) is not three numbers"),
        (Tiny(), {"mean": (123.7, 116.3, 103.5)}, "for pixels from 0 to 1"),
        (Tiny(), {"mean": 0.5}, r"mean = 0\.5 is not three numbers"),
        (Tiny(), {"std": (0.2, 0.0, 0.2)}, r"std = .* is not three numbers of red, green and blue"),
        (Tiny(), {"std": (0.2, float("nan"), 0.2)}, "std = "),
        (Tiny(), {"std": ("a", "b", "c")}, "std = "),
    ],
    ids=[
        *("no module", "no weights", "no copy", "small side", "large side", "broken side", "two means", "bytes"),
        *("one mean", "no deviation", "undefined deviation", "words"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_in_one_sentence(
    module: object, others: dict[str, object], message: str
) -> None:
    with pytest.raises(UnsuitableInput, match=message) as caught:
        as_a_user(wrap)(module, **{"side": 32, **USUAL, **others})
    assert "\n" not in str(caught.value)
