"""Files of weights as training scripts leave them are opened, and what was opened and left out is said."""

from __future__ import annotations

import argparse
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.reference.networks import Tiny, randomise
from vital.errors import UnknownModel
from vital.network.sources.weight_files import fill

State = dict[str, Tensor]
OTHER = {name: tensor * 0 for name, tensor in Tiny().state_dict().items()}


def named(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED: dict[str, tuple[Any, str | None]] = {
    "plain": (lambda s: s, None),
    "DDP": (lambda s: named(s, "module."), "names that begin with 'module.'"),
    "state_dict": (lambda s: {"epoch": 3, "state_dict": s, "best_acc1": torch.tensor(0.7)}, "the table 'state_dict'"),
    "torchvision": (
        lambda s: {"model": s, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.1, size=(1, 2))},
        "the table 'model'",
    ),
    "tutorial": (lambda s: {"model_state_dict": s, "loss": 0.3}, "the table 'model_state_dict'"),
    "lightning": (
        lambda s: {"state_dict": named(s, "model."), "pytorch-lightning_version": "2.1", "hyper_parameters": {}},
        "the table 'state_dict' and names that begin with 'model.'",
    ),
    "compiled": (lambda s: named(s, "_orig_mod."), None),
    "compiled DDP": (lambda s: named(s, "module._orig_mod."), "names that begin with 'module.'"),
    "teacher": (
        lambda s: {"student": named(OTHER, "module.backbone."), "teacher": named(s, "module.backbone.")},
        "the table 'teacher' and names that begin with 'module.backbone.'",
    ),
    "EMA": (lambda s: {"state_dict": OTHER, "state_dict_ema": s}, "the table 'state_dict_ema'"),
    "EMA beside, one table": (
        lambda s: named(OTHER, "model.") | named(s, "ema_model."),
        "names that begin with 'ema_model.'",
    ),
    "an optimiser's": (lambda s: {"exp_avg": OTHER, "optimizer": {"state": {"m": OTHER}}, "net": s}, "the table 'net'"),
    "SWA": (lambda s: {"model": OTHER, "swa_model": s}, "the table 'swa_model'"),
    "a tuple": (lambda s: (s, {"lr": 0.1}), "the table '0'"),
    "NumPy's number": (lambda s: {"state_dict": s, "best": np.float64(0.5)}, "the table 'state_dict'"),
    "NumPy's arrays": (lambda s: {name: tensor.numpy() for name, tensor in s.items()}, None),
    "half": (lambda s: {name: tensor.half() if tensor.dim() else tensor for name, tensor in s.items()}, None),
    "pairs": (lambda s: list(s.items()), None),
    "nested": (lambda s: {"checkpoint": {"net": {"params": s}}}, "the table 'checkpoint.net.params'"),
    "a head more": (lambda s: s | {"aux.weight": torch.zeros(2, 2)}, "1 tensors of .* left out: aux.weight"),
    "MoCo": (
        lambda s: {"state_dict": named(OTHER, "module.encoder_k.") | named(s, "module.encoder_q.")},
        "names that begin with 'module.encoder_q.'",
    ),
    "BYOL": (lambda s: named(OTHER, "target_network.") | named(s, "online_network."), "'online_network.'"),
    "sparse": (lambda s: s | {"5.weight": s["5.weight"].to_sparse()}, None),
    "FSDP": (lambda s: named(s, "_fsdp_wrapped_module."), None),
    "without counters": (lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, None),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")  # torch 2.14 says that it looks
@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_wrapping_is_opened_and_said(kind: str, zipped: bool, tmp_path: Path) -> None:
    wrap, told = WRAPPED[kind]
    given, file = randomise(Tiny(), 4), tmp_path / "weights.pth"
    torch.save(wrap(given.state_dict()), file, _use_new_zipfile_serialization=zipped)
    network = randomise(Tiny(), 5)
    notes = fill(network, str(file))
    for name, tensor in given.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    assert bool(told) == bool(notes)
    assert not told or re.search(told, notes[0])
    assert "weights.pth" in "".join(notes) or not notes


@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_are_read(prefix: str, tmp_path: Path) -> None:
    given, network = randomise(Tiny(), 4), Tiny()
    save_file(dict(named(given.state_dict(), prefix)), tmp_path / "a.safetensors")
    fill(network, str(tmp_path / "a.safetensors"))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in given.state_dict().items())


