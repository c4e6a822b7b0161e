"""Checks the shapes in stores' signatures while its tests run; makes JPEGs, tars and an object store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

install_import_hook("stores", "beartype.beartype")


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """Bytes of a JPEG of one colour, or of given pixels."""
    import simplejpeg

    def make(colour: int = 128, height: int = 8, width: int = 12) -> bytes:
        pixels = np.full((height, width, 3), colour, np.uint8)
        return bytes(simplejpeg.encode_jpeg(pixels, quality=95))

    return make


@pytest.fixture
def tar(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tar of named contents, in order; names may repeat."""
    import io
    import tarfile

    def make(name: str, contents: Sequence[tuple[str, bytes]] | Mapping[str, bytes]) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as archive:
            for member, data in contents.items() if isinstance(contents, Mapping) else contents:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of an empty bucket that fsspec reaches by its environment."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer
    from zarr.core.sync import sync

    patch = pytest.MonkeyPatch()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="atlas")
    yield "s3://atlas"
    kind = fsspec.get_filesystem_class("s3")
    for filesystem in list(kind._cache.values()):
        # s3fs leaves the sessions of asynchronous filesystems open, which is an error here
        if filesystem.asynchronous and getattr(filesystem, "_s3creator", None) is not None:
            sync(filesystem._s3creator.__aexit__(None, None, None))
    kind.clear_instance_cache()
    patch.undo()
    server.stop()
