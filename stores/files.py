"""Files of a store, wherever they are: paths and URLs, and partial results and run records in ``<store>/runs/``.

A partial is a named set of arrays in one ``.npz`` file: no pickle, the same bytes for the same arrays, and on a
local disk either whole or absent, since it is renamed into its final name.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import upath
from jaxtyping import Shaped

from stores.errors import SchemaMismatch

MEMORY = "memory://"
WEB = ("http", "https")
PRINTABLE = "".join(map(chr, range(32, 127))).replace("%", "")
SECRET = re.compile(r"(^|[?&])[^=&]*(sig|signature|token|secret|password|passwd|key|credential)[^=&]*=", re.IGNORECASE)
"""Names of a query's parts that give access."""
LONGEST_NAME = 120
"""Characters of the name of a file that is being written: the usual file systems take 255 bytes."""


def local_path(url: str) -> Path | None:
    """Path on this machine, given plainly or as ``file://``; None for any other URL.

    One rule for shards, stores, job files and options: a plain path is meant as it stands, only that a first ``~`` is
    the home folder where nothing here is called so; a ``file://`` URL is percent-encoded.

    >>> local_path("shards/a%20b.tar"), local_path("s3://bucket/a.tar")
    (PosixPath('shards/a%20b.tar'), None)
    >>> local_path("file:///data/a%20b.tar")
    PosixPath('/data/a b.tar')
    """
    if url.startswith("file://"):
        host, _, rest = url.removeprefix("file://").partition("/")
        return Path(unquote(f"/{rest}" if host in ("", "localhost") else f"{host}/{rest}"))
    if "://" in url:
        return None
    path = Path(url)
    if url.startswith("~") and not Path(path.parts[0]).exists():
        with contextlib.suppress(RuntimeError):  # nobody of that name
            return path.expanduser()
    return path


def universal_path(url: str) -> upath.UPath:
    """The file or folder at ``url``, to be read as any path is: on this machine, or at any URL that fsspec opens.

    Raises:
        ImportError, ValueError: nothing that is installed opens such URLs.
    """
    path = local_path(url)
    # absolute, since fsspec takes a first "~" for the home folder; upath imports fsspec only when UPath is asked for,
    # which the command's start must not wait for
    return upath.UPath(url if path is None else path.absolute())


def join(url: str, *parts: str) -> str:
    """The URL or path of ``parts`` below ``url``, of the same kind as ``url``."""
    return "/".join([url.rstrip("/") or "/", *parts]) if parts else url


def safe_url(url: str) -> str:
    """The URL without user, password and query, on the web also without fragment; a local path stays as it is.

    Queries go altogether, since signed URLs carry their tokens there. A URL is stored or shown only in this form.

    >>> safe_url("https://me:secret@host:8080/a.tar?token=1")
    'https://host:8080/a.tar'
    """
    if "://" not in url:
        return url
    return "::".join(_without_credentials(link) for link in url.split("::"))


def first_line(error: BaseException) -> str:
    """What an error says first, or its type where it says nothing. Of the URLs in it, which clients of services repeat
    as they were given, only what may be shown.

    >>> first_line(OSError("403, url='https://host/a.tar?token=1'"))
    "403, url='https://host/a.tar'"
    """
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"\w+://[^\s'\"]+", lambda url: safe_url(url[0]), said)


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
    # not urlunsplit, which makes "hdfs:/a.tar" of "hdfs:///a.tar"
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.scheme in WEB:
        return host + parts.path
    # elsewhere "?" and "#" are letters of a name, save where a query begins
    rest = link.partition("://")[2][len(parts.netloc) :]
    name, _, query = rest.partition("?")
    return host + (name if "=" in query else rest)


def runs_path(url: str, *parts: str) -> str:
    """URL or path of ``parts`` in the folder of run records of the store at ``url``."""
    for part in parts:
        if not re.fullmatch(r"(?!\.+(/|$))[^/\0]+(/(?!\.+(/|$))[^/\0]+)*", part):
            raise SchemaMismatch(f"'{part}' cannot name a run record; give words joined by '/', without '..'")
    return join(url, "runs", *parts)


