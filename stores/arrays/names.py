"""Names of layers and nodes as parts of a store's paths, and back: any name that a module can have."""

import re
from urllib.parse import unquote

from stores.errors import SchemaMismatch

RESERVED = (
    "own", "level", "count", "status", "done", "runs", "lowest", "zarr.json", "reference_facet", "p_value",
)  # fmt: skip
"""What stands beside layers or nodes in some group, and no layer or node may be called in a path."""
MOST_BYTES = 240
"""Of a part of a path; the usual file systems take 255."""


def placed(name: str) -> str:
    """The name as one part of a path: letters, digits and ``._-+,@~`` as they are, every other byte as ``=`` and two
    hexadecimal digits. So is a first character that would make a reserved or hidden name.

    ``=`` and not ``%``, which URLs decode. Different names have different parts; `unplaced` is the inverse.

    >>> placed("layer4.2@3,3"), placed("model/conv:1"), placed("own")
    ('layer4.2@3,3', 'model=2Fconv=3A1', '=6Fwn')

    Raises:
        SchemaMismatch: it would be longer than file systems take.
    """
    part = "".join(
        character if re.fullmatch(r"[A-Za-z0-9._\-+,@~]", character) else _escape(character) for character in name
    )
    if part in RESERVED or part.startswith((".", "__", "~")):
        part = _escape(part[0]) + part[1:]
    if not 0 < len(part) <= MOST_BYTES:
        raise SchemaMismatch(
            f"{name[:60]!r} is a name of {len(part)} bytes in a store's path, which holds 1 to {MOST_BYTES}: give the "
            "module a shorter name"
        )
    return part


def unplaced(part: str) -> str:
    """The name of a part that `placed` gave.

    >>> unplaced(placed("слой/%2F=~"))
    'слой/%2F=~'
    """
    # "%" is never in such a part
    return unquote(part.replace("=", "%"), errors="surrogatepass")


def _escape(character: str) -> str:
    return "".join(f"={byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
