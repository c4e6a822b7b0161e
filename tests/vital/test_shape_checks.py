"""The shapes that vital's signatures state are checked while its tests run: in every module, without exception."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import vital
from vital.measuring.exact import exact_parts
from vital.measuring.rows import resample
from vital.network.neurons import importance
from vital.network.preprocessing import Preprocessing
from vital.pictures.optimise import optimise
from vital.pictures.pixels import to_bytes
from vital.settings import PictureSettings, VariantSettings, checked

FOLDER = Path(vital.__path__[0])


def modules() -> list[str]:
    """Names of all modules as the folder has them, whatever is loaded."""
    names = (".".join(file.relative_to(FOLDER.parent).with_suffix("").parts) for file in FOLDER.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names)


def functions(module: ModuleType) -> list[Any]:
    """Functions and methods that the module itself defines and annotates."""
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    members = [member for owner in (module, *classes) for member in vars(owner).values()]
    plain = [getattr(member, "__func__", member) for member in members]
    return [
        one
        for one in plain
        if inspect.isfunction(one)
        and one.__module__ == module.__name__
        and inspect.unwrap(one).__code__.co_filename == module.__file__
        and one.__annotations__
    ]


@pytest.mark.parametrize("name", modules())
def test_every_module_is_loaded_by_the_hook_that_checks_shapes(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__spec__ is not None
    assert type(module.__spec__.loader).__module__ == "jaxtyping._import_hook", "imported before the hook was installed"
    unchecked = [one.__qualname__ for one in functions(module) if inspect.unwrap(one) is one]
    assert not unchecked


def test_the_folder_has_the_modules_that_are_meant() -> None:
    assert {"vital", "vital.settings", "vital.pictures.optimise", "vital.propagation.rules"} <= set(modules())
    assert functions(importlib.import_module("vital.pictures.optimise"))


def test_wrong_shapes_and_types_are_refused() -> None:
    row = np.zeros(3)
    for call in (
        lambda: resample(torch.zeros(2, 3), row[None], row),
        lambda: exact_parts(torch.zeros(2, 3, dtype=torch.int64)),
        lambda: importance(torch.zeros(2, 3)),
        lambda: Preprocessing(8, (0.5,) * 3, (0.2,) * 3).crop(np.zeros((4, 4), np.uint8)),
        lambda: to_bytes(torch.zeros(3, 8, 8), Preprocessing(8, (0.5,) * 3, (0.2,) * 3)),
        lambda: optimise(None, None, PictureSettings()),  # type: ignore[arg-type]
        lambda: checked(PictureSettings, 3),  # type: ignore[arg-type]
        lambda: VariantSettings().label("yes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeCheckError):
            call()
