"""What the pages are made of besides data: scripts and styles, which are copied as they are, and templates.

The scripts of ``base`` are for every page, those of ``wall`` for the overview of a layer, those of ``neuron`` for a
neuron and for two of them compared.
"""

from importlib import resources
from typing import Any

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("stores.pages.assets", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def asset(name: str) -> bytes:
    """The script or style of this name, whichever folder it is in."""
    files = (folder / name for folder in resources.files(__name__).iterdir() if folder.is_dir())
    return next(file for file in files if file.is_file()).read_bytes()


def from_template(name: str, **values: Any) -> str:
    """The template filled in; every value is escaped, wherever it comes from."""
    return _TEMPLATES.get_template(name).render(values)
