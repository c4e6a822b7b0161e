"""Where things lie: local paths and URLs, and how a URL loses its credentials before it is shown or stored."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

MEMORY = "memory://"
SECRET = re.compile(r"(^|[?&])[^=&]*(sig|signature|token|secret|password|passwd|key|credential)[^=&]*=", re.IGNORECASE)
"""Names of a query's parts that give access."""


def local_path(url: str) -> Path | None:
    """Path of a local place, given plainly or as ``file://``; None for any other URL.

    >>> local_path("shards/a.tar"), local_path("s3://bucket/a.tar")
    (PosixPath('shards/a.tar'), None)
    """
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url)


def join(url: str, *parts: str) -> str:
    """The place ``parts`` below ``url``, of the same kind as ``url``."""
    return "/".join([url.rstrip("/") or "/", *parts]) if parts else url


def safe_url(url: str) -> str:
    """The URL without user, password, query and fragment; a local path stays as it is.

    Queries go altogether, since signed URLs carry their tokens there. A URL is stored or shown only in this form.

    >>> safe_url("https://me:secret@host:8080/a.tar?token=1")
    'https://host:8080/a.tar'
    """
    if "://" not in url:
        return url
    return "::".join(_without_credentials(link) for link in url.split("::"))


def has_secret(url: str) -> bool:
    """Whether the URL carries a password or a signed query: what must not be kept by anybody who is told of it.

    >>> has_secret("https://me:secret@host/a.tar"), has_secret("https://host/a.tar?X-Amz-Signature=1")
    (True, True)
    >>> has_secret("s3://bucket/a.tar"), has_secret("https://host/a.tar?versionId=3")
    (False, False)
    """
    for link in url.split("::"):
        if "://" not in link or link.startswith("file://"):
            continue
        rest = link.split("://", 1)[1]
        if "@" in rest.split("/")[0] or SECRET.search(rest.partition("?")[2]):
            return True
    return False


def _without_credentials(link: str) -> str:
    if "://" not in link or link.startswith("file://"):
        return link
    # urlsplit raises on hosts such as "[a", which fsspec may still accept as a bucket
    try:
        parts = urlsplit(link)
    except ValueError:
        scheme, rest = link.split("://", 1)
        return f"{scheme}://{rest.split('?')[0].split('#')[0].rpartition('@')[2]}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
