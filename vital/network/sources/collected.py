"""Networks that other packages collect, by name: ``timm/NAME``, ``hf/ORGANISATION/NAME`` (transformers) and
``open_clip/ARCHITECTURE/WEIGHTS``, with their own preprocessing. A package is imported when it is first asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import floor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vital.errors import UnknownModel, VitalError, nearest
from vital.network.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vital.network.sources.cached import cached_file
from vital.network.sources.loaded import RANDOM, Loaded
from vital.network.sources.torchvision_networks import torchvision_models
from vital.network.sources.weight_files import fill
from vital.settings import ModelSettings

PIXELS = "pixel_values"
"""What transformers call images that a network is given."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a repository's weights are called, the safest first."""


def of(name: str) -> Callable[[ModelSettings], Loaded] | None:
    """What loads the networks of this name's collection, if it is of one."""
    return {"timm": from_timm, "hf": from_transformers, "open_clip": from_open_clip}.get(name.partition("/")[0])


def from_timm(settings: ModelSettings) -> Loaded:
    """``timm/NAME`` with its weights, those of a file, or random ones; for other channels where they are asked for, to
    which timm fits published weights."""
    torchvision_models()  # timm imports torchvision, which may need help
    timm = _package("timm", settings.name, "timm")
    name = settings.name.partition("/")[2]
    known = timm.list_models() + timm.list_pretrained()
    if name not in known:
        raise UnknownModel(f"timm has no model {name!r}; the nearest are {nearest(name, known)}")
    published = timm.get_pretrained_cfg(name)
    notes: tuple[str, ...] = ()
    taken = {} if settings.channels in (None, 3) else {"in_chans": settings.channels}
    with _made_by("timm", settings.name):
        if settings.weights is None:
            file = _timm_file(published, settings)
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file}, **taken)
        else:
            network = timm.create_model(name, pretrained=False, **taken)
            notes = fill(network, settings.weights) if settings.weights != RANDOM else ()
        data = importlib.import_module("timm.data")
        usual = data.resolve_data_config(model=network)
        subset = data.infer_imagenet_subset(network)
        info = data.ImageNetInfo(subset) if subset else None
    side = int(usual["input_size"][-1])
    names = tuple(info.index_to_description(index) for index in range(info.num_classes())) if info else ()
    preprocessing = Preprocessing(
        side,
        tuple(usual["mean"]),
        tuple(usual["std"]),
        floor(side / usual["crop_pct"]),
        "bilinear" if usual["interpolation"] == "random" else usual["interpolation"],
        squash=usual["crop_mode"] == "squash",
    )
    classes = getattr(network, "num_classes", None)
    return Loaded(network, preprocessing, names if len(names) == classes else (), notes, classifies=classes != 0)


def _timm_file(published: Any, settings: ModelSettings) -> str:
    if published is None or not published.has_weights:
        raise UnknownModel(f"timm has no weights for {settings.name!r}: give --weights with a file, or random")
    if published.hf_hub_id:
        names = (published.hf_hub_filename,) if published.hf_hub_filename else HUB_FILES
        return cached_file(settings.name, settings.download, published.hf_hub_id, names)
    return cached_file(settings.name, settings.download, url=published.url)


def from_transformers(settings: ModelSettings) -> Loaded:
    """``hf/ORGANISATION/NAME``, or ``hf/FOLDER`` as `save_pretrained` writes one: an image model of transformers."""
    torchvision_models()  # transformers imports torchvision, which may need help
    transformers = _package("transformers", settings.name, "hf")
    location = settings.name.partition("/")[2]
    if location.startswith("~") and not Path(location).is_dir():  # as for every other path
        with suppress(RuntimeError):  # nobody of that name
            location = str(Path(location).expanduser())
    if not Path(location).is_dir() and not settings.download:
        cached_file(settings.name, False, location, ("config.json",))
    local = {"local_files_only": not settings.download}
    with _made_by("transformers", settings.name):
        config = transformers.AutoConfig.from_pretrained(location, **local)
        heads = any("ForImageClassification" in name for name in config.architectures or ())
        kind = transformers.AutoModelForImageClassification if heads else transformers.AutoModel
        notes: tuple[str, ...] = ()
        if settings.weights is None:
            network = kind.from_pretrained(location, dtype=torch.float32, **local)
        else:
            network = kind.from_config(config)
            notes = fill(network, settings.weights) if settings.weights != RANDOM else ()
        network = getattr(network, "vision_model", network)  # of two towers the one that looks
        _check_looks(settings.name, network)
        usual = _processor(transformers, location, local)
    side = getattr(config, "vision_config", config)
    size = getattr(side, "image_size", None) or 224  # where it is no square, pictures have its shorter side
    preprocessing = _hf_preprocessing(usual, int(min(size) if isinstance(size, (list, tuple)) else size))
    labels = getattr(config, "id2label", {}) if heads else {}
    names = tuple(str(labels[index]) for index in sorted(labels))
    return Loaded(network, preprocessing, () if names[:1] == ("LABEL_0",) else names, notes, classifies=heads)


