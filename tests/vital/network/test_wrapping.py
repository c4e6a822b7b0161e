"""Live modules, wrapped: they give what they give bare, and stay as they are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.reference.networks import Tiny, randomise
from tests.vital.network.test_models import SMALL, as_a_user
from vital.errors import UnsuitableInput
from vital.network.layers import survey
from vital.network.models import load_model, weights_digest, wrap
from vital.network.probe import probe
from vital.network.sources import IMAGENET_MEAN, IMAGENET_STD, torchvision_models

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