def test_a_wrapped_network_takes_plain_weights_and_those_of_its_own(tmp_path: Path) -> None:
    given = randomise(Tiny(), 4)
    for number, state in enumerate((given.state_dict(), nn.DataParallel(given).state_dict())):
        torch.save(state, tmp_path / f"{number}.pt")
        network = nn.DataParallel(Tiny())
        fill(network, str(tmp_path / f"{number}.pt"))
        assert torch.equal(network.module.get_parameter("0.0.weight"), given.get_parameter("0.0.weight"))


REFUSED: dict[str, tuple[Any, str]] = {
    "a module": (lambda network: network, r"holds an object of tests\.reference\.networks\.Tiny, which reading would"),
    "no head": (
        lambda network: {k: v for k, v in network.state_dict().items() if not k.startswith("5")},
        r"do not fit the network \(2 of its \d+ tensors are not there: 5\.weight, 5\.bias\)",
    ),
    "other classes": (
        lambda network: network.state_dict() | {"5.weight": torch.zeros(7, 12)},
        r"do not fit the network \(5\.weight is 7 × 12 in the file and 10 × 12 in the network\)",
    ),
    "another network": (lambda network: {"a.weight": torch.zeros(2)}, r"are not there: .*; the file has a\.weight\)"),
    "nothing": (lambda network: {}, "the file has no tensors"),
    "numbers": (lambda network: [1, 2], "do not fit"),
    "not a number": (
        lambda network: network.state_dict() | {"5.bias": torch.full((10,), torch.nan)},
        r"5\.bias in .*a\.pt holds values that are no numbers",
    ),
    "infinite": (
        lambda network: network.state_dict() | {"5.bias": torch.full((10,), torch.inf)},
        r"5\.bias in .*a\.pt holds values that are no numbers \(NaN\) or infinite",
    ),
    "whole numbers": (
        lambda network: network.state_dict() | {"5.bias": torch.ones(10, dtype=torch.int8)},
        r"5\.bias in .*a\.pt is of int8, and no such number in the network",
    ),
    "floats of a byte": (
        lambda network: network.state_dict() | {"5.bias": torch.ones(10).to(torch.float8_e4m3fn)},
        r"5\.bias in .*a\.pt is of float8_e4m3fn, and no such number in the network",
    ),
    "complex numbers": (
        lambda network: network.state_dict() | {"5.bias": torch.ones(10, dtype=torch.complex64)},
        r"5\.bias in .*a\.pt is of complex64",
    ),
    "an optimiser's alone": (lambda network: {"optimizer": {"exp_avg": network.state_dict()}}, "are not there"),
}


REFUSED["on meta"] = (
    lambda network: network.to("meta").state_dict(),
    r"0\.weight in .*a\.pt is on the device meta, without values: save",
)


def _archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.zeros(2))
    return file.getvalue()


def test_of_tables_that_fit_as_well_it_is_said_that_there_are_others(tmp_path: Path) -> None:
    given, network = randomise(Tiny(), 4).state_dict(), Tiny()
    torch.save({"last": given, "best": OTHER}, tmp_path / "a.pt")
    taken, others = fill(network, str(tmp_path / "a.pt"))
    assert "the table 'last'" in taken
    assert others == f"'best' of {tmp_path / 'a.pt'} would fit as well: save the state_dict() that is meant by itself"
    assert torch.equal(network.state_dict()["5.bias"], given["5.bias"])


