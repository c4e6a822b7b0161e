"""An object store on this machine, as real as tests can have it: moto's server on loopback."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator

import pytest


def bucket() -> Iterator[str]:
    """URL of an empty bucket that fsspec reaches by its environment."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer
    from zarr.core.sync import sync

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
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
    # What moto keeps outlives its servers.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
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
