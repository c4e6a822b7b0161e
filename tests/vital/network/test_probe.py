from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, current_thread, main_thread
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import SIDE, Residual, Tiny, randomise
from vital.errors import FailedForward
from vital.network.models import load_model
from vital.network.out_of_place import OutOfPlace
from vital.network.probe import CLASSES, INPUT, from_sites, guess_layout, modules_anew, probe, to_sites
from vital.settings import ModelSettings


def calls_of(network: nn.Module) -> list[str]:
    """A list that grows by the name of every leaf that runs."""
    calls: list[str] = []
    for name, module in network.named_modules():
        if next(module.children(), None) is None:
            module.register_forward_pre_hook(lambda module, inputs, name=name: calls.append(name))
    return calls


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.mark.parametrize(
    ("shape", "layout", "sites"),
    [
        ((2, 5, 3, 4), "channels-first", (2, 5, 12)),
        ((2, 3, 4, 5), "channels-last", (2, 5, 12)),
        ((2, 12, 5), "channels-last", (2, 5, 12)),
        ((2, 5), "vector", (2, 5, 1)),
    ],
)
def test_every_layout_becomes_channels_and_sites_and_comes_back(
    shape: tuple[int, ...], layout: str, sites: tuple[int, ...]
) -> None:
    output = torch.randn(shape)
    seen = to_sites(output, layout)  # type: ignore[arg-type]
    assert seen.shape == sites
    assert torch.equal(from_sites(seen, output.shape, layout), output)  # type: ignore[arg-type]
    for channel in range(5):
        expected = output[:, channel] if layout in ("channels-first", "vector") else output[..., channel]
        assert torch.equal(seen[:, channel], expected.reshape(2, -1))  # sites in row-major order


def test_the_layout_is_guessed_by_the_axes() -> None:
    assert guess_layout(torch.zeros(1, 2, 3, 4)) == "channels-first"
    assert guess_layout(torch.zeros(1, 2, 3)) == "channels-last"
    assert guess_layout(torch.zeros(1, 2)) == "vector"


def test_activations_are_those_of_the_modules() -> None:
    network, images = randomise(Tiny(), 0), torch.randn(2, 3, SIDE, SIDE)
    first = network.get_submodule("0")(images)
    second = network.get_submodule("1")(first)
    with probe(network, ["1", INPUT, "0.0", CLASSES, "0"]) as run:
        seen = run(images)
    assert list(seen) == ["1", INPUT, "0.0", CLASSES, "0"]
    assert torch.equal(seen[INPUT], images.flatten(2))
    assert torch.equal(seen["0.0"], network.get_submodule("0.0")(images).flatten(2))
    assert torch.equal(seen["0"], first.flatten(2))
    assert torch.equal(seen["1"], second.flatten(2))
    assert torch.equal(seen[CLASSES], network(images)[..., None])


def test_the_pass_stops_at_the_deepest_layer() -> None:
    network = randomise(Tiny(), 0)
    calls = calls_of(network)
    with probe(network, ["0", "1.0"]) as run:
        run(torch.zeros(1, 3, SIDE, SIDE))
        assert calls == ["0.0", "0.1", "0.2", "1.0"]
    calls.clear()
    with probe(network, ["0", CLASSES]) as run:
        run(torch.zeros(1, 3, SIDE, SIDE))
    assert calls[-1] == "5"


def test_activations_lie_on_the_path_of_the_graph() -> None:
    network, images = randomise(Tiny(), 0), torch.randn(1, 3, SIDE, SIDE).requires_grad_()
    with probe(network, [INPUT, "0", "1"]) as run:
        seen = run(images)
    to_node, to_images = torch.autograd.grad(seen["1"].sum(), [seen["0"], images], retain_graph=True)
    bare = images.detach().requires_grad_()
    first = network.get_submodule("0")(bare)
    expected = torch.autograd.grad(network.get_submodule("1")(first).sum(), [first, bare])
    torch.testing.assert_close(to_node, expected[0].flatten(2))
    torch.testing.assert_close(to_images, expected[1])
    assert torch.equal(torch.autograd.grad(seen[INPUT].sum(), images)[0], torch.ones_like(images))


