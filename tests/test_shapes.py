"""Shapes in signatures are checked in every module of the three packages that has any."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from flows.cli.parsing import command_line
from flows.running.neurons import joined_blocks
from stores.pages.content import NeuronPage
from tests import checking
from tests.conftest import PACKAGES, is_unchecked
from vital.measuring.rows import resample, site_levels

ROOT = Path(__file__).parents[1]
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def test_every_module_is_checked_but_those_of_flows() -> None:
    unchecked = []
    for file in FILES:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        spec = importlib.import_module(name).__spec__
        assert spec is not None
        if not type(spec.loader).__module__.startswith("jaxtyping"):
            unchecked.append(file)
    assert unchecked == [file for file in FILES if is_unchecked(file)]


def test_modules_of_flows_have_no_arrays() -> None:
    for file in filter(is_unchecked, FILES):
        text = file.read_text("utf-8")
        assert "\n@flow(" in text, file
        assert not {"jaxtyping", "numpy", "torch"} & set(text.replace(".", " ").split()), file


def test_a_wrong_shape_is_refused_in_each_package() -> None:
    with pytest.raises(TypeCheckError, match="live"):
        joined_blocks(np.ones((2, 3), bool), 4)
    with pytest.raises(TypeCheckError, match="pixels"):
        NeuronPage(0, np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(TypeCheckError, match="rows"):
        resample(torch.ones(()), site_levels(3), site_levels(4))


def test_a_function_within_another_is_checked_whenever_it_is_defined_and_nothing_of_it_stays() -> None:
    def scaled(by: Tensor) -> Callable[..., Any]:
        @jaxtyping.jaxtyped(typechecker=checking.checked)
        def within(
            rows: Float[Tensor, "n m"], more: Float[Tensor, "n"], less: Float[Tensor, "n"] | None = None
        ) -> Float[Tensor, "n"]:
            return rows.sum(1) * by + more - (0 if less is None else less)

        return within

    rows = torch.ones(2, 3)
    first, second = torch.tensor(1.0), torch.tensor(2.0)
    one, two = scaled(first), scaled(second)
    for _ in range(2):
        assert two(rows, rows[:, 0]).tolist() == [7, 7]
        assert one(rows, rows[:, 0]).tolist() == [4, 4]
        assert one(rows, rows[:, 0], rows[:, 0]).tolist() == [3, 3]
        with pytest.raises(TypeCheckError, match="within"):
            two(rows, rows[:, 0], rows)
        for again, given in ((one, rows), (two, rows[0]), (scaled(second), rows)):
            with pytest.raises(TypeCheckError, match="within"):
                again(given, rows[0])
    with pytest.raises(TypeCheckError, match="within"):
        scaled(torch.ones(5, 1))(rows, rows[:, 0])  # its result
    kept = weakref.ref(first)
    del one, again, first
    gc.collect()  # errors have held the calls that raised them
    assert kept() is None


def test_where_checks_are_spared_a_function_s_first_calls_are_checked_in_every_test() -> None:
    def wrong() -> None:
        resample(torch.ones(()), site_levels(3), site_levels(4))

    try:
        for _ in range(2):
            checking.spare(True)
            for _ in range(checking.SEVERAL):
                resample(torch.ones(2, 3), site_levels(3), site_levels(4))
            with pytest.raises(IndexError):  # of the function itself
                wrong()
            checking.spare(True)
            with pytest.raises(TypeCheckError, match="rows"):
                wrong()
    finally:
        checking.spare(False)
    for _ in range(checking.SEVERAL):
        resample(torch.ones(2, 3), site_levels(3), site_levels(4))
    with pytest.raises(TypeCheckError, match="rows"):
        wrong()


def test_where_checks_are_spared_a_command_is_read_as_ever() -> None:
    """The parameters of one that was asked 25 times in a test were texts: "'str' object is not callable"."""
    try:
        checking.spare(True)
        for number in range(checking.SEVERAL):
            lines = command_line("info")(["info", "a.zarr", "--watch"] if number % 2 else ["info", "b.zarr", "c.zarr"])
            assert lines is not None
    finally:
        checking.spare(False)
