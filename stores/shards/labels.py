"""Which file of a sample is its image, and which says its class; and the number that is written there."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stores.errors import Status
from stores.files import parsed
from stores.shards.tar import TarMember

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "png", "webp", "ppm", "pgm", "pbm", "pnm", "gif", "bmp", "jpe", "jfif", "jif", "tif", "tiff", "avif",
    "jp2", "j2k", "npy",
)  # fmt: skip
"""Endings of files that are taken for images, the first of a sample's before the later ones. An array is often
something else: it is taken where there is no other image, or where the network is of other channels."""
OF_CHANNELS = ("npy", "tif", "tiff")
"""Endings of images of other channels than three, the first of a sample's before the later ones."""
LABEL_EXTENSION = "cls"
IMAGE_FIELDS = ("input", "image", "img", "rgb", "photo")
"""What webdataset's users call the image of a sample that holds several, as in ``0001.input.jpg``."""
NO_LABEL = -1
MAX_LABEL = 2**31 - 1
MAX_LABEL_BYTES = 1 << 20
_DEEPEST = 8
"""Tables in tables of a sample's JSON in which labels are looked for."""
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

Fields = Mapping[str, TarMember]
"""The files of a sample by what follows its key's dot, such as ``jpg`` or ``input.jpg``."""


def ending(name: str) -> str:
    """What follows the last dot, in small letters."""
    return name.rpartition(".")[2].lower()


@dataclass(frozen=True)
class LabelRule:
    """Where the class of a sample stands, and what its words mean.

    ``key`` is the ending of a file (``cls``, ``txt``, ``output.cls``) or a key of the sample's ``.json``, such as
    ``label`` or ``annotation.class``; "" for no labels at all. ``numbers`` gives the class of a word, as `folded`:
    without it words are no label.
    """

    key: str = LABEL_EXTENSION
    numbers: Mapping[str, int] = field(default_factory=dict)

    def reads(self, extension: str) -> bool:
        """Whether a file of this ending may say the class."""
        if self.key in ("", LABEL_EXTENSION):
            return bool(self.key) and ending(extension) == self.key
        return ending(extension) in (ending(self.key), "json")

    def label(self, fields: Fields) -> tuple[int, bool]:
        """The class, −1 where none is given, and whether what is written there is one."""
        if not self.key:
            return NO_LABEL, True
        if (member := self._file(fields)) is not None:
            return self._number(_text(member.data or b""))
        if self.key != LABEL_EXTENSION and (table := fields.get("json")) is not None:
            try:
                value = _inside(parsed(table.data or b"null"), self.key)
            except ValueError:
                return NO_LABEL, False
            return (NO_LABEL, True) if value is None else self._number(value)
        return NO_LABEL, True

    def _file(self, fields: Fields) -> TarMember | None:
        if self.key in fields:
            return fields[self.key]
        # "output.cls" serves as "cls" where it is the only one
        others = [name for name in fields if ending(name) == self.key]
        return fields[others[0]] if len(others) == 1 else None

    def _number(self, value: object) -> tuple[int, bool]:
        text = str(value).strip()
        # as pandas and NumPy write whole numbers
        if (match := re.fullmatch(r"(-1|[0-9]{1,10})(\.0*)?", text)) and int(match[1]) <= MAX_LABEL:
            return int(match[1]), True
        number = self.numbers.get(folded(text))
        return (NO_LABEL, False) if number is None else (number, True)


def folded(name: str) -> str:
    """A class's name without what does not tell classes apart: letter case, underscores, hyphens."""
    return " ".join(re.sub(r"[_\-\s]+", " ", name).split()).casefold()


def image_of(fields: Fields, photographs: bool = True) -> tuple[TarMember | None, Status]:
    """The image of a sample; or None, and why there is none.

    ``0001.jpg`` comes before ``0001.input.jpg``, and this before any other. Of several others none is taken: nothing
    says which the network should see. Where no ``photographs`` are looked for, arrays and TIFF come first.
    """
    arrays, others = ("npy",), tuple(one for one in IMAGE_EXTENSIONS if one != "npy")
    for kinds in (others, arrays) if photographs else (OF_CHANNELS, others):
        images = [name for name in fields if ending(name) in kinds]
        plain = [name for name in kinds if name in fields]
        called = [name for first in IMAGE_FIELDS for name in images if name.partition(".")[0] == first]
        if plain or called or len(images) == 1:
            return fields[(plain or called or images)[0]], Status.OK
        if images:
            return None, Status.SEVERAL_IMAGES
    return None, Status.NO_IMAGE


def likely_keys(samples: Iterable[Fields]) -> list[str]:
    """Keys for `LabelRule` under which the samples seem to hold their classes, where no ``.cls`` file does."""
    likely: dict[str, None] = {}
    for fields in samples:
        if any(ending(name) == LABEL_EXTENSION for name in fields):
            return []
        for name, member in fields.items():
            if member.data is None or name in IMAGE_EXTENSIONS:
                continue
            if ending(name) == "json":
                with suppress(ValueError):
                    likely |= dict.fromkeys(_likely_in(parsed(member.data)))
            elif re.fullmatch(r"\d{1,6}|n\d{8}", _text(member.data).strip()):
                likely[name] = None
    return list(likely)


def _likely_in(table: Any, above: str = "", deep: int = 0) -> Iterator[str]:
    """Keys of a sample's JSON that sound like a class and hold a number or a word, however deep."""
    words = re.compile(r"label|class|cls|target|category|wnid|synset", re.IGNORECASE)
    for key, value in table.items() if isinstance(table, dict) and deep < _DEEPEST else ():
        if isinstance(value, dict):
            yield from _likely_in(value, f"{above}{key}.", deep + 1)
        # "cls" is the ending of a file
        elif words.search(f"{above}{key}") and f"{above}{key}" != LABEL_EXTENSION and isinstance(value, int | str):
            yield f"{above}{key}"


def _text(data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "replace")


def _inside(table: Any, key: str) -> object:
    """The value at a key, which may go deeper at its dots, into lists by number; None where there is none."""
    if isinstance(table, list):
        table = {str(number): value for number, value in enumerate(table)}
    if not isinstance(table, dict):
        return None
    if key in table:
        return table[key]
    first, _, rest = key.partition(".")
    return _inside(table.get(first), rest) if rest else None
