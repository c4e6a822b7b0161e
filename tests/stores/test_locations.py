from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.files import join, local_path, safe_url


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://me:secret@host:80/a.tar?token=secret#secret", "https://host:80/a.tar"),
        ("s3://secret:secret@bucket/a.tar", "s3://bucket/a.tar"),
        ("ftp://secret@host/a", "ftp://host/a"),
        ("simplecache::https://me:secret@host/a.tar?sig=secret", "simplecache::https://host/a.tar"),
        ("s3://u:secret@[bad/a?secret", "s3://[bad/a"),
        ("shards/a@b?.tar", "shards/a@b?.tar"),
        ("file:///a@b.tar", "file:///a@b.tar"),
        ("memory://atlas", "memory://atlas"),
        ("hdfs:///data/a.tar", "hdfs:///data/a.tar"),
        ("s3://me:secret@bucket/a#1.tar", "s3://bucket/a#1.tar"),
        ("s3://bucket/a.tar?sig=secret#secret", "s3://bucket/a.tar"),
        ("s3://me:secret@bucket/what?#1.tar", "s3://bucket/what?#1.tar"),
    ],
)
def test_credentials_are_stripped(url: str, safe: str) -> None:
    assert safe_url(url) == safe
    assert safe_url(safe) == safe


@given(
    user=st.text(st.characters(codec="ascii", exclude_characters="/@:?#[]"), min_size=1),
    word=st.text(st.characters(codec="ascii", exclude_characters="/@:?#[]"), min_size=1),
)
def test_no_user_and_no_password_survives(user: str, word: str) -> None:
    assert safe_url(f"https://{user}:{word}@host/a.tar?t={word}") == "https://host/a.tar"


def test_places() -> None:
    assert local_path("file:///a%20b") == Path("/a b")
    assert local_path("https://host/a") is None
    assert join("s3://bucket/atlas/", "runs", "a.npz") == "s3://bucket/atlas/runs/a.npz"
    assert join("store") == "store"
