from collections.abc import Sequence
from pathlib import Path

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from stores.arrays.opening import open_store
from stores.arrays.provenance import (
    JSON,
    ShardIdentity,
    Which,
    check_extension,
    claim,
    claimed,
    dataset_fingerprint,
    fingerprint,
)
from stores.errors import ForeignStore

SHARDS = [ShardIdentity(f"s-{number}.tar", 10 + number, number, f"d{number}") for number in range(4)]


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    return open_store(str(tmp_path / "s"), "statistics", "a")


def test_a_fingerprint_depends_on_the_fields_and_not_on_their_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert len(fingerprint({})) == 16
    different: list[dict[str, JSON]] = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": None}, {"b": 1}, {}]
    assert len({fingerprint(fields) for fields in different}) == len(different)


def test_a_value_without_a_number_is_no_field() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": float("nan")})


def test_the_same_claim_is_reused_and_another_is_refused(group: zarr.Group, tmp_path: Path) -> None:
    fields: dict[str, JSON] = {"weights": "IMAGENET1K_V2", "levels": 64, "mean": (0.5, 0.5)}
    digest = claim(group, "base", fields)
    again = open_store(str(tmp_path / "s"), "statistics", "a")
    assert claim(again, "base", fields) == digest == fingerprint(fields)
    assert claimed(again, "base") == {**fields, "mean": [0.5, 0.5]}
    with pytest.raises(ForeignStore, match=r"base field levels = 64 but now it is 32; repeat the setting, or .* store"):
        claim(again, "base", {**fields, "levels": 32})
    with pytest.raises(ForeignStore, match="precision = nothing but now it is float32; leave out the setting, or"):
        claim(again, "base", {**fields, "precision": "float32"})
    with pytest.raises(ForeignStore, match=r"levels = 64 but now it is 64\.0"):
        claim(again, "base", {**fields, "levels": 64.0})
    claim(again, "variant", {"references": 50})
    assert claimed(again, "atlas") is None


@pytest.mark.parametrize(
    ("which", "stored", "given", "said"),
    [
        ("variant", {"trend": 1, "fewest": 1}, {"trend": 2, "fewest": 2}, "an earlier version of this program: variant "
         "field trend is 1, and 2 in this version; it is read as before, but not added to: give "
         "another number of --references (the number"),
        ("atlas", {"algorithm": 7}, {"algorithm": 6}, "a later version of this program: atlas field algorithm is 7, "
         "and 6 in this version; it is read as before, but not added to: write to another atlas"),
        ("atlas", {"side": 8}, {"side": 8, "own_weight": 1}, "another version of this program: atlas field own_weight "
         "is nothing, and 1 in this version; it is read as before, but not added to: write to another atlas"),
        ("base", {"algorithm": 2}, {"algorithm": 3}, "an earlier version of this program: base field algorithm is 2, "
         "and 3 in this version; write to another store"),
        ("statistics", {"base": "ab"}, {"base": "cd"}, "with statistics field base = ab but now it is cd; give the "
         "statistics that it was made from, or write to another atlas"),
    ],
)  # fmt: skip
def test_nobody_is_asked_to_repeat_what_cannot_be_repeated(
    group: zarr.Group, which: Which, stored: dict[str, JSON], given: dict[str, JSON], said: str
) -> None:
    claim(group, which, stored)
    with pytest.raises(ForeignStore) as caught:
        claim(group, which, given)
    assert said in str(caught.value)
    assert "repeat the setting" not in str(caught.value)


def test_credentials_never_reach_the_store(group: zarr.Group, tmp_path: Path) -> None:
    url = "https://me:secret@host/weights.pt?token=secret"
    first = claim(group, "base", {"weights": url, "more": [{"url": url}]})
    assert "secret" not in (tmp_path / "s" / "zarr.json").read_text()
    assert (
        claim(group, "base", {"weights": "https://host/weights.pt", "more": [{"url": "https://host/weights.pt"}]})
        == first
    )
    with pytest.raises(ForeignStore) as caught:
        claim(group, "base", {"weights": "https://me:secret@host/other.pt", "more": []})
    assert "secret" not in str(caught.value)


@given(st.permutations(range(4)), st.integers(0, 4))
def test_the_chain_depends_on_order_and_length(order: Sequence[int], length: int) -> None:
    shuffled = [SHARDS[number] for number in order][:length]
    same = shuffled == SHARDS
    assert (dataset_fingerprint(shuffled) == dataset_fingerprint(SHARDS)) == same


@given(st.integers(0, 4), st.integers(0, 4))
def test_only_an_extension_passes(old: int, new: int) -> None:
    if old <= new:
        check_extension(SHARDS[:old], SHARDS[:new])
    else:
        with pytest.raises(ForeignStore, match=f"{SHARDS[new].name} at place {new} but only {new} shards"):
            check_extension(SHARDS[:old], SHARDS[:new])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (ShardIdentity("s-1.tar", 99), "shard s-1.tar at place 1 with size = 11 but now it is 99"),
        (ShardIdentity("s-1.tar", 11, 1, "other"), "shard s-1.tar at place 1 with digest = d1 but now it is other"),
        (ShardIdentity("s-1.tar", 11, 7), "with images = 1 but now it is 7"),
        (ShardIdentity("s-0b.tar", 11), "with name = s-1.tar but now it is s-0b.tar"),
    ],
)
def test_the_shard_and_the_field_are_named(changed: ShardIdentity, message: str) -> None:
    check_extension(SHARDS[:2], [SHARDS[0], ShardIdentity("s-1.tar", 11)])
    check_extension(SHARDS[:2], [SHARDS[0], ShardIdentity("s-1.tar", -1)])
    with pytest.raises(ForeignStore, match=message):
        check_extension(SHARDS[:2], [SHARDS[0], changed, SHARDS[2]])
