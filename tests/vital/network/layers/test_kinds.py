"""Networks as people have them: each kind works as in torch, or is refused before a pass in one sentence."""

from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vital.errors import UnknownLayer, UnsuitableInput
from vital.network.layers import survey
from vital.network.models import Model, at_side, wrap
from vital.network.probe import CLASSES, probe

SIDE = 64


class Base(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(before, 8, 3, 2, 1) for before in (3, 8, 8))
        self.fc = nn.Linear(8, classes)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(images))))))

    def logits(self, images: Tensor) -> Tensor:
        made: Tensor = self.fc(self.features(images).mean((2, 3)))
        return made

    def forward(self, images: Tensor) -> Any:
        return self.logits(images)


@dataclass
class Output:
    hidden: Tensor
    logits: Tensor


Pair = namedtuple("Pair", "hidden logits")
GIVEN: dict[str, Callable[[Base, Tensor], Any]] = {
    "tensor": lambda network, images: network.logits(images),
    "tuple": lambda network, images: (network.logits(images), network.features(images)),
    "tuple, maps first": lambda network, images: [network.features(images), network.logits(images)],
    "loss first": lambda network, images: (network.logits(images).sum(), network.logits(images)),
    "named tuple": lambda network, images: Pair(network.features(images).mean((2, 3)), network.logits(images)),
    "dictionary": lambda network, images: OrderedDict(aux=network.logits(images) + 1, out=network.logits(images)),
    "data class": lambda network, images: Output(network.features(images).mean((2, 3)), network.logits(images)),
    "squeezed": lambda network, images: network.logits(images).squeeze(),
}


class Gives(Base):
    def __init__(self, kind: str, classes: int = 5) -> None:
        super().__init__(classes)
        self.kind = kind

    def forward(self, images: Tensor) -> Any:
        return GIVEN[self.kind](self, images)


def made(network: nn.Module, side: int = SIDE) -> Model:
    return wrap(network, side=side, mean=(0.5,) * 3, std=(0.25,) * 3)


def read(model: Model, layer: str, images: Tensor) -> Tensor:
    with torch.inference_mode(), probe(model.network, [layer], survey(model).layouts()) as run:
        return run(images)[layer]


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("classes", [5, 1])
def test_classes_are_read_from_whatever_holds_the_logits(kind: str, images: int, classes: int) -> None:
    network = Gives(kind, classes).eval()
    model, shown = made(network), torch.randn(images, 3, SIDE, SIDE)
    assert survey(model).layer(CLASSES).channels == classes
    expected = network.logits(shown).detach()
    torch.testing.assert_close(read(model, CLASSES, shown)[..., 0], expected)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (lambda network, images: network.features(images), r"gives a tensor of shape \(2, 8, 8, 8\)"),
        (lambda network, images: dict.fromkeys("ab", network.logits(images)), "gives a dict"),
        (lambda network, images: [network.features(images)] * 2, r"gives a list of a tensor of shape"),
    ],
    ids=["a map", "two alike", "maps"],
)
def test_where_no_classes_can_be_known_it_says_what_the_network_gives(
    output: Callable[[Base, Tensor], Any], told: str
) -> None:
    class Other(Base):
        def forward(self, images: Tensor) -> Any:
            return output(self, images)

    layers = survey(made(Other()))
    assert "conv3" in layers.layers
    with pytest.raises(UnknownLayer, match=rf"^'classes' is not there: the network {told}"):
        layers.layer(CLASSES)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (nn.Softmax(1), r"^Sequential ends in a softmax: neurons of 'classes' are probabilities, "),
        (nn.LogSoftmax(1), r"^Sequential ends in a log-softmax: neurons of 'classes' are logarithms of probabilities"),
    ],
    ids=["softmax", "log-softmax"],
)
def test_an_output_that_is_probabilities_is_told(last: nn.Module, told: str) -> None:
    [note] = survey(made(nn.Sequential(Base(), last))).notes
    assert re.search(told, note)


@pytest.mark.parametrize(
    ("classes", "last"),
    [(5, nn.Identity()), (5, nn.Sigmoid()), (5, nn.ReLU()), (1, nn.Softmax(1)), (5, nn.Softmin(0))],
    ids=["scores", "sigmoid", "not negative", "one class", "over images"],
)
def test_an_output_of_scores_or_of_a_single_class_is_said_nothing_of(classes: int, last: nn.Module) -> None:
    assert not [note for note in survey(made(nn.Sequential(Base(classes), last))).notes if "probabilities" in note]


class Views(nn.Module):
    """Flattens by ``view``, as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * 13 * 13, 20), nn.Linear(20, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(images)), 2))), 2)
        result: Tensor = self.fc2(F.relu(self.fc1(x.view(x.size(0), -1))))
        return result


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        deviation = kernel.view(kernel.size(0), -1).std(1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, kernel / deviation, self.bias, self.stride, self.padding)


def standardised() -> Base:
    network = Base()
    network.conv2 = Standardised(8, 8, 3, 2, 1)
    return network


@pytest.mark.parametrize("network", [Views, standardised, Base], ids=["activations", "weights", "neither"])
def test_networks_that_look_at_memory_run_as_in_torch(network: Callable[[], nn.Module]) -> None:
    plain = network().eval()
    model, images = made(plain), torch.randn(2, 3, SIDE, SIDE)
    given = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(read(model, CLASSES, given)[..., 0], plain(images).detach())
    kernel = model.network.get_parameter("conv2.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last) == (network is Base)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_and_it_is_said(kind: torch.dtype) -> None:
    network = Base().to(kind).eval()
    model, images = made(network), torch.randn(2, 3, SIDE, SIDE)
    assert {one.dtype for one in model.network.parameters()} == {torch.float32}
    torch.testing.assert_close(read(model, CLASSES, images)[..., 0], network.float()(images).detach())
    assert model.notes == (f"Base was of {str(kind).removeprefix('torch.')} and computes in float32",)
    assert made(Base()).notes == ()


class Volumes(nn.Module):
    """Convolves images as one slice of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.fc(F.relu(self.conv(images[:, :, None])).mean((2, 3, 4)))
        return result


