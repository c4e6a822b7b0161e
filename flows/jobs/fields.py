"""Kinds of fields that several jobs have, and how the command describes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from stores.files import has_secret, local_path, safe_url


def without_secret(location: str) -> str:
    """The path or URL; raises ValueError with the way out where it holds a password or a signed query."""
    if has_secret(location):
        raise ValueError(
            f"{safe_url(location)} was given with a password or a signed query, and what a job says is kept in "
            "Prefect's database: give credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "fsspec's FSSPEC_… variables), and the plain URL"
        )
    return location


Location = Annotated[str, Field(min_length=1), AfterValidator(without_secret)]
"""A path or an fsspec URL."""


def _local(location: str) -> str:
    path = local_path(location)
    if path is None:
        raise ValueError(
            f"pages are written into a folder, and {safe_url(location)} is a URL: give a folder, and copy it"
        )
    return str(path)


Folder = Annotated[str, Field(min_length=1), AfterValidator(_local)]
"""A path on this machine."""


def _auto_or_number(batch: object) -> object:
    if batch != "auto" and not (str(batch).isdecimal() and int(str(batch)) > 0):
        raise ValueError(f"auto or a number from 1 was expected, but {str(batch)!r} was given")
    return batch


Batch = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_auto_or_number)]
BATCH = "pictures optimised together; auto measures one and takes what fits. Halved when memory runs out"
IMAGES = "images forwarded together; auto is 32, on a GPU 128. Halved when memory runs out"

TOGETHER = "references in one pass; auto takes 8 on a CPU, and what fits on a GPU. Halved when memory runs out"
LABELS = (
    "which class of the network a label is: match, by what the data set's classes are called; number, as it stands; "
    "ignore; or a JSON file of classes and the network's numbers or names  [default: match]"
)
LABEL_KEY = (
    "what says the class of a sample: the ending of its file, such as cls or txt, or a key of its .json, such as label"
)
PRECISION = "arithmetic of the network: float32 is exact, tf32 and bfloat16 are faster on a GPU; kept in the store"

LABEL_WORDS = ("match", "number", "ignore")
"""What ``labels`` may say instead of a file."""

CLASS_WORDS = "classes"
"""What ``vocabulary`` may say instead of a file."""

Source = Literal["stored", "fly"]
SOURCE = (
    "where targets come from: stored, by `vital targets`; or fly, measured by the task that makes the pictures, and "
    "not stored"
)
