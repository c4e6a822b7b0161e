"""Dictionaries from files, as they are trained elsewhere: SAELens, saev, Overcomplete, or plain arrays. Nothing in a
file is run, and none of these packages is needed.

What is done to the input before the encoder, and centres, scales and norms that are the same for every image, is folded
into weights and biases; so the centre of a decoder is, where the encoder subtracts it.
"""

from __future__ import annotations

import io
import json
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
from vital.network.sources.weight_files import cause, harmless

Arrays = Mapping[str, np.ndarray]

WAY_BACK = ("decoder", "decoder_bias")
PLAIN = ("weight", "bias", "centre", "scale", "threshold", "k", "normalisation", "layer", *WAY_BACK)
"""Keys of a plain file."""
NORMALISATIONS: Mapping[str, Normalisation] = {"none": "none", "norm": "norm", "layer": "layer"}
SAELENS: Mapping[str, Normalisation] = {"none": "none", "constant_norm_rescale": "norm", "layer_norm": "layer"}
"""How SAELens calls what is done to each site."""
BATCH_NORM = 1e-5
"""Added to a variance by torch's batch norms."""


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
    folder = dictionary.source == "SAELens" and path.is_file()
    return (path.parent if folder else path).name.partition(".")[0], dictionary


def _read(path: Path) -> Dictionary:
    if path.suffix == ".npy":
        raise Unreadable("an array alone has no encoder's bias and ending; give it as --directions, or as an .npz")
    if path.is_dir() or path.suffix == ".safetensors":
        return _from_safetensors(path)
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _plain(dict(arrays), "npz")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise Unreadable(f"{error}; write plain arrays with numpy.savez") from None
    content = path.read_bytes()
    if content.startswith(b"{"):
        header, _, rest = content.partition(b"\n")
        return _saev(_json(header.decode("utf-8", "replace"), "its first line"), _arrays(_loaded(rest, path)))
    return _overcomplete(_loaded(content, path))


