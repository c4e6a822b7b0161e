"""Weights from files, as training scripts leave them: plain, wrapped, with names before the network's own, or as
safetensors. Nothing in a file is run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vital.errors import UnknownModel

State = Mapping[str, Tensor]

_FAVOURED = ("ema", "teacher", "swa", "averaged")
"""In the name of what training scripts keep beside the network and evaluate: its average over steps."""
_ASIDE = ("encoder_k", "momentum", "target")
"""In the name of a copy that training scripts only compare with (MoCo, BYOL), and do not evaluate."""
_OF_OPTIMISER = re.compile(r"optim|exp_avg|momentum_buffer|(^|[._])grad", re.IGNORECASE)
"""In the name of tables that have a tensor of each weight's shape, and no weight."""
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""What torch.compile, FSDP and activation checkpointing put into names, wherever a module was wrapped."""
_DEPTH = 5
_READ = 1 << 20
ZIP = b"PK\x03\x04"
"""What `torch.save` begins a file with."""
_PART = re.compile(r"-\d{5}-of-\d{5}\.")
"""In the name of a file that holds a part of the weights, as `save_pretrained` and `save_torch_model` number them."""


@dataclass(frozen=True)
class Weights:
    """Tables of tensors found in a file, by where in it they were; the file itself is ``""``."""

    file: str
    tables: Mapping[str, State]

    def only(self) -> State:
        """The table, or the first of several."""
        return next(iter(self.tables.values()))

    def fitted(self, network: nn.Module) -> tuple[State, tuple[str, ...]]:
        """The tensors under the network's own names, and sentences on what was opened and what was left out.

        Of several tables, and of several names before the network's own, those with most of its tensors are taken; of
        equals an average over steps (EMA, teacher), which is what such scripts evaluate.
        """
        names = {_plain(name): name for name in network.state_dict()}
        outer = _common_prefix(names)
        inner = {name.removeprefix(outer): own for name, own in names.items()}
        choices = [
            (table, prefix, {inner[name]: tensor for name, tensor in tensors.items() if name in inner})
            for table, state in self.tables.items()
            for prefix, tensors in _readings({_plain(key): tensor for key, tensor in state.items()}, inner)
        ]
        worth = [(len(state), _favour(f"{table}.{prefix}"), -len(prefix)) for table, prefix, state in choices]
        best = worth.index(max(worth))
        table, prefix, state = choices[best]
        if not worth[best][1][0]:  # nothing but an optimiser's
            state = {}
        notes = []
        if table or prefix:
            where = [f"the table {table!r}"] * bool(table) + [f"names that begin with {prefix!r}"] * bool(prefix)
            notes.append(f"of {self.file} {' and '.join(where)} were taken")
        equals = [one for one, value in zip(choices, worth, strict=True) if value[:2] == worth[best][:2]]
        others = sorted({repr(f"{one[0]}.{one[1]}".strip(".")) for one in equals if one is not choices[best]})
        if others and state:
            notes.append(
                f"{_few(others)} of {self.file} would fit as well: save the state_dict() that is meant by itself"
            )
        dropped = sorted({_plain(key) for key in self.tables[table]} - {prefix + name for name in inner})
        if dropped and state:
            notes.append(
                f"{len(dropped)} tensors of {self.file} are not the network's and were left out: {_few(dropped)}"
            )
        return state, tuple(notes)


def fill(network: nn.Module, weights: str | Weights) -> tuple[str, ...]:
    """Give the network the weights of a file; returns sentences on what was opened and what was left out.

    Raises `UnknownModel` where the file cannot be read safely, or lacks a tensor of the network.
    """
    weights = read_weights(weights) if isinstance(weights, str) else weights
    state, notes = weights.fitted(network)
    own = network.state_dict()
    # Counters and tables of positions are not learnt: older versions did not keep them.
    lacking = [name for name, tensor in own.items() if name not in state and tensor.is_floating_point()]
    shapes = [
        f"{name} is {_shape(state[name])} in the file and {_shape(own[name])} in the network"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if lacking or shapes:
        why = shapes or [f"{len(lacking)} of its {len(own)} tensors are not there: {_few(lacking)}"]
        found = next(iter(weights.tables.values()), {})
        if not shapes and (made := _made_of(lacking, weights)):
            raise UnknownModel(
                f"{weights.file} has {made}, of which weight_norm, spectral_norm or pruning makes a weight, and the "
                f"network {lacking[0]}: save it after remove_weight_norm, parametrize.remove_parametrizations or "
                "prune.remove, or give a factory that makes the network as it was saved"
            )
        if not shapes and state and _PART.search(Path(weights.file).name):
            raise UnknownModel(
                f"{weights.file} is one of several files, and {len(lacking)} of the network's {len(own)} tensors lie "
                "in the others: save all as one file, or name the folder as hf/FOLDER where transformers wrote it"
            )
        there = "" if shapes or state else f"; the file has {_few(list(found)) or 'no tensors'}"
        raise UnknownModel(
            f"the weights in {weights.file} do not fit the network ({why[0]}{there}): give those of this architecture"
        )
    for name in own:
        if name in state and (what := _without_values(state[name])):
            raise UnknownModel(f"{name} in {weights.file} is {what}: save the state_dict() of the network as trained")
    kinds = [(name, state[name].dtype) for name, one in own.items() if name in state and one.is_floating_point()]
    # floats of one byte, too, are shares of a scale that stands elsewhere
    if other := [(name, kind) for name, kind in kinds if not kind.is_floating_point or kind.itemsize < 2]:
        name, kind = other[0]
        raise UnknownModel(
            f"{name} in {weights.file} is of {str(kind).removeprefix('torch.')}, and no such number in the network: "
            "give weights as they were before they were quantised or packed"
        )
    # masks may hold infinities, but nothing is learnt that is no number
    learnt = dict(network.named_parameters())
    if lost := [name for name in own if name in state and _lost(state[name], name in learnt)]:
        raise UnknownModel(
            f"{lost[0]} in {weights.file} holds values that are no numbers (NaN) or infinite, as of a training that "
            "failed: give the weights of an earlier step"
        )
    network.load_state_dict(state, strict=False)
    return notes


def read_weights(file: str) -> Weights:
    """The tables of tensors of a file; raises `UnknownModel` where it is missing, or reading it would run it."""
    if not Path(file).is_file():
        raise UnknownModel(
            f"no weights file {file}: give a file of weights, or the name of published ones where the network has any"
        )
    try:
        if _is_safetensors(file):
            content: Any = load_file(file)
        else:
            with torch.serialization.safe_globals(harmless()):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different one for each kind of broken file
        raise UnknownModel(
            f"{file} is not a state dict that can be read safely (weights_only=True): {cause(error, file)}"
        ) from error
    if damaged := _damaged(file):
        raise UnknownModel(
            f"{damaged!r} inside {file} is not as it was written, by its checksum: a disk or a download changed it; "
            "fetch the file again"
        )
    tables = dict(_tables(content))
    return Weights(file, tables or {"": {}})


def _is_safetensors(file: str) -> bool:
    """By its name, or by its content: eight bytes of a length, and JSON."""
    with Path(file).open("rb") as read:
        begins = read.read(9)
    return begins[8:] == b"{" or (Path(file).suffix == ".safetensors" and not begins.startswith(ZIP))


def _damaged(file: str) -> str | None:
    """The first part of a file of `torch.save` that has not its checksum, which torch does not compare."""
    if not is_zipfile(file):
        return None
    with ZipFile(file) as parts:
        for part in parts.infolist():
            try:
                with parts.open(part) as read:
                    while part.CRC and read.read(_READ):  # 0: it was written without (set_crc32_options)
                        pass
            except (BadZipFile, OSError, ValueError):
                return part.filename
    return None


def _tables(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every table of tensors, the outermost first."""
    if (
        isinstance(content, list)
        and content
        and all(isinstance(one, (tuple, list)) and len(one) == 2 for one in content)
    ):
        content = dict(content) if all(isinstance(key, str) for key, _ in content) else None
    if isinstance(content, (list, tuple)):
        content = {str(number): one for number, one in enumerate(content) if isinstance(one, Mapping)}
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    tensors = {key: _tensor(value) for key, value in content.items() if isinstance(key, str)}
    state = {key: value for key, value in tensors.items() if value is not None}
    if any(value.dim() for value in state.values()):
        yield path, state
    for key, value in content.items():
        yield from _tables(value, f"{path}.{key}".removeprefix("."), depth + 1)


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value)
    if not isinstance(value, Tensor):
        return None
    return value.to_dense() if value.is_sparse else value


