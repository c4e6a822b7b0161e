"""Files of published weights: found in a local cache, and fetched only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vital.errors import UnknownModel


def cached_file(
    model: str, download: bool, repository: str = "", names: Sequence[str] = (), *, url: str | None = None
) -> str:
    """The path of a file: the first of ``names`` in a repository of the Hugging Face hub, or what a ``url`` leads to.

    Raises `UnknownModel` where it is not in the local cache and ``download`` is not set, or cannot be fetched.
    """
    if url:
        return _of_url(model, download, url)
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        cached = [hub.try_to_load_from_cache(repository, name) for name in names]
    except ValueError as error:  # no name of a repository
        raise UnknownModel(f"{model} cannot be found ({str(error).splitlines()[0]}): give ORGANISATION/NAME") from None
    there = next((file for file in cached if isinstance(file, str)), None)
    if there:
        return there
    if not download:
        raise _missing(model, hub.constants.HF_HUB_CACHE)
    why = ""
    for name in names:
        try:
            return str(hub.hf_hub_download(repository, name))
        except Exception as error:  # of the hub, or of any layer below it
            why = why or (str(error).splitlines() or [type(error).__name__])[0]
    raise UnknownModel(f"the weights of {model} cannot be fetched from {repository} ({why}): give a file instead")


def _of_url(model: str, download: bool, url: str) -> str:
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return str(file)
    if not download:
        raise _missing(model, str(file.parent))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except Exception as error:  # of any layer below
        raise UnknownModel(f"the weights of {model} cannot be fetched ({error}): give a file instead") from error
    return str(file)


def _missing(model: str, folder: str) -> UnknownModel:
    return UnknownModel(
        f"the weights of {model} are not in the local cache ({folder}): add --download (download=True) to fetch "
        "them, or give "
        "--weights with a file, or random"
    )
