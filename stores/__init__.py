"""What lies on disk: the statistics of a network on a data set, and atlases of pictures.

    s = stores.open_statistics("stats.zarr")
    a = stores.open_atlas("atlas.zarr")
    a["layer4.2", 7]            # a picture; shows itself in a notebook
    a.dataset("layer4.2")       # xarray; what was not made is masked

Nothing here knows torch. The rest is imported when it is asked for, since Zarr takes a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stores.atlas.layer import AtlasLayer
    from stores.atlas.naming import Naming
    from stores.atlas.picture import AtlasPicture
    from stores.atlas.store import Atlas, open_any, open_atlas
    from stores.dataset.kept.neurons import Sample
    from stores.dataset.kept.references import References
    from stores.dataset.store import Statistics, open_statistics
    from stores.dataset.targets import Targets

_MODULES = {
    "Atlas": "stores.atlas.store",
    "AtlasLayer": "stores.atlas.layer",
    "AtlasPicture": "stores.atlas.picture",
    "Naming": "stores.atlas.naming",
    "References": "stores.dataset.kept.references",
    "Sample": "stores.dataset.kept.neurons",
    "Statistics": "stores.dataset.store",
    "Targets": "stores.dataset.targets",
    "open_any": "stores.atlas.store",
    "open_atlas": "stores.atlas.store",
    "open_statistics": "stores.dataset.store",
}
__all__ = [
    "Atlas",
    "AtlasLayer",
    "AtlasPicture",
    "Naming",
    "References",
    "Sample",
    "Statistics",
    "Targets",
    "open_any",
    "open_atlas",
    "open_statistics",
]


def __getattr__(name: str) -> Any:
    """What `__all__` has, imported when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'stores' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
