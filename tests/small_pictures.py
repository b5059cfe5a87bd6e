"""Small pictures as files, tables and data sets, for the tests of images and of sources."""

from __future__ import annotations

import datetime
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from embedstore.sources import Source


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quadrants() -> Image.Image:
    """A 40 x 20 picture: red, green above; blue, white below."""
    image = Image.new("RGB", (40, 20), "white")
    image.paste((255, 0, 0), (0, 0, 20, 10))
    image.paste((0, 255, 0), (20, 0, 40, 10))
    image.paste((0, 0, 255), (0, 10, 20, 20))
    return image


def png(value: int) -> bytes:
    """The file of a tiny grey picture."""
    return encode(Image.new("L", (3, 2), value))


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value))
    return path


def names(source: Source, root: Path) -> list[str]:
    return [os.path.relpath(record.uri, root) for record in source]


PICTURE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture_table(rows: int = 5) -> pa.Table:
    """A table as Hugging Face writes it: pictures, a class label, scalars of many types, and a list."""
    features = {
        "img": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    }
    table = pa.table(
        {
            "img": pa.array([{"bytes": png(row), "path": f"{row}.png"} for row in range(rows)]),
            "label": pa.array([row % 2 if row else -1 for row in range(rows)], pa.int64()),
            "size": pa.array(range(rows), pa.int32()),
            "day": pa.array([datetime.date(2024, 1, 1)] * rows),
            "kind": pa.array(["a"] * rows).dictionary_encode(),
            "box": pa.array([[1.0, 2.0]] * rows),
        }
    )
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def hf_dataset(rows: int = 4) -> Any:
    import datasets

    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.List(datasets.Value("string")),
            "n": datasets.Value("int16"),
        }
    )
    columns = {
        "photo": [{"bytes": png(row), "path": None} for row in range(rows)],
        "label": [row % 2 for row in range(rows)],
        "tags": [["x"]] * rows,
        "n": list(range(rows)),
    }
    return datasets.Dataset.from_dict(columns, features=features)
