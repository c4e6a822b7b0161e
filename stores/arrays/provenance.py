"""What a store was made from: its fingerprints, and the refusal to mix.

**base** (weights, architecture, preprocessing, …) and **variant** (reference and relevance settings) are digests of
named fields, and the fields stand beside the digest in the attributes, so that a refusal can name the field. The
**dataset** is an append-only list of shards with a chained digest: a longer list keeps the digests of its
beginnings.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import zarr

from stores.errors import ForeignStore
from stores.files import safe_url as safe_url

JSON: TypeAlias = bool | int | float | str | Sequence[Any] | Mapping[str, Any] | None
Which: TypeAlias = Literal["base", "variant", "atlas", "statistics", "references", "labels", "names"]

DIGITS = 16
COMPLETE = ("variant", "atlas")
"""What each version of the program claims with every field that it has."""
RULES = ("algorithm", "facet_rule", "row_steps", "trend", "unit")
"""Fields that the program sets and nobody can repeat: by which version of its rules something was made."""
OTHERWISE: Mapping[Which, str] = {
    "variant": "give another number of --references (the number that is kept will do), which makes another variant, or "
    "write to another store",
    "atlas": "write to another atlas",
    "statistics": "give the statistics that it was made from, or write to another atlas",
}
"""Where what was refused may go, by what was claimed; all else goes to another store."""


@dataclass(frozen=True)
class ShardIdentity:
    """What makes a shard the same shard.

    ``images`` and ``digest`` are None before it is read, and ``size`` is −1 where a server does not tell; neither is
    compared then.
    """

    name: str
    size: int
    images: int | None = None
    digest: str | None = None


def fingerprint(fields: Mapping[str, JSON]) -> str:
    """16 hexadecimal digits of the fields; their order does not matter, URLs count without credentials."""
    return hashlib.sha256(_canonical(fields).encode()).hexdigest()[:DIGITS]


def claim(group: zarr.Group, which: Which, fields: Mapping[str, JSON]) -> str:
    """Record what ``group`` is made from, or check that it is the same; returns the fingerprint.

    Called before any task, by one process: attributes have no lock.

    Raises:
        ForeignStore: the group was made from other fields; names the first that differs and both values, and the way
            out: to repeat a setting, or where a user can repeat nothing to write elsewhere.
    """
    digest = fingerprint(fields)
    asked = json.loads(_canonical(fields))
    recorded = claimed(group, which)
    if recorded is None:
        group.attrs[which] = {"fingerprint": digest, "fields": asked}
        return digest
    # rules first: who repeats a setting is not to be refused once more
    for name in sorted(recorded.keys() | asked.keys(), key=lambda name: (name not in RULES, name)):
        # as text, since 1 and 1.0 and True are one to Python but not in a fingerprint
        if name not in recorded or name not in asked or _canonical(recorded[name]) != _canonical(asked[name]):
            raise ForeignStore(f"{group.path or 'the store'} {_differing(which, name, recorded, asked)}")
    return digest


def claimed(group: zarr.Group, which: Which) -> dict[str, Any] | None:
    """The fields that ``group`` was made from, or None where nothing was claimed."""
    record: Any = group.attrs.get(which)
    return None if record is None else dict(record["fields"])


def _differing(which: Which, name: str, recorded: Mapping[str, JSON], asked: Mapping[str, JSON]) -> str:
    """What differs in a field, and the way out."""
    stored, given = (_shown(fields[name]) if name in fields else "nothing" for fields in (recorded, asked))
    missing, elsewhere = name not in recorded or name not in asked, OTHERWISE.get(which, "write to another store")
    if name in RULES or (missing and which in COMPLETE):
        before, now = recorded.get(name), asked.get(name)
        later = isinstance(before, int) and isinstance(now, int) and before > now
        kept = "it is read as before, but not added to: " if which in COMPLETE else ""
        return (
            f"was made by {'a later' if later else 'an earlier' if name in RULES else 'another'} version of this "
            f"program: {which} field {name} is {stored}, and {given} in this version; {kept}{elsewhere}"
        )
    repeat = "" if which == "statistics" else f"{'repeat' if name in recorded else 'leave out'} the setting, or "
    return f"was made with {which} field {name} = {stored} but now it is {given}; {repeat}{elsewhere}"


def dataset_fingerprint(shards: Sequence[ShardIdentity]) -> str:
    """Chained digest, 16 hexadecimal digits: that of a list follows from that of its beginning and the next shard."""
    digest = ""
    for shard in shards:
        digest = fingerprint(
            {"before": digest, "name": shard.name, "size": shard.size, "images": shard.images, "digest": shard.digest}
        )
    return digest or fingerprint({})


def check_extension(old: Sequence[ShardIdentity], new: Sequence[ShardIdentity]) -> None:
    """Pass when ``new`` begins with ``old``.

    Raises:
        ForeignStore: it does not; names the first shard that is missing or differs, the field and both values.
    """
    for position, before in enumerate(old):
        if position >= len(new):
            raise ForeignStore(
                f"the store has read shard {before.name} at place {position} but only {len(new)} shards are given; "
                "give all shards it has read, in the same order, and new ones after them"
            )
        after = new[position]
        for field in fields(ShardIdentity):
            stored, given = getattr(before, field.name), getattr(after, field.name)
            unknown = {None, -1}
            if stored not in unknown and given not in unknown and stored != given:
                raise ForeignStore(
                    f"the store has read shard {before.name} at place {position} with {field.name} = {_shown(stored)} "
                    f"but now it is {_shown(given)}; give the shards it has read unchanged and new ones after them, or "
                    "another store"
                )


def _canonical(value: JSON) -> str:
    return json.dumps(_clean(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _clean(value: JSON) -> JSON:
    if isinstance(value, str):
        return safe_url(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_clean(item) for item in value]
    return value


def _shown(value: JSON) -> str:
    return value if isinstance(value, str) else _canonical(value)
