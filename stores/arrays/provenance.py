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
        ForeignStore: the group was made from other fields; names the first that differs and both values.
    """
    digest = fingerprint(fields)
    asked = json.loads(_canonical(fields))
    recorded = claimed(group, which)
    if recorded is None:
        group.attrs[which] = {"fingerprint": digest, "fields": asked}
        return digest
    for name in sorted(recorded.keys() | asked.keys()):
        stored, given = recorded.get(name, "nothing"), asked.get(name, "nothing")
        # as text, since 1 and 1.0 and True are one to Python but not in a fingerprint
        if _canonical(stored) != _canonical(given):
            raise ForeignStore(
                f"{group.path or 'the store'} was made with {which} field {name} = {_shown(stored)} but now it is "
                f"{_shown(given)}; repeat the setting, or write to another "
                f"{'variant' if which == 'variant' else 'store'}"
            )
    return digest


def claimed(group: zarr.Group, which: Which) -> dict[str, Any] | None:
    """The fields that ``group`` was made from, or None where nothing was claimed."""
    record: Any = group.attrs.get(which)
    return None if record is None else dict(record["fields"])


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