def test_operations_in_place_do_not_change_what_was_seen() -> None:
    network, images = randomise(Residual(), 0), torch.randn(1, 3, 16, 16)
    before = images.clone()
    with torch.no_grad(), probe(network, ["bn1", "bn3", "down", "out"]) as run:
        seen = run(images)
    # bn1 is followed by a ReLU in place, bn3 by `+=` and another one.
    assert (seen["bn1"] < 0).any()
    assert (seen["bn3"] < 0).any()
    torch.testing.assert_close((seen["bn3"] + seen["down"]).relu(), seen["out"])
    assert torch.equal(images, before)
    torch.testing.assert_close(seen["out"], network(images).flatten(2))


def test_in_place_functions_have_a_twin() -> None:
    start = torch.tensor([-1.0, 2.0])
    for change in (
        lambda x: x.relu_(), lambda x: torch.relu_(x), lambda x: x.add_(1), lambda x: x.mul_(2), lambda x: x.sub_(1),
        lambda x: x.div_(2), lambda x: x.clamp_(min=0), lambda x: nn.functional.relu(x, inplace=True),
        lambda x: nn.functional.hardswish(x, inplace=True),
    ):  # fmt: skip
        kept, changed = start.clone(), start.clone()
        with OutOfPlace():
            result = change(kept)
        assert torch.equal(kept, start)
        assert torch.equal(result, change(changed))


def test_nothing_stays_on_the_network_even_after_an_error() -> None:
    network = randomise(Tiny(), 0)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with probe(network, ["0", "2"]) as run:
        run(torch.zeros(1, 3, SIDE, SIDE))
        assert hooks(network) == 2
    assert hooks(network) == 0
    with pytest.raises(RuntimeError, match="channels"), probe(network, ["0", "2"]) as run:
        run(torch.zeros(1, 4, SIDE, SIDE))  # four colours
    assert hooks(network) == 0
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_an_error_inside_the_network_is_not_taken_for_the_end() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            self.first(images)
            raise KeyError("lost")

    told = r"own forward failed on images of shape 1 × 3 × 4 × 4 \(KeyError: 'lost'\)"
    with probe(Broken(), ["first", "second"]) as run, pytest.raises(FailedForward, match=told) as caught:
        run(torch.zeros(1, 3, 4, 4))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_layer_asked_for_twice_is_seen_once() -> None:
    network = randomise(Tiny(), 0)
    with probe(network, ["0", "0"]) as run:
        assert list(run(torch.zeros(1, 3, SIDE, SIDE))) == ["0"]


def test_a_swin_transformer_keeps_its_channels_last() -> None:
    network = load_model(ModelSettings(name="swin_t", weights="random")).network
    images = torch.randn(1, 3, 64, 64)
    seen: list[Tensor] = []
    handle = network.get_submodule("features.1").register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        network(images)
        handle.remove()
        with probe(network, ["features.1"], {"features.1": "channels-last"}) as run:
            activations = run(images)["features.1"]
    assert seen[0].shape == (1, 16, 16, 96)
    assert torch.equal(activations, seen[0].permute(0, 3, 1, 2).flatten(2))


