"""What a path means: what exists is meant as it stands; one rule for ``~``, percent signs and patterns."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest
from fsspec import AbstractFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.errors import MissingShard, UnreachableStore, UnreadableShard
from stores.files import local_path, safe_url
from stores.shards.finding import expand
from stores.shards.reading import ShardReader

Tar = Callable[..., Path]
HOSTILE = ("data [v2]", "photos {a,b}", "été #1 50% & co", 'it\'s "q"?', "star*", "a%20b", "x::y", "~z", "{0..1}")


@pytest.fixture
def content(tar: Tar) -> bytes:
    return tar("one.tar", {"a.txt": b"x"}).read_bytes()


def named(pattern: str) -> list[str]:
    return [shard.url for shard in expand([pattern])]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_that_exists_is_that_path(
    tmp_path: Path, content: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # what a pattern would find instead
    for other in (name, "data v", "photos a", "starfish", "a b", "0", "1"):
        (tmp_path / other).mkdir(exist_ok=True)
        (tmp_path / other / f"s-{'x' if other == name else 'other'}.tar").write_bytes(content)
    expected = [str(tmp_path / name / "s-x.tar")]
    assert named(name) == expected
    assert named(f"{name}/s-x.tar") == expected
    assert named(f"{name}/*.tar") == expected
    assert named(f"file://{quote(str(tmp_path / name))}/s-x.tar") == expected
    assert len(list(ShardReader(expand([name])[0]))) == 1


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text("abz[]{}*?!~%20#:@é ,.-'", min_size=1, max_size=12))
def test_any_folder_is_found_by_its_name(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    if name.strip(".") == "":
        return
    (folder / name).mkdir()
    (folder / name / "a.tar").write_bytes(content)
    for pattern in (str(folder / name), str(folder / name / "a.tar"), str(folder / name / "?.tar")):
        assert named(pattern) == [str(folder / name / "a.tar")]
    assert local_path(f"file://{quote(str(folder / name))}") == folder / name


class Unreachable(AbstractFileSystem):  # type: ignore[misc]
    """A service without credentials."""

    def info(self, path: str, **_: object) -> object:
        """Refused."""
        raise PermissionError("no credentials\nand a second line")

    ls = glob = info


def test_a_service_that_cannot_be_reached_is_one_sentence() -> None:
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    for url in ("unreachable://b/{0..1}.tar", "unreachable://b/*.tar"):
        with pytest.raises(UnreachableStore, match=r"PermissionError: no credentials\): .*in the environment"):
            expand([url])


def test_a_web_server_that_does_not_answer_is_no_missing_file() -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.tar"
        with pytest.raises(UnreachableStore, match=r"cannot be listed \(ClientConnectorError: .*check the address"):
            expand([url])


def test_the_home_folder(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for folder in ("home/set", "here/~"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a-000.tar").write_bytes(content)
    assert (
        named("~/set") == named("~/set/a-{000..000}.tar") == named("~/set/*") == [str(tmp_path / "home/set/a-000.tar")]
    )
    monkeypatch.chdir(tmp_path / "here")
    assert named("~") == named("~/*.tar") == [str(tmp_path / "here/~/a-000.tar")]


def test_braces_and_globs_name_what_there_is(tmp_path: Path, content: bytes) -> None:
    for name in ("x/a-000.tar", "x/a-001.tar", "y/b.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    every = [str(tmp_path / name) for name in ("x/a-000.tar", "x/a-001.tar", "y/b.tar")]
    assert named(f"{tmp_path}/?") == named(f"{tmp_path}/?/**/*.tar") == every
    assert named(f"{tmp_path}/x/a-{{000..001}}.tar") == every[:2]
    assert named(f"{tmp_path}/{{x/a-001,y/b}}.tar") == every[1:]
    for wrong in ("x/a-{000..002}.tar", "x/c*.tar", "z", "x/a-{000..00"):
        with pytest.raises(MissingShard):
            expand([f"{tmp_path}/{wrong}"])
    with pytest.raises(MissingShard, match="not pipe:"):
        expand([f"pipe:cat {every[0]}"])


def test_tars_under_other_names_and_pointers_to_tars_are_told_as_such(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "train-000000").write_bytes(content)
    with pytest.raises(MissingShard, match=r"train-000000 in .* is a tar without the ending \.tar: rename it"):
        expand([str(folder)])
    assert [shard.name for shard in expand([str(folder / "train-000000")])] == ["train-000000"]
    pointer = tmp_path / "x.tar"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(UnreadableShard, match=r"^x\.tar is no tar but the pointer of Git LFS to one: fetch"):
        list(ShardReader(expand([str(pointer)])[0]))


def test_a_number_sign_is_of_the_name_of_an_object(content: bytes) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("run #1.tar", "run #2.tar"):
        memory.pipe_file(f"/numbered/{name}", content)
    assert [(shard.name, safe_url(shard.url)) for shard in expand(["memory://numbered/run #*.tar"])] == [
        ("run #1.tar", "memory:///numbered/run #1.tar"),
        ("run #2.tar", "memory:///numbered/run #2.tar"),
    ]


def test_a_question_mark_is_of_the_name_of_an_object(content: bytes) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("what.tar", "what?.tar", "what?/a.tar"):
        memory.pipe_file(f"/asked/{name}", content)
    for asked, name in (("what?.tar", "what?.tar"), ("what?", "a.tar")):
        [shard] = expand([f"memory://asked/{asked}"])
        assert shard.name == name
        [again] = expand([safe_url(shard.url)])  # as a store keeps it
        assert again.url == shard.url


def test_a_query_is_of_no_name(content: bytes) -> None:
    """As the URL is kept without it, so is the name, by which a store knows the shard: a query may hold a token."""
    url = "memory://queried/a.tar?sig=secret"
    fsspec.filesystem("memory").pipe_file("/queried/a.tar?sig=secret", content)
    for asked in (url, f"simplecache::{url}"):
        [shard] = expand([asked])
        assert (shard.name, shard.url) == ("a.tar", asked)
