"""Dictionaries from files, as they are trained elsewhere: SAELens, saev, Overcomplete, or plain arrays. Nothing in a
file is run, and none of these packages is needed.

What is done to the input before the encoder, and centres, scales and norms that are the same for every image, is folded
into weights and biases; so the centre of a decoder is, where the encoder subtracts it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from vital.errors import UnsuitableInput
from vital.network.neurons import Dictionary
from vital.network.neurons.dictionaries import Normalisation
from vital.network.sources.dictionaries.encoders import Encoder, Unreadable, with_decoder
from vital.network.sources.dictionaries.overcomplete import overcomplete
from vital.network.sources.dictionaries.parts import Arrays, arrays_of, count, table, wanted
from vital.network.sources.dictionaries.saelens import saelens
from vital.network.sources.dictionaries.saev import saev
from vital.network.sources.weight_files import cause, harmless

WAY_BACK = ("decoder", "decoder_bias")
TENSORS = "save its tensors alone: the state_dict(), with top_k beside it, or plain arrays with numpy.savez"
"""What to do with a file that holds more. A state dict alone does not say what an encoder ends in."""
PLAIN = ("weight", "bias", "centre", "scale", "threshold", "k", "normalisation", "layer", *WAY_BACK)
"""Keys of a plain file."""
NORMALISATIONS: Mapping[str, Normalisation] = {"none": "none", "norm": "norm", "layer": "layer"}


def read_dictionary(file: str | Path) -> tuple[str, Dictionary]:
    """A dictionary and its name, that of the file without its ending, or of the folder that SAELens wrote.

    Raises `UnsuitableInput` where there is none, reading it would run it, or its format is not known or has no encoder
    of one linear map.
    """
    path = Path(file)
    if not path.exists():
        raise UnsuitableInput(
            f"no dictionary at {path}: give a folder of SAELens, a file of saev or Overcomplete, or an .npz"
        )
    try:
        dictionary = _read(path)
    except Unreadable as error:
        raise UnsuitableInput(f"{path} is no dictionary that can be read: {error}") from None
    except (ValueError, IndexError) as error:  # of NumPy: shapes that do not fit each other
        raise UnsuitableInput(
            f"{path} is no dictionary that can be read: its arrays do not fit together ({str(error).strip()}); give "
            "the file as its program wrote it"
        ) from None
    folder = dictionary.source == "SAELens" and path.is_file()
    return (path.parent if folder else path).name.partition(".")[0], dictionary


def _read(path: Path) -> Dictionary:
    if path.suffix == ".npy":
        raise Unreadable("an array alone has no encoder's bias and ending; give it as --directions, or as an .npz")
    if path.is_dir() or path.suffix == ".safetensors":
        return _from_safetensors(path)
    if path.suffix == ".npz":
        if not zipfile.is_zipfile(path):
            what = "is no archive of arrays" if path.stat().st_size else "is empty"
            raise Unreadable(f"it {what}; write plain arrays with numpy.savez")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _plain(dict(arrays), "npz")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise Unreadable(f"{error}; write plain arrays with numpy.savez") from None
    content = path.read_bytes()
    if content.startswith(b"{"):
        header, _, rest = content.partition(b"\n")
        return saev(table(header, "its first line"), arrays_of(_loaded(rest, path)))
    return _of_torch(_loaded(content, path))


def _loaded(content: bytes, path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(harmless()):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different one for each kind of broken file
        raise Unreadable(cause(error, str(path), TENSORS)) from None


def _of_torch(content: Any) -> Dictionary:
    inner = content.get("state_dict") if isinstance(content, Mapping) else None
    state, arrays = (content, arrays_of(content)) if inner is None else (inner, arrays_of(inner))
    if "weight" not in arrays:
        return overcomplete(arrays, content if inner is None else {**inner, **content})
    # numbers and words may be saved as what they are in Python
    given = {name: np.asarray(value) for name, value in state.items() if isinstance(value, int | float | str)}
    return _plain({name: value for name, value in (given | arrays).items() if name in PLAIN}, "torch")


def _plain(arrays: Arrays, source: str) -> Dictionary:
    """Of arrays with the keys of `PLAIN`."""
    if unknown := [name for name in arrays if name not in PLAIN]:
        raise Unreadable(f"it holds {', '.join(sorted(unknown)[:6])}; the keys of a plain file are {', '.join(PLAIN)}")
    (weight,) = wanted(arrays, "weight")
    named = str(arrays.get("normalisation", "none"))
    if named not in NORMALISATIONS:
        raise Unreadable(f"its normalisation is {named!r}; it is one of {', '.join(NORMALISATIONS)}")
    rest: dict[str, Any] = {name: arrays[name] for name in ("bias", "centre", "scale", "threshold") if name in arrays}
    back = {name: arrays[name] for name in WAY_BACK if name in arrays}
    bad = [name for name, value in {"weight": weight, **rest, **back}.items() if value.dtype.kind not in "fiu"]
    if bad:
        raise Unreadable(f"its {bad[0]} holds {arrays[bad[0]].dtype}; numbers were expected")
    made = Encoder(source, weight, k=count(arrays.get("k")), normalisation=NORMALISATIONS[named], **rest).folded()
    return with_decoder(made, back.get("decoder"), back.get("decoder_bias", 0.0), arrays.get("layer", ""))


def _from_safetensors(path: Path) -> Dictionary:
    folder = path if path.is_dir() else path.parent
    weights = folder / "sae_weights.safetensors" if path.is_dir() else path
    settings, scaler = folder / "cfg.json", folder / "activation_scaler.json"
    if not weights.is_file():
        raise Unreadable("it is a folder without sae_weights.safetensors; give a folder as SAELens writes it")
    try:
        state = load_file(weights)
    except Exception as error:  # of safetensors and of torch: whatever the damage leads to
        raise Unreadable(cause(error, str(weights))) from None
    arrays = arrays_of(state)
    if "weight" in arrays and not settings.is_file():
        return _plain(arrays, "safetensors")
    if not settings.is_file():
        wanted(arrays, "W_enc")
        raise Unreadable("there is no cfg.json beside it, which says what SAELens made; put it there")
    factor = table(scaler.read_bytes(), str(scaler)).get("scaling_factor") if scaler.is_file() else None
    return saelens(table(settings.read_bytes(), str(settings)), arrays, factor)
