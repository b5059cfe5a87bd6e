"""Measure `add` with the bundled model beside Pillow's own decoding and resizing of the same files.

    python scripts/bench_add.py --photos data/photos --count 500

The photographs are enlarged to 500 x 375 pixels, given the grain of a camera, each its own, and saved as JPEG of
about the size that such files have. Rounds take turns; the ratio of the medians is printed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from embedstore import EmbedStore


def make_pictures(photos: Path, folder: Path, count: int) -> list[Path]:
    """Write `count` different JPEG files of 500 x 375 pixels."""
    sources = itertools.cycle(sorted(path for path in photos.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png")))
    paths = []
    for number in range(count):
        with Image.open(next(sources)) as source:
            picture = source.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(number).normal(0, 5, (375, 500, 1))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def pillow(paths: list[Path]) -> float:
    """Decode and resize all files on all cores; return pictures a second."""

    def prepare(path: Path) -> Image.Image:
        with Image.open(path) as picture:
            return picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(prepare, paths):
            continue
    return len(paths) / (time.perf_counter() - started)


def add(folder: Path, store: Path) -> float:
    """Embed all files into a new store; return pictures a second, the loading of the model included."""
    made = EmbedStore.create(store, model="objects")
    started = time.perf_counter()
    report = made.add(folder, progress=False)
    seconds = time.perf_counter() - started
    assert not report.failures, report
    return len(made) / seconds


def main() -> None:
    """Take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[1] / "data" / "photos")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        pictures = Path(work) / "pictures"
        pictures.mkdir()
        paths = make_pictures(chosen.photos, pictures, chosen.count)
        rates: dict[str, list[float]] = {"Pillow decode + resize": [], "embedstore add": []}
        for number in range(chosen.rounds):
            rates["Pillow decode + resize"].append(pillow(paths))
            rates["embedstore add"].append(add(pictures, Path(work) / f"{number}.store"))
    for name, found in rates.items():
        print(f"{name:24} {np.median(found):6.0f} pictures/s  ({min(found):.0f}-{max(found):.0f})")
    plain, ours = (float(np.median(found)) for found in rates.values())
    print(f"ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