def _favour(name: str) -> tuple[bool, bool, bool]:
    """What speaks for a table of this name, or for names that begin so."""
    low = name.lower()
    return (
        not _OF_OPTIMISER.search(low),
        any(word in low for word in _FAVOURED),
        not any(word in low for word in _ASIDE),
    )


def _lost(tensor: Tensor, learnt: bool) -> bool:
    return bool((~tensor.isfinite() if learnt else tensor.isnan()).any())


def _made_of(lacking: list[str], weights: Weights) -> str | None:
    """What a file has in place of the first weight that it lacks: the parts that it is computed from, by the functions
    of torch.nn.utils; or the weight, in place of its parts."""
    plain = re.sub(r"(\.parametrizations)?\.(\w+?)(\.original\d*|_orig|_g|_v)$", r".\2", lacking[0])
    module, _, name = plain.rpartition(".")
    parts = rf"(^|\.){re.escape(module)}\.(parametrizations\.{name}\.\w+|{name}_(g|v|orig)|{name})$"
    keys = (key for table in weights.tables.values() for key in table if not key.endswith(lacking[0]))
    return next((key for key in keys if re.search(parts, key)), None)


def _without_values(tensor: Tensor) -> str:
    """What is wrong with a tensor whose values are not those of the network; nothing of any other."""
    if tensor.is_meta:
        return "on the device meta, without values"
    return "quantised" if tensor.is_quantized else ""