def _check_looks(name: str, network: torch.nn.Module) -> None:
    """Raises `UnknownModel` where transformers says that the network is given something else than pixels."""
    given = getattr(network, "main_input_name", PIXELS)
    if given != PIXELS and PIXELS not in inspect.signature(network.forward).parameters:
        kinds = {"input_ids": "text", "input_values": "sound", "input_features": "sound"}
        raise UnknownModel(
            f"{name} is a {type(network).__name__}, which takes {kinds.get(given, 'something else')} ({given}) and no "
            f"images ({PIXELS}): name an image model of transformers"
        )


def _processor(transformers: Any, location: str, local: Mapping[str, bool]) -> Mapping[str, Any]:
    """What the model's own ``preprocessor_config.json`` says; nothing where there is none."""
    kind = importlib.import_module("transformers.image_processing_base").ImageProcessingMixin
    try:
        usual: Mapping[str, Any] = kind.get_image_processor_dict(location, **local)[0]
    except OSError:
        return {}
    return usual


def _hf_preprocessing(usual: Mapping[str, Any], side: int) -> Preprocessing:
    size, crop = _sizes(usual.get("size")), _sizes(usual.get("crop_size"))
    cropped = bool(usual.get("do_center_crop", crop is not None)) and crop is not None
    resize = size[0] if size and usual.get("do_resize", True) else None
    # An old file says one number: of what is cropped afterwards the shorter side, else both.
    shortest = "shortest_edge" in usual["size"] if isinstance(usual.get("size"), Mapping) else cropped
    side = crop[0] if crop and cropped else (resize or side)
    if "crop_pct" in usual and resize:  # ConvNeXt's own: small images are cropped, large ones squashed
        side, shortest = resize, resize < 384
        resize = int(resize / usual["crop_pct"]) if shortest else resize
    unit = 255 * (usual.get("rescale_factor", 1 / 255) if usual.get("do_rescale", True) else 1.0)
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if usual.get("do_normalize", True):
        mean, std = tuple(usual.get("image_mean") or IMAGENET_MEAN), tuple(usual.get("image_std") or IMAGENET_STD)
    filter_ = Image.Resampling(usual.get("resample", Image.Resampling.BILINEAR)).name.lower()
    mean, std = (tuple(part / unit for part in parts) for parts in (mean, std))
    return Preprocessing(side, mean, std, resize or side, filter_, squash=not shortest)  # type: ignore[arg-type]


def _sizes(size: Any) -> tuple[int, int] | None:
    """Height and width, or the shorter side twice, as image processors write them."""
    if isinstance(size, Mapping):
        values = [size[name] for name in ("shortest_edge", "height", "width") if size.get(name)]
        return (int(values[0]), int(values[-1])) if values else None
    return (int(size), int(size)) if isinstance(size, int) else None


def from_open_clip(settings: ModelSettings) -> Loaded:
    """``open_clip/ARCHITECTURE/WEIGHTS``: the tower that looks at images; its output is the embedding."""
    torchvision_models()
    package = _package("open_clip", settings.name, "clip")
    _, architecture, tag = (settings.name + "//").split("/")[:3]
    known = package.list_models()
    if architecture not in known:
        raise UnknownModel(f"open_clip has no model {architecture!r}; the nearest are {nearest(architecture, known)}")
    weights = settings.weights or tag or None
    tags = package.list_pretrained_tags_by_model(architecture)
    if weights not in tags and weights != RANDOM and not (weights and Path(weights).is_file()):
        raise UnknownModel(
            f"{architecture} has no weights {weights!r}: choose from {', '.join(tags) or 'none'}, as "
            f"open_clip/{architecture}/WEIGHTS, or give --weights with a file"
        )
    file = None if weights == RANDOM else weights
    if weights in tags:
        file = _clip_file(package.get_pretrained_cfg(architecture, weights), settings)
    with _made_by("open_clip", settings.name):
        quick = {"force_quick_gelu": True} if weights == "openai" else {}
        model = package.create_model(architecture, pretrained=file, **quick)
        usual = package.get_model_preprocess_cfg(model)
    side = usual["size"][0] if isinstance(usual["size"], (tuple, list)) else usual["size"]
    preprocessing = Preprocessing(
        int(side),
        tuple(usual["mean"]),
        tuple(usual["std"]),
        int(side),
        usual["interpolation"],
        squash=usual.get("resize_mode", "shortest") == "squash",
    )
    return Loaded(model.visual, preprocessing, classifies=False)


def _clip_file(published: Mapping[str, Any], settings: ModelSettings) -> str:
    hub = published.get("hf_hub", "")
    if hub:
        repository, _, name = hub.rpartition("/")
        names = (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        return cached_file(settings.name, settings.download, repository, names)
    return cached_file(settings.name, settings.download, url=published["url"])


def _package(name: str, model: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnknownModel(f"{model} needs the package {error.name}: pip install 'vital-atlas[{extra}]'") from error


@contextmanager
def _made_by(package: str, name: str) -> Iterator[None]:
    """Random weights are the same every time; what the package itself refuses is told as its own."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    except VitalError:
        raise
    except Exception as error:  # packages raise whatever they like
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnknownModel(f"{package} cannot make {name} ({why}): see that package for what it takes") from error
