"""The size of a JPEG before it is decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stores.errors import Status, UnreadableImage
from stores.shards.decoding import jpeg_size


def jpeg(rows: int, columns: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((rows, columns, 3), np.uint8)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_size_of_a_jpeg_is_known_before_it_is_decoded() -> None:
    assert jpeg_size(jpeg(8, 24)) == (8, 24)
    assert jpeg_size(jpeg(8, 24, "L")) == (8, 24)
    assert jpeg_size(jpeg(8, 24, "CMYK")) is None
    assert jpeg_size(b"\xff\xd8\xff and no more") is None
    assert jpeg_size(b"no image") is None
    with pytest.raises(UnreadableImage) as error:
        jpeg_size(jpeg(8, 24), max_pixels=191)
    assert error.value.status == Status.TOO_LARGE
