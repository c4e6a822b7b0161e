"""The folder of a site: writes only what changed, remembers of which data each part was made, and removes
what no part needs any more."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from stores.arrays.opening import store_around
from stores.errors import UnsuitableFolder

SITE_FOLDER = "vital-site"
"""Everything but the index page and the contact sheet is below this folder, which is ours alone."""


def digest(*parts: bytes) -> str:
    """32 hexadecimal digits of the parts, each with its length."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


class SiteFolder:
    """Files of a site below ``root``.

    A *part* is a group of files made from the same data, with a record of that data's digest. The record is removed
    before the part's files are written and comes back after them, so that a killed run leaves no record that lies.
    """

    def __init__(self, root: Path) -> None:
        # earlier versions wrote their contact sheet beside the index page, too, but had no folder of their own
        ours = (root / SITE_FOLDER).is_dir() or (root / "contact-sheet.png").exists()
        if (root / "index.html").exists() and not ours:
            raise UnsuitableFolder(
                f"{root} holds an index.html that is not of an atlas's pages; give a new folder, or remove it"
            )
        if (around := store_around(root)) is not None:
            raise UnsuitableFolder(
                f"{root} lies in the store at {around}, where files of pages would be taken for its parts: "
                "give a folder outside"
            )
        self.root = root
        self._records = root / SITE_FOLDER / "parts"
        self._records.mkdir(parents=True, exist_ok=True)
        self._wanted: set[Path] = set()
        self.written = 0

    def keeps(self, part: str, made_of: str) -> bool:
        """Whether the part is there, made of the same data; then its files stay."""
        record = self._record(part)
        try:
            known = json.loads(record.read_text("utf-8"))
            files = [
                self.root / SITE_FOLDER / folder / name for folder, names in known["files"].items() for name in names
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if known.get("made_of") != made_of or not all(file.is_file() for file in files):
            return False
        self._wanted.update(files, [record])
        return True

    def begin(self, part: str) -> None:
        """Forget what the part was made of, before its files change."""
        self._record(part).unlink(missing_ok=True)

    def complete(self, part: str, made_of: str, files: Mapping[str, Sequence[str]]) -> None:
        """Record that the part's files are written: names by folder below `SITE_FOLDER`."""
        text = json.dumps({"made_of": made_of, "files": {folder: sorted(names) for folder, names in files.items()}})
        self.write(str(self._record(part).relative_to(self.root)), text.encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the site, by rename; a file with the same content is left alone."""
        path = self.root / name
        self._wanted.add(path)
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        unfinished.write_bytes(content)
        unfinished.replace(path)
        self.written += 1

    def has(self, name: str) -> bool:
        """Whether a file is there, whose name says what it holds; then it stays."""
        path = self.root / name
        if not path.is_file():
            return False
        self._wanted.add(path)
        return True

    def sweep(self) -> None:
        """Remove every file below `SITE_FOLDER` that this run neither wrote nor kept, and folders that became empty."""
        for path in sorted((self.root / SITE_FOLDER).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in self._wanted:
                path.unlink()

    def _record(self, part: str) -> Path:
        return self._records / f"{part.replace('/', '-')}.json"