def _readings(state: State, names: Mapping[str, str]) -> Iterator[tuple[str, State]]:
    """The table with each beginning of its names taken off under which it has tensors of the network."""
    longest = sorted(names, key=len)[-1:] + list(names)[:1] + list(names)[-1:]
    prefixes = {key.removesuffix(name) for name in longest for key in state if key == name or key.endswith(f".{name}")}
    for prefix in sorted(prefixes | {""}):
        yield prefix, {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _plain(name: str) -> str:
    return _WRAPPERS.sub("", name).removeprefix(".")


def _common_prefix(names: Mapping[str, str]) -> str:
    """``module.`` where the network itself is wrapped (DataParallel)."""
    return "module." if names and all(name.startswith("module.") for name in names) else ""


def harmless() -> list[Any]:
    """What training scripts keep beside weights and runs nothing: command lines, NumPy's numbers and arrays."""
    core = import_module("numpy._core.multiarray")
    kinds = {type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    named = [(core.scalar, f"numpy.{part}.multiarray.scalar") for part in ("core", "_core")]
    named += [(core._reconstruct, f"numpy.{part}.multiarray._reconstruct") for part in ("core", "_core")]
    encode = import_module("_codecs").encode
    return [argparse.Namespace, np.ndarray, np.dtype, *kinds, *named, encode]


def cause(error: Exception, file: str, instead: str = "save the state_dict() alone") -> str:
    """Why a file cannot be read, and the way out: of one that holds more than numbers, what to do ``instead``."""
    with Path(file).open("rb") as read:
        begins = read.read(64)
    if begins.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, and the weights are elsewhere; fetch them with git lfs pull"
    if begins.lstrip()[:1] == b"<":
        return "it is a page of text, as a download that failed leaves; fetch it again"
    if not begins:
        return "it is empty; fetch it again"
    if begins.startswith(b"{"):
        return "it is JSON, such as the index of weights in several files; name a file that holds all weights"
    if (begins.startswith(ZIP) and not is_zipfile(file)) or "not fully covered" in str(error):
        return "it ends too early, as a download that was broken off leaves; fetch it again"
    if "not in a subdirectory" in str(error):
        return (
            "it is a zip of other files, such as NumPy's .npz; unpack it, or save the arrays as tensors with torch.save"
        )
    if "TorchScript archive" in str(error):
        return "it is a TorchScript program; save the state_dict() of what torch.jit.load gives with torch.save"
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    name = re.search(r"GLOBAL ([\w.]+)", text)
    if name:
        return f"it holds an object of {name[1]}, which reading would have to run; {instead}"
    said = (text.splitlines() or [""])[0][:200]
    if not re.search(r"[a-z]{3}", said):  # of a text that is taken for a pickle: the code of its first letter
        said = f"it is no file of weights ({type(error).__name__})"
    return f"{said}; save the state_dict() with torch.save"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"