def write_arrays(url: str, name: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write the arrays as ``runs/NAME.npz`` of the store at ``url``, over an earlier one.

    Arrays of strings are stored in fixed width. Raises SchemaMismatch for arrays of objects.
    """
    # zipfile ends a name at a zero byte
    plain = {
        quote(key, safe=PRINTABLE): _without_objects(f"{name}/{key}", np.asarray(array))
        for key, array in sorted(arrays.items())
    }
    buffer = io.BytesIO()
    # zipfile dates what it is given no date for 1980, so equal arrays give equal bytes
    np.savez(buffer, allow_pickle=False, **plain)
    write_bytes(runs_path(url, f"{name}.npz"), buffer.getvalue())


def read_arrays(url: str, name: str) -> dict[str, Shaped[np.ndarray, "..."]] | None:
    """The arrays written as NAME, or None; strings come back as ``StringDType``.

    Raises:
        SchemaMismatch: the file is damaged.
    """
    file = runs_path(url, f"{name}.npz")
    content = read_bytes(file)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {unquote(key): _text(archive[key]) for key in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise SchemaMismatch(f"{safe_url(file)} is damaged ({error}); remove it and it is made again") from None


def list_arrays(url: str, folder: str) -> set[str]:
    """The names of what `write_arrays` has written into a folder of ``runs``; none where there is no such folder."""
    # a name that begins with a dot is of a file that is being written
    return {
        name.removesuffix(".npz")
        for name in list_runs(url, folder)
        if name.endswith(".npz") and not name.startswith(".")
    }


def list_runs(url: str, *folder: str) -> set[str]:
    """The names of all that lies in the folder of run records of the store at ``url``, or in a ``folder`` of it; none
    where there is no such folder, or where the store is in memory."""
    path = universal_path(runs_path(url, *folder))
    path.fs.invalidate_cache()
    try:
        return {str(one).rstrip("/").rpartition("/")[2] for one in path.fs.ls(path.path, detail=False)}
    except FileNotFoundError:
        return set()


def remove_arrays(url: str, name: str) -> None:
    """Remove what was written as NAME; nothing happens when it is gone already."""
    path = universal_path(runs_path(url, f"{name}.npz"))
    with contextlib.suppress(FileNotFoundError):
        # UPath.unlink takes "*" and "[" of a remote name for a pattern
        path.fs.rm_file(path.path)


def write_bytes(url: str, content: bytes) -> None:
    """Write a file; on a local disk it appears whole, by rename. Object stores do so by themselves."""
    path = local_path(url)
    if path is None:
        remote = universal_path(url)
        remote.fs.pipe_file(remote.path, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # not mkstemp, whose files are for their owner alone: who goes on with a run may be somebody else
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}"[:LONGEST_NAME])
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_bytes(url: str) -> bytes | None:
    """Content of a file, or None where there is none."""
    path = universal_path(url)
    # a listing cached before another process wrote the file would hide it
    path.fs.invalidate_cache()
    try:
        # one request of an object store, where UPath.read_bytes makes two
        return bytes(path.fs.cat_file(path.path))
    except FileNotFoundError:
        return None


def parsed(content: bytes, once: bool = False) -> Any:
    """What JSON of somebody else's holds; raises ValueError where it is none, or nested without end, or, where each
    must stand ``once``, where an object has one key twice, of which JSON keeps the last."""
    try:
        return json.loads(content, object_pairs_hook=_once if once else None)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return table


def _without_objects(name: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    if array.dtype.kind == "T":
        # NumPy does not find the width of variable-length strings by itself
        return array.astype(f"<U{max(1, int(np.strings.str_len(array).max(initial=0)))}")
    if array.dtype.hasobject:
        raise SchemaMismatch(f"{name} holds objects, which are never stored; give numbers or strings")
    return array


def _text(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return array.astype(np.dtypes.StringDType()) if array.dtype.kind == "U" else array
