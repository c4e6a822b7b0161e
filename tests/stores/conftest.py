"""Makes JPEGs, tars and an object store."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.object_storage import bucket


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


s3 = pytest.fixture(scope="session", name="s3")(bucket)