def _loaded(content: bytes, path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(harmless()):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different one for each kind of broken file
        raise Unreadable(cause(error, str(path))) from None


def _arrays(state: Any) -> dict[str, np.ndarray]:
    """Tensors and arrays of a table as arrays."""
    if not isinstance(state, Mapping):
        raise Unreadable(f"it holds a {type(state).__name__}; save the state_dict() with torch.save")
    known = {name: value for name, value in state.items() if isinstance(value, torch.Tensor | np.ndarray)}
    try:  # NumPy has no bfloat16
        return {
            name: np.asarray(torch.as_tensor(value, device="cpu").to_dense().double().numpy())
            for name, value in known.items()
        }
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Unreadable(f"it holds what are no plain numbers ({error}); save floats") from None


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Unreadable(f"{where} is no JSON; fetch or write it again")
    return values


def _wanted(arrays: Arrays, *names: str) -> list[np.ndarray]:
    if missing := [name for name in names if name not in arrays]:
        raise Unreadable(
            f"it has no {' and no '.join(missing)} but {', '.join(list(arrays)[:6]) or 'no arrays'}; give the file as "
            "its program wrote it"
        )
    return [arrays[name] for name in names]


def _plain(arrays: Arrays, source: str) -> Dictionary:
    """Of arrays with the keys of `PLAIN`."""
    if unknown := [name for name in arrays if name not in PLAIN]:
        raise Unreadable(f"it holds {', '.join(sorted(unknown)[:6])}; the keys of a plain file are {', '.join(PLAIN)}")
    (weight,) = _wanted(arrays, "weight")
    named = str(arrays.get("normalisation", "none"))
    if named not in NORMALISATIONS:
        raise Unreadable(f"its normalisation is {named!r}; it is one of {', '.join(NORMALISATIONS)}")
    rest: dict[str, Any] = {name: arrays[name] for name in ("bias", "centre", "scale", "threshold") if name in arrays}
    back = {name: arrays[name] for name in WAY_BACK if name in arrays}
    bad = [name for name, value in {"weight": weight, **rest, **back}.items() if value.dtype.kind not in "fiu"]
    if bad:
        raise Unreadable(f"its {bad[0]} holds {arrays[bad[0]].dtype}; numbers were expected")
    made = Encoder(source, weight, k=_count(arrays.get("k")), normalisation=NORMALISATIONS[named], **rest).folded()
    return with_decoder(made, back.get("decoder"), back.get("decoder_bias", 0.0), arrays.get("layer", ""))


def _count(k: Any) -> int | None:
    """A whole number as a file has it; None stays."""
    value = np.asarray(k)
    if k is None or (value.ndim == 0 and value.dtype == object and value.item() is None):
        return None
    if value.size != 1 or value.dtype.kind not in "fiu" or float(value.item()) % 1 != 0:
        raise Unreadable(f"its k is {value.tolist()!r}; one whole number was expected")
    return int(value.item())


# SAELens: cfg.json and sae_weights.safetensors in one folder


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
    arrays = _arrays(state)
    if "weight" in arrays and not settings.is_file():
        return _plain(arrays, "safetensors")
    _wanted(arrays, "W_enc")
    if not settings.is_file():
        raise Unreadable("there is no cfg.json beside it, which says what SAELens made; put it there")
    factor = _json(scaler.read_text("utf-8"), str(scaler)).get("scaling_factor") if scaler.is_file() else None
    return _saelens(_json(settings.read_text("utf-8"), str(settings)), arrays, factor)


def _saelens(settings: Mapping[str, Any], arrays: dict[str, np.ndarray], factor: float | None) -> Dictionary:
    kind, k = settings.get("architecture", "standard"), settings.get("k")
    ends = settings.get("activation_fn", settings.get("activation_fn_str", "relu"))
    if ends == "topk":  # before its version 6
        kind, k = "topk", (settings.get("activation_fn_kwargs") or {}).get("k", k)
    if kind not in ("standard", "topk", "jumprelu", "gated") or ends not in ("relu", "topk"):
        raise Unreadable(
            f"its encoder is {kind!r} of SAELens, ending in {ends!r}; standard, topk, batchtopk, jumprelu and gated "
            "ones of ReLU are known"
        )
    named = settings.get("normalize_activations") or "none"
    if named in (True, "expected_average_only_in"):  # the factor is of the data set it was trained on
        if factor is None:
            raise Unreadable(
                "it expects activations of norm √channels on average and does not say by which factor; let SAELens "
                "fold it in (fold_activation_norm_scaling_factor), or put its activation_scaler.json into the folder"
            )
        named = "none"
    elif named not in SAELENS:
        raise Unreadable(f"it normalises by {named!r}; {', '.join(SAELENS)} are known, so let SAELens fold it in first")
    factor = factor or 1.0
    weight, centre = _wanted(arrays, "W_enc", "b_dec")
    on = settings.get("hook_name") or (settings.get("metadata") or {}).get("hook_name")  # there since its version 6
    weight, back = weight.T, arrays["W_dec"] / factor if "W_dec" in arrays else None
    rest: dict[str, Any] = {"normalisation": SAELENS[named], "scale": factor}
    rest["centre"] = centre / factor if settings.get("apply_b_dec_to_input", True) else 0.0
    if kind == "gated":  # the gate is open where the magnitude is above this: Rajamanoharan et al. (2024), appendix
        gate, bias, more = _wanted(arrays, "b_gate", "b_mag", "r_mag")
        weight = weight * np.exp(more)[:, None]
        made = Encoder("SAELens", weight, bias, threshold=(bias - np.exp(more) * gate).clip(min=0), **rest).folded()
        return with_decoder(made, back, centre / factor, on)
    (bias,) = _wanted(arrays, "b_enc")
    if settings.get("rescale_acts_by_decoder_norm"):
        norms = np.linalg.norm(_wanted(arrays, "W_dec")[0], axis=1)
        weight, bias = weight * norms[:, None], bias * norms
        back = None if back is None else back / norms[:, None]
    if kind == "jumprelu":
        if "log_threshold" in arrays:
            arrays["threshold"] = np.exp(arrays["log_threshold"])
        rest["threshold"] = _wanted(arrays, "threshold")[0].clip(min=0)
    if kind == "topk" and k is None:
        raise Unreadable("its cfg.json names no k; give it as SAELens wrote it")
    made = Encoder("SAELens", weight, bias, k=_count(k) if kind == "topk" else None, **rest).folded()
    return with_decoder(made, back, centre / factor, on)


# saev: a line of JSON, then a state dict


def _saev(header: Mapping[str, Any], arrays: Arrays) -> Dictionary:
    return with_decoder(_saev_encoder(header, arrays), arrays.get("W_dec"), arrays.get("b_dec", 0.0))


def _saev_encoder(header: Mapping[str, Any], arrays: Arrays) -> Dictionary:
    weight, bias = _wanted(arrays, "W_enc", "b_enc")
    if "schema" not in header:  # as in its first version, whose encoder subtracts the decoder's bias
        return Encoder("saev", weight.T, bias, centre=_wanted(arrays, "b_dec")[0]).folded()
    settings = header.get("cfg", {})
    ends = settings.get("activation") or {"cls": header.get("cls", "Relu"), "params": settings}
    kind, k = ends.get("cls"), (ends.get("params") or {}).get("top_k", 32)
    if kind == "BatchTopK" and "activation.threshold" in arrays:
        return Encoder("saev", weight.T, bias, threshold=arrays["activation.threshold"].clip(min=0)).folded()
    if kind in ("TopK", "BatchTopK"):  # it has no rectifier; without a threshold both keep the greatest of each site
        return Encoder("saev", weight.T, bias, threshold=-np.inf, k=min(_count(k) or 0, weight.shape[1])).folded()
    if kind not in ("Relu", "SparseAutoencoderConfig"):
        raise Unreadable(f"its encoder ends in {kind!r} of saev; Relu, TopK and BatchTopK are known")
    return Encoder("saev", weight.T, bias).folded()


# Overcomplete: a state dict, which does not say what its encoder ends in


def _overcomplete(content: Any) -> Dictionary:
    inner = content.get("state_dict") if isinstance(content, Mapping) else None
    state, beside = (content, content) if inner is None else (inner, {**inner, **content})
    arrays = _arrays(state)
    if "weight" in arrays:
        # numbers and words may be saved as what they are in Python
        given = {name: np.asarray(value) for name, value in state.items() if isinstance(value, int | float | str)}
        return _plain({name: value for name, value in (given | arrays).items() if name in PLAIN}, "torch")
    weight, bias = _overcomplete_map(arrays)
    made = _overcomplete_encoder(arrays, beside, weight, bias)
    back = _overcomplete_dictionary(arrays) if "dictionary._weights" in arrays else None
    return with_decoder(made, back, trained_on=beside.get("layer"))


def _overcomplete_encoder(
    arrays: Arrays, beside: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray | float
) -> Dictionary:
    if "thresholds" in arrays:  # kept as their logarithm
        return Encoder("Overcomplete", weight, bias, threshold=_below(np.exp(arrays["thresholds"]))).folded()
    threshold = beside.get("running_threshold")
    if threshold is not None:
        return Encoder("Overcomplete", weight, bias, threshold=max(float(_below(np.asarray(threshold))), 0.0)).folded()
    if "top_k" not in beside:
        raise Unreadable(
            "a state dict of Overcomplete does not say what its encoder ends in; save it with that beside: "
            "torch.save({'state_dict': sae.state_dict(), 'top_k': sae.top_k}, …), None for a plain ReLU, or "
            "'running_threshold' of a BatchTopKSAE"
        )
    return Encoder("Overcomplete", weight, bias, k=_count(beside["top_k"])).folded()


def _below(threshold: np.ndarray) -> np.ndarray:
    """It keeps what is as great as its threshold, others only what is greater."""
    return np.asarray(np.nextafter(threshold.astype(np.float32), np.float32(-np.inf)))


def _overcomplete_dictionary(arrays: Arrays) -> np.ndarray:
    return np.asarray(arrays["dictionary._weights"] * np.exp(arrays.get("dictionary.multiplier", np.zeros(()))))


def _overcomplete_map(arrays: Arrays) -> tuple[np.ndarray, np.ndarray | float]:
    """The linear map of an encoder, its batch norm folded in."""
    first, norm = "encoder.final_block.0", "encoder.final_block.1"
    if any(name.startswith("encoder.mlp_blocks") for name in arrays):
        raise Unreadable("its encoder has several layers; one linear map is expected")
    if "encoder.weight" in arrays:
        return arrays["encoder.weight"], arrays.get("encoder.bias", 0.0)
    own = {name for name in arrays if name.startswith("encoder.") and not name.startswith("encoder.tied_to.")}
    if own <= {"encoder.bias"} and "dictionary._weights" in arrays:
        return _overcomplete_dictionary(arrays), arrays.get("encoder.bias", 0.0)
    weight, bias = _wanted(arrays, f"{first}.weight", f"{first}.bias")
    if f"{norm}.running_var" in arrays:
        mean, variance = _wanted(arrays, f"{norm}.running_mean", f"{norm}.running_var")
        gain, shift = arrays.get(f"{norm}.weight", np.ones(1)), arrays.get(f"{norm}.bias", np.zeros(1))
        gain = gain / np.sqrt(variance + BATCH_NORM)
        return weight * gain[:, None], (bias - mean) * gain + shift
    if f"{norm}.weight" in arrays:
        raise Unreadable("its encoder normalises its features together; one linear map is expected")
    return weight, bias
