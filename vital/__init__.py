"""VITAL: pictures of what a neuron responds to, and where its evidence lies. The algorithm: torch and NumPy, no
storage, no orchestrator.

::

    model = vital.load_model("resnet50")               # or vital.wrap(module, side=224, mean=…, std=…)
    model.layers()                                     # a table: channels, sites, nodes matched by default
    vital.render(model, "layer4.2:7", photos)          # a Picture
    vital.relevance(model, "layer4.2:7", photos)       # a named array (image, row, column)

Nothing heavy is imported before it is asked for. The folders below hold the parts: `vital.network`,
`vital.propagation` (relevance), `vital.measuring`, `vital.pictures`, `vital.judging`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vital.errors import VitalError
    from vital.measuring.maps import relevance
    from vital.network.models import Model, load_model, wrap
    from vital.network.nodes import LayerTable
    from vital.pictures.render import Picture, render
    from vital.settings import ModelSettings, PictureSettings

__all__ = [
    "LayerTable",
    "Model",
    "ModelSettings",
    "Picture",
    "PictureSettings",
    "VitalError",
    "load_model",
    "relevance",
    "render",
    "wrap",
]

_MODULES = {
    "LayerTable": "vital.network.nodes",
    "Model": "vital.network.models",
    "ModelSettings": "vital.settings",
    "Picture": "vital.pictures.render",
    "PictureSettings": "vital.settings",
    "VitalError": "vital.errors",
    "load_model": "vital.network.models",
    "relevance": "vital.measuring.maps",
    "render": "vital.pictures.render",
    "wrap": "vital.network.models",
}


def __getattr__(name: str) -> Any:
    """What `__all__` has, imported when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vital' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