class Waits(nn.Module):
    """Waits in any thread but the first, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = Event(), Event()

    def forward(self, images: Tensor) -> Tensor:
        """The images."""
        if current_thread() is not main_thread():
            self.begun.set()
            assert self.go_on.wait(60)
        return images * 1


def test_passes_of_two_threads_over_one_network_do_not_see_each_other() -> None:
    waits = Waits()
    network = nn.Sequential(waits, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    ours, others = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    with probe(network, ["1"]) as first, probe(network, ["1", "2"]) as second, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(second, others)
        try:
            assert waits.begun.wait(60)
            seen = first(ours)
        finally:
            waits.go_on.set()
        there = asked.result()
    assert torch.equal(seen["1"], network[:2](ours).flatten(2))
    assert torch.equal(there["1"], network[:2](others).flatten(2))
    assert torch.equal(there["2"], network(others).flatten(2))


class Remembers(nn.Module):
    """Keeps the side of its last images, in itself and in a list, and holds what cannot be copied where it is told."""

    def __init__(self, **held: object) -> None:
        super().__init__()
        self.conv, self.last, self.sides = nn.Conv2d(3, 4, 1), 0, list[int]()
        self.held = held

    def forward(self, images: Tensor) -> Tensor:
        self.last = images.shape[-1]
        self.sides.append(self.last)
        maps: Tensor = self.conv(images)
        return maps


@pytest.mark.parametrize("held", [{}, {"lock": Lock()}], ids=["copies", "holds a lock"])
def test_modules_anew_share_their_tensors_and_nothing_that_they_remember(held: dict[str, object]) -> None:
    twice = Remembers(**held)
    network = nn.Sequential(twice, nn.Sequential(), twice)
    anew = modules_anew(network)
    one, _, same = cast(list[Remembers], list(cast(nn.Sequential, anew)))
    assert torch.equal(one(torch.ones(1, 3, 8, 8)), twice.conv(torch.ones(1, 3, 8, 8)))
    assert (twice.last, twice.sides) == (0, [])
    assert (one.last, one.sides) == (8, [8])
    assert same is one
    assert [each.data_ptr() for each in anew.parameters()] == [each.data_ptr() for each in network.parameters()]
    assert [type(each) for each in anew.modules()] == [type(each) for each in network.modules()]


def told(caplog: pytest.LogCaptureFixture, network: nn.Module) -> list[tuple[str, str]]:
    """What is logged of a network that is copied twice."""
    caplog.clear()
    with caplog.at_level("DEBUG", "vital"):
        modules_anew(network)
        modules_anew(network)
    return [(one.levelname, one.getMessage()) for one in caplog.records]


def test_what_a_network_and_its_copies_share_is_told_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """As a warning where it may remember images."""
    assert told(caplog, nn.Sequential(Remembers(), Remembers(a=3))) == []
    lock = Remembers()
    object.__setattr__(lock, "guard", Lock())
    [(level, text)] = told(caplog, nn.Sequential(Remembers(), nn.Sequential(lock)))
    assert level == "INFO"
    assert "copies of a Sequential, on which other sizes are tried, share '1.0.guard' (lock) with it" in text
    with (tmp_path / "a").open("w") as file:
        object.__setattr__(lock, "diary", file)
        [(level, text)] = told(caplog, nn.Sequential(lock, Remembers(lock=Lock())))
    assert level == "WARNING"
    assert "share '0.guard' (lock) and '0.diary' (TextIOWrapper) and '1.held' (dict) with it, which" in text
    assert text.endswith("write a __deepcopy__ for what remembers images")
    [(_, text)] = told(caplog, nn.Sequential(*[Remembers(lock=Lock()) for _ in range(40)]))
    assert "'2.held' (dict) and 37 more with it" in text
    assert "'3.held'" not in text


def test_of_many_modules_that_cannot_be_copied_all_else_is() -> None:
    """Of one or another a set was given something else, which lay where something forgotten had lain."""
    network = nn.Sequential(*[Remembers(lock=Lock()) for _ in range(60)])
    anew = modules_anew(network)
    for one, two in zip(network.modules(), anew.modules(), strict=True):
        assert {name: type(value) for name, value in vars(one).items()} == {
            name: type(value) for name, value in vars(two).items()
        }
        shared = {
            name for name, value in vars(one).items() if value is vars(two)[name] and isinstance(value, (set, dict))
        }
        assert shared <= {"held"}
