"""What a network is shown: how many channels, in which order of axes and of memory, as it turns out when it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vital.errors import FailedForward, UnsuitableInput
from vital.network.out_of_place import OutOfPlace
from vital.network.preprocessing import LUMINANCE
from vital.network.probe import anchor, forward


def settled(network: nn.Module, name: str, side: int, channels: int | None = None) -> tuple[nn.Module, int]:
    """The network with its convolutions' weights channels last in memory, which is faster, unless it only runs with
    them as they were: a network may look at its activations as they lie (``x.view``). And how many channels it is
    shown: those asked for, or what it takes; where that is one, it is shown the luminance of what it is given.

    Raises `UnsuitableInput` where its first convolution takes others than those asked for.
    """
    for one in (channels,) if channels else (3, 1):
        handle = network.register_forward_pre_hook(_show_luminance) if one == 1 else None
        runs = _laid_out(network, side, one)
        taken = 0 if runs and (channels or one != 1) else _own_channels(network, side, one, copied=runs)
        if runs and not taken:
            return network, one
        if channels and taken:
            raise UnsuitableInput(
                f"{name} takes images of {taken} channels, and {channels} were asked for: leave --channels (channels=) "
                "out, or give a network of as many"
            )
        if handle is not None and channels is None:
            handle.remove()
        if taken and _laid_out(network, side, taken):
            return network, taken
    _lay_out(network, torch.channels_last)  # it does not run for another reason, which its survey tells
    return network, channels or 3


def rows_first(network: nn.Module) -> None:
    """Have the network be shown (image, row, column, channel)."""
    network.register_forward_pre_hook(_show_rows_first)


def _laid_out(network: nn.Module, side: int, channels: int) -> bool:
    """Whether the network runs on so many channels, in the faster of the two orders of memory in which it does."""
    for memory in (torch.channels_last, torch.contiguous_format):
        _lay_out(network, memory)
        if _runs(network, side, channels):
            return True
    return False


def _lay_out(network: nn.Module, memory: torch.memory_format) -> None:
    network._apply(lambda one: one.contiguous(memory_format=memory) if one.dim() == 4 else one)


def _runs(network: nn.Module, side: int, channels: int) -> bool:
    like, colours = anchor(network), 3 if channels == 1 else channels
    try:
        with torch.inference_mode(), OutOfPlace():
            forward(network, torch.zeros(1, colours, side, side, device=like.device, dtype=like.dtype))
    except (FailedForward, MemoryError, RuntimeError):
        return False
    return True


def _own_channels(network: nn.Module, side: int, shown: int, copied: bool = False) -> int:
    """The channels of a network whose first convolution takes others than it is ``shown``, else 0: it fails, or it runs
    since torch has ``copied`` the luminance to as many, such as by subtracting a mean of each."""
    taken, shape = _first_convolution(network, side, shown)
    if taken in (0, 1, 3, shown) or not (shape[2:] == (side, side) if copied else shape[1] == shown):
        return 0
    return taken


def _first_convolution(network: nn.Module, side: int, shown: int) -> tuple[int, tuple[int, ...]]:
    """Channels that the first convolution of a pass takes, and the shape of what it is given; 0 where there is none."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    handles = [
        one.register_forward_pre_hook(lambda conv, given: seen.append((conv.in_channels, tuple(given[0].shape))))
        for one in network.modules()
        if isinstance(one, nn.Conv2d)
    ]
    try:
        _runs(network, side, shown)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else (0, ())


def _show_luminance(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    red, green, blue = (LUMINANCE[channel] * images[0][:, channel : channel + 1] for channel in range(3))
    return red + green + blue, *images[1:]


def _show_rows_first(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return images[0].permute(0, 2, 3, 1), *images[1:]
