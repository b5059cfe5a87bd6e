"""Pictures in memory become records that are named by what they show."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image
from small_pictures import png

from embedstore import images
from embedstore.sources import open_source


def test_pictures_in_memory() -> None:
    """Images, arrays and bytes are named by what they show; equal pictures are two records."""
    image = Image.new("RGB", (4, 3), "red")
    items = [image, np.asarray(image), png(1), bytearray(png(1))]
    records = list(open_source(items))
    first, second = images.content_hash(image), hashlib.sha256(png(1)).hexdigest()
    assert [record.key for record in records] == [
        f"memory:{first}",
        f"memory:{first}#2",
        f"memory:{second}",
        f"memory:{second}#2",
    ]
    for record, digest in zip(records, [first, first, second, second], strict=True):
        assert images.read(record.load()).content_hash == digest


def test_bad_array_in_a_list_is_a_failure() -> None:
    """An array that is no picture is one failure that names its place; the others are listed."""
    source = open_source([np.zeros((2, 2)), np.zeros(7), png(1)])
    assert len(list(source)) == 2
    assert [failure.uri for failure in source.failures] == ["memory: item 1"]
