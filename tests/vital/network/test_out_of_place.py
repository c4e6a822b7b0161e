"""A network may change its tensors in place in any way: it computes the same, and nothing that was seen changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from vital.network.out_of_place import OutOfPlace
from vital.network.probe import probe
from vital.propagation.mode import Relevance


def discarded_sum(x: Tensor) -> Tensor:
    y = x * 1
    y.add_(x)
    return y


def discarded_activation(x: Tensor) -> Tensor:
    y = x * 3
    nn.ReLU6(inplace=True)(y)
    nn.Dropout(inplace=True).eval()(y)
    F.elu(y, inplace=True)
    return y + 2


def a_part_of_another(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 1:].mul_(3)
    y[:, 0] += 1
    return y


def a_view_made_before(x: Tensor) -> Tensor:
    y = x * 1
    seen = y.transpose(1, 2)
    y.mul_(2)
    y.sub_(1)
    return seen.flatten(1)


def a_view_of_a_view(x: Tensor) -> Tensor:
    y = x * 1
    rows = y[:, :2]
    rows[:, 1].mul_(5)
    rows.add_(1)
    return y + rows.sum()


def assigned(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 0] = x[:, 1] * 4
    y[y > 1] = 0.5
    return y


def filled_from_nothing(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = x[:, :2]
    y[:, 2:].copy_(x[:, :1])
    return y


def into_another(x: Tensor) -> Tensor:
    with torch.no_grad():
        buffer = torch.empty(x.shape)
        torch.add(torch.ones(x.shape), 1, out=buffer)
    return x * buffer


def other_names(x: Tensor) -> Tensor:
    y = x * 1
    y.clamp_(min=-1).sub_(1)
    y.masked_fill_(y > 0.6, 0.25)
    y /= 2
    y -= x
    y[:, 0].zero_()
    y.unsqueeze_(0)
    return y


def returned_after_the_change(x: Tensor) -> Tensor:
    y = x * 1
    z = y.add_(3)
    y.mul_(2)
    return torch.cat([y, z])


CHANGES = [
    discarded_sum, discarded_activation, a_part_of_another, a_view_made_before, a_view_of_a_view, assigned,
    filled_from_nothing, into_another, other_names, returned_after_the_change,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("grad", [True, False], ids=["gradient", "inference"])
def test_the_result_and_its_gradient_are_the_network_s_own(change: Callable[[Tensor], Tensor], grad: bool) -> None:
    images = torch.randn(2, 3, 4, requires_grad=grad)
    with torch.set_grad_enabled(grad), torch.inference_mode(not grad):
        with OutOfPlace():
            result = change(images).clone()
        expected = change(images)
        torch.testing.assert_close(result, expected)
    if grad:
        start = torch.randn_like(expected)
        [mine], [true] = (torch.autograd.grad(output, images, start) for output in (result, expected))
        torch.testing.assert_close(mine, true)


class Overwrites(nn.Module):
    """A layer whose output the network then overwrites, discarding what the calls return."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.skip, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x.add_(self.skip(images))
        x.relu_()
        x[:, :2].mul_(2)
        result: Tensor = self.second(x)
        return result


@pytest.mark.parametrize("layers", [["first", "second"], ["second"]])
def test_a_seen_layer_keeps_what_it_gave_while_the_network_goes_on_with_the_change(layers: list[str]) -> None:
    network, images = Overwrites().requires_grad_(False), torch.randn(2, 3, 4, 4)
    with torch.inference_mode(), probe(network, layers) as run:
        seen = run(images)
    assert torch.equal(seen["second"], network(images).flatten(2))
    if "first" in seen:
        assert torch.equal(seen["first"], network.first(images).flatten(2))


def test_relevance_flows_through_what_was_overwritten() -> None:
    network, images = Overwrites().requires_grad_(False), torch.randn(1, 3, 4, 4).requires_grad_()
    mode = Relevance()
    with probe(network, ["first", "skip", "second"], mode=mode) as run:
        seen = run(images)
    relevance = mode.backward(seen["second"], seen["second"].detach(), [seen["first"], seen["skip"]])
    assert all(part.any() for part in relevance)
    share = seen["first"].abs() / (seen["first"].abs() + seen["skip"].abs())
    whole = relevance[0] + relevance[1]
    torch.testing.assert_close(relevance[0], (whole * share).detach())


def test_nothing_is_kept_after_the_pass_or_longer_than_its_memory() -> None:
    mode = OutOfPlace()
    with mode:
        kept = torch.zeros(3)
        kept.add_(1)
        for _ in range(5):
            torch.zeros(3).add_(1)
        assert len(mode._written) <= 2  # the one that lives, and the last of the others
    assert not len(mode._written)
    assert torch.equal(kept, torch.zeros(3))


def test_a_write_costs_the_same_however_many_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tensors live, a write looks at four; of those that do not, a third as many are kept at most."""
    looked = 0
    expired = StorageWeakRef.expired

    def watched(self: StorageWeakRef) -> bool:
        nonlocal looked
        looked += 1
        return bool(expired(self))  # type: ignore[no-untyped-call]

    monkeypatch.setattr(StorageWeakRef, "expired", watched)
    mode = OutOfPlace()
    with mode:
        kept = [torch.zeros(3) for _ in range(200)]
        for one in kept:
            one.add_(1)
        assert looked <= 4 * 200
        assert len(mode._written) == 200
        for _ in range(1000):
            torch.zeros(3).add_(1)
        assert len(mode._written) <= 200 + 200 / 3 + 2
        del kept, one
        for _ in range(100):
            torch.zeros(3).add_(1)
        assert len(mode._written) <= 2
