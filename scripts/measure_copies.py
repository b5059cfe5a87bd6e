"""From which cosine on do two vectors show one picture? Copies of photos, and different photos, under an embedder.

    python scripts/measure_copies.py PHOTOS.parquet ... [--column image] [--model objects] [--most 600]

Prints for each bound the share of photos that have *another* photo as near, and of copies (saved anew, resized, cut)
that are as near to their original. A bound is of use where the first is small and the second is not.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance

from embedstore.embedders.registry import make_embedder
from embedstore.vectors import normalise

BOUNDS = (0.95, 0.98, 0.99, 0.999, 0.9999)


def saved(picture: Image.Image, quality: int) -> Image.Image:
    """Return a picture as it is after JPEG of some quality."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resized(picture: Image.Image, share: float) -> Image.Image:
    """Return a picture of other size."""
    width, height = picture.size
    return picture.resize((round(width * share), round(height * share)), Image.Resampling.LANCZOS)


def cut(picture: Image.Image, share: float) -> Image.Image:
    """Return a picture without a share of its width and height on each side."""
    width, height = picture.size
    x, y = int(width * share), int(height * share)
    return picture.crop((x, y, width - x, height - y))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": lambda one: saved(one, 90),
    "JPEG 75": lambda one: saved(one, 75),
    "JPEG 50": lambda one: saved(one, 50),
    "half": lambda one: resized(one, 0.5),
    "double": lambda one: resized(one, 2),
    "cut 2%": lambda one: cut(one, 0.02),
    "cut 5%": lambda one: cut(one, 0.05),
    "brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.15),
    "mirrored": lambda one: one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    """Embed, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--column", default="image")
    parser.add_argument("--model", default="objects")
    parser.add_argument("--most", type=int, default=600, help="so many photos of each file")
    asked = parser.parse_args()
    embedder = make_embedder(asked.model)

    def embedded(pictures: list[Image.Image]) -> np.ndarray:
        size = embedder.batch_size
        parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        found = [embedder.embed_prepared([embedder.prepare(one) for one in part]) for part in parts]
        return normalise(np.concatenate(found)).astype(np.float64)

    photos = [
        Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
        for file in asked.files
        for cell in pq.read_table(file, columns=[asked.column]).column(asked.column).to_pylist()[: asked.most]
    ]
    vectors = embedded(photos)
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    rows = {"another photo": near.max(axis=1)}
    for name, change in COPIES.items():
        rows[name] = np.vecdot(vectors, embedded([change(one) for one in photos]))
    print(f"{len(photos)} photos, {embedder.space}; share with a cosine of at least")
    print(" " * 14 + "".join(f"{bound:>9}" for bound in BOUNDS))
    for name, cosines in rows.items():
        print(f"{name:<14}" + "".join(f"{(cosines >= bound).mean():9.3f}" for bound in BOUNDS), flush=True)


if __name__ == "__main__":
    main()
