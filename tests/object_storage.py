"""An object store on this machine, as real as tests can have it: moto's answers, by a server on loopback that keeps
connections, as object stores do. moto's own opens one for each request, which takes longer than the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


def bucket() -> Iterator[str]:
    """URL of an empty bucket that fsspec reaches by its environment."""
    import boto3
    import fsspec
    from moto.backends import get_backend
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import create_backend_app
    from waitress import wasyncore
    from waitress.server import create_server
    from zarr.core.sync import sync

    patch = pytest.MonkeyPatch()
    server = create_server(create_backend_app("s3"), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.effective_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    # What moto keeps outlives its servers.
    get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].reset()
    boto3.client("s3").create_bucket(Bucket="atlas")
    yield "s3://atlas"
    kind = fsspec.get_filesystem_class("s3")
    for filesystem in list(kind._cache.values()):
        # s3fs leaves the sessions of asynchronous filesystems open, which is an error here
        if filesystem.asynchronous and getattr(filesystem, "_s3creator", None) is not None:
            sync(filesystem._s3creator.__aexit__(None, None, None))
    kind.clear_instance_cache()
    patch.undo()
    # Its thread ends when it has nothing left to listen to. It closes the trigger, too: not before this is pulled.
    with server.trigger.lock:
        server.trigger.thunks.append(lambda: wasyncore.close_all(server._map))
        server.trigger.pull_trigger()
    thread.join()
    server.task_dispatcher.shutdown()
