"""What lies beside shards in the wild: other tools' counts in other forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stores.errors import UnreadableShard
from stores.shards.beside import read_class_names, read_manifest, stated
from stores.shards.finding import ShardFile

INFO = {"splits": {"train": {"filenames": ["s.tar"], "shard_lengths": [8]}, "val": {"num_samples": 3}}}


def beside(folder: Path, name: str, content: Any) -> int:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    [shard] = stated([ShardFile("s.tar", str(folder / "s.tar"), 0)], None)
    return shard.stated


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("sizes.json", {"s.tar": 8}, 8),
        ("sizes.json", {"s.tar": "8"}, 8),
        ("sizes.json", {"s.tar": 8.0}, 8),
        ("sizes.json", {"shardlist": [{"url": "https://x/s.tar?download=true", "nsamples": 8}]}, 8),
        ("_info.json", INFO, 8),
        ("sizes.json", {"small": [64, 64]}, -1),
        ("sizes.json", {"s.tar#1": 8}, -1),
        ("sizes.json", [8], -1),
        ("sizes.json", {"x.tar": 3}, -1),
    ],
)
def test_what_states_nothing_of_the_shards_is_another_tool_s(
    tmp_path: Path, name: str, content: Any, count: int
) -> None:
    assert beside(tmp_path, name, content) == count
    assert count == -1 or read_manifest(str(tmp_path / name))["s.tar"] == count


def test_a_manifest_that_is_cut_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableShard, match=r"lies beside the shards.*--manifest"):
        beside(tmp_path, "sizes.json", '{"s.tar": 8')


@pytest.mark.parametrize("count", [[8], True, -1, 8.5, "many", None])
def test_a_count_that_is_none_is_told_with_the_way_out(tmp_path: Path, count: Any) -> None:
    with pytest.raises(UnreadableShard, match=r"lies beside the shards.*rename it.*--manifest"):
        beside(tmp_path, "sizes.json", {"s.tar": count})


@pytest.mark.parametrize("name", ["sizes.json", "classes.json"])
def test_what_is_nested_without_end_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 100_000)
    shard = str(tmp_path / "s.tar")
    with pytest.raises(UnreadableShard, match=f"{name} .*nested too deep"):
        stated([ShardFile("s.tar", shard, 0)], None) if name == "sizes.json" else read_class_names([shard])