class Bare(nn.Module):
    """Has no parameters, only a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(4, 3, 3, 3))
        self.act = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.act(F.conv2d(images, self.kernel, stride=2)).mean((2, 3))  # type: ignore[arg-type]
        return result


class ByName(Base):
    def forward(self, *, pixel_values: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        return self.logits(pixel_values)


@pytest.mark.parametrize(
    ("network", "layer"),
    [(Volumes(), "conv"), (Bare(), "act"), (ByName(), "conv3"), (nn.DataParallel(Base()), "module.conv3")],
    ids=["volumes", "no parameters", "images by name", "data parallel"],
)
def test_unusual_networks_give_their_activations(network: nn.Module, layer: str) -> None:
    images, seen = torch.randn(2, 3, SIDE, SIDE), []
    model = made(network)
    network.eval().get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = network(pixel_values=images) if isinstance(network, ByName) else network(images)
    torch.testing.assert_close(read(model, layer, images), seen[0].flatten(2).detach())
    torch.testing.assert_close(read(model, CLASSES, images)[..., 0], logits.detach())


def test_a_module_that_runs_twice_or_never_is_told_as_such() -> None:
    class Shared(Base):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.spare = nn.ReLU(inplace=True), nn.Sequential(nn.ReLU())

        def features(self, images: Tensor) -> Tensor:
            return super().features(self.relu(self.relu(images)))

    layers = survey(made(Shared()))
    with pytest.raises(UnknownLayer, match=r"^'relu' runs 2 times in a pass, so that it is no one layer: name what"):
        layers.layer("relu")
    with pytest.raises(UnknownLayer, match=r"^'spare' only holds other modules and does not run itself: name one"):
        layers.layer("spare")
    with pytest.raises(UnknownLayer, match=r"^'spare.0' does not run in a pass"):
        layers.layer("spare.0")
    with pytest.raises(UnknownLayer, match=r"^no layer 'reluu'; the nearest are"):
        layers.layer("reluu")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_gives_its_classes_and_says_that_its_inside_is_hidden() -> None:
    network = Base().eval()
    layers = survey(Model("scripted", torch.jit.script(network), made(network).preprocessing))
    assert list(layers.layers) == [CLASSES]
    with pytest.raises(UnknownLayer, match=r"^'conv3' is TorchScript, whose inside cannot be watched: give the Python"):
        layers.layer("conv3")


def test_a_traced_graph_has_all_its_real_layers() -> None:
    from torch.fx import symbolic_trace

    class Nested(Base):
        def __init__(self) -> None:
            super().__init__()
            self.stage = nn.Sequential(Base(), nn.Softmax(1))

    rows = made(symbolic_trace(Base().eval())).layers()
    assert [(row.layer, row.channels, row.sites) for row in rows] == [
        ("conv1", 8, 1024), ("conv2", 8, 256), ("conv3", 8, 64), ("fc", 5, 1), (CLASSES, 5, 1)
    ]  # fmt: skip
    assert rows["conv3"].nodes == ("input", "conv1", "conv2")
    flat = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten())
    assert [row.layer for row in made(symbolic_trace(flat)).layers()] == ["0", "1", "2", "3", CLASSES]


@pytest.mark.parametrize("outer", [nn.DataParallel, lambda network: nn.Sequential(OrderedDict(net=network))])
def test_the_blocks_of_a_wrapped_network_are_its_own(outer: Callable[[nn.Module], nn.Module]) -> None:
    inner = nn.Sequential(*(nn.Sequential(nn.Conv2d(8 if n else 3, 8, 3, 2, 1), nn.ReLU()) for n in range(3)))
    prefix = next(name for name, _ in outer(inner).named_children())
    rows = [row.layer for row in made(outer(inner)).layers()]
    assert rows[:6] == [f"{prefix}.{number}{part}" for number in range(3) for part in (".1", "")]


class Remembers(Base):
    """Adds a bias of the size of the first map that it saw last, as some window attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.side = SIDE // 8

    def features(self, images: Tensor) -> Tensor:
        maps = super().features(images)
        self.side = min(self.side, maps.shape[-1])
        return maps + torch.zeros(self.side, self.side)


def test_a_survey_at_other_sizes_leaves_no_trace_on_networks_that_remember() -> None:
    model, images = made(Remembers()), torch.randn(2, 3, SIDE, SIDE)
    before = model.network(images)
    survey(model)
    assert torch.equal(model.network(images), before)


class Headed(nn.Module):
    """Only takes 64 pixels, for its head's sake."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.head = nn.Linear(6 * 16 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(F.relu(self.body(self.stem(images))).flatten(1))
        return result


def test_at_another_side_a_network_runs_as_far_as_it_can() -> None:
    model = at_side(made(Headed()), 96)
    with pytest.raises(
        UnsuitableInput, match=r"cannot take images of 96 × 96 pixels \(.*; 64 × 64 it takes\): way out"
    ):
        survey(model, "way out")
    layers = survey(model, "way out", needed=("body", "stem"))
    assert layers.layer("body").sites == 24**2
    with pytest.raises(UnsuitableInput, match=r"on images of 96 × 96 pixels, after 'body' \(.*\): name a layer up to"):
        layers.layer(CLASSES)
    with pytest.raises(UnsuitableInput, match="after 'body'"):
        survey(model, "way out", needed=("head",))