FILES: dict[str, tuple[bytes, str]] = {
    "NumPy's archive": (_archive(), "it is a zip of other files, such as NumPy's .npz"),
    "nothing": (b"", "it is empty; fetch it again"),
    "an index of parts": (b'{"weight_map": {}}', "it is JSON, such as the index of weights in several files"),
    "the beginning": (b"PK\x03\x04" + bytes(200), "it ends too early, as a download"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_weights_are_told_as_what_they_are(kind: str, tmp_path: Path) -> None:
    content, told = FILES[kind]
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UnknownModel, match=rf"not a state dict that can be read safely.*{told}"):
        fill(Tiny(), str(tmp_path / "a.pt"))


def test_a_file_that_was_changed_since_it_was_written_is_refused(tmp_path: Path) -> None:
    """One bit of one weight: torch compares no checksums, and would give another network."""
    file = tmp_path / "a.pt"
    for compared in (True, False):
        torch.serialization.set_crc32_options(compared)
        torch.save(randomise(Tiny(), 4).state_dict(), file)
        torch.serialization.set_crc32_options(True)
        fill(Tiny(), str(file))
        weight = randomise(Tiny(), 4).state_dict()["5.bias"].numpy().tobytes()
        content = file.read_bytes()
        at = content.index(weight) + 2
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        if compared:
            with pytest.raises(UnknownModel, match=r"'.*data/\d+' inside .*a\.pt is not as it was written"):
                fill(Tiny(), str(file))
        else:  # nothing is known of it
            fill(Tiny(), str(file))


@pytest.mark.parametrize(
    "how",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.spectral_norm,
        lambda module: prune.l1_unstructured(module, "weight", amount=0.5),
    ],
    ids=["weight_norm", "spectral_norm", "old spectral_norm", "pruned"],
)
def test_weights_that_are_made_of_others_say_so(how: Callable[[nn.Module], object], tmp_path: Path) -> None:
    network = Tiny()
    how(network[5])
    torch.save(network.state_dict(), tmp_path / "a.pt")
    torch.save(Tiny().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(UnknownModel, match=r"a\.pt has 5\..*, of which .*the network 5\.weight: save it after"):
        fill(Tiny(), str(tmp_path / "a.pt"))
    with pytest.raises(UnknownModel, match=r"plain\.pt has 5\.weight, of which .*factory that makes the network"):
        fill(network, str(tmp_path / "plain.pt"))
    fill(network, str(tmp_path / "a.pt"))


def test_safetensors_are_known_by_their_content_and_tell_where_they_end(tmp_path: Path) -> None:
    given, network = randomise(Tiny(), 4), randomise(Tiny(), 5)
    save_file(dict(given.state_dict()), tmp_path / "model.bin", metadata={"format": "pt", "step": "3"})
    fill(network, str(tmp_path / "model.bin"))
    assert torch.equal(network.state_dict()["5.bias"], given.state_dict()["5.bias"])
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.bin").read_bytes()[:-9])
    with pytest.raises(UnknownModel, match="it ends too early, as a download"):
        fill(network, str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_in_one_plain_sentence(kind: str, tmp_path: Path) -> None:
    what, told = REFUSED[kind]
    torch.save(what(randomise(Tiny(), 4)), tmp_path / "a.pt")
    with pytest.raises(UnknownModel, match=told) as caught:
        fill(Tiny(), str(tmp_path / "a.pt"))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("begins", "told"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "pointer of Git LFS.*git lfs pull"),
        ("<!DOCTYPE html><html>", "page of text, as a download that failed"),
    ],
)
def test_files_of_text_are_told_as_what_they_are(begins: str, told: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{ending}"
    file.write_text(begins)
    with pytest.raises(UnknownModel, match=rf"not a state dict that can be read safely.*{told}"):
        fill(Tiny(), str(file))


def test_a_program_is_told_as_such(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this way of saving is old
        torch.jit.trace(Tiny().eval(), torch.zeros(1, 3, 32, 32)).save(str(tmp_path / "a.pt"))
        with pytest.raises(UnknownModel, match="TorchScript program; save the state_dict"):
            fill(Tiny(), str(tmp_path / "a.pt"))


def test_one_of_several_files_is_told_as_such(tmp_path: Path) -> None:
    own = sorted(Tiny().state_dict().items())
    file = tmp_path / "model-00001-of-00002.safetensors"
    save_file(dict(own[:2]), file)
    with pytest.raises(UnknownModel, match=r"is one of several files, and \d+ of the network's \d+ tensors lie in the"):
        fill(Tiny(), str(file))


def test_an_empty_file_of_safetensors_has_no_tensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UnknownModel, match="the file has no tensors"):
        fill(Tiny(), str(tmp_path / "a.safetensors"))
