"""The bundled model `objects` and labelled photographs -> average precision of each name as a query.

    python scripts/measure_objects.py [--data-dir DIR]

Always measured on data/photos. DIR may hold cats_and_dogs/test.parquet, cifar10/test.parquet and
imagenette/validation.parquet, with columns as on the Hugging Face hub; what is there is measured too. Average
precision is scikit-learn's. The model's network was trained on photographs like imagenette's: those figures flatter.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from embedstore.embedders.objects import ObjectsEmbedder

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
SETS = {  # file below the data directory: columns of the picture and of its label
    "cats_and_dogs/test.parquet": ("image", "labels"),
    "cifar10/test.parquet": ("img", "label"),
    "imagenette/validation.parquet": ("image", "label"),
}


def average_precisions(
    embedder: ObjectsEmbedder, vectors: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, float]:
    """Return label -> average precision of the label as a text query over pictures of which it is the truth."""
    truth = np.asarray(labels)
    names = sorted(set(labels))
    scores = vectors @ embedder.embed_texts(names).T
    return {name: float(average_precision_score(truth == name, scores[:, column])) for column, name in enumerate(names)}


def embed_pictures(embedder: ObjectsEmbedder, pictures: Iterable[bytes]) -> NDArray[np.float32]:
    """Return the vectors of encoded pictures, float32 of shape (n, dim), made on all CPUs."""

    def prepare(data: bytes) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as picture:
            return embedder.prepare(picture.convert("RGB"))

    with ThreadPoolExecutor(embedder.workers) as pool:
        prepared = list(pool.map(prepare, pictures))
        step = embedder.batch_size
        batches = [prepared[start : start + step] for start in range(0, len(prepared), step)]
        return np.concatenate(list(pool.map(embedder.embed_prepared, batches)))


def measure_photos(embedder: ObjectsEmbedder, folder: Path = PHOTOS) -> dict[str, float]:
    """Return category -> average precision over the sample photographs."""
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    vectors = embed_pictures(embedder, ((folder / row["file_name"]).read_bytes() for row in rows))
    return average_precisions(embedder, vectors, [row["category"] for row in rows])


def measure_parquet(embedder: ObjectsEmbedder, path: Path, image: str, label: str) -> dict[str, float]:
    """Return class name -> average precision over a Parquet file in the layout of Hugging Face data sets."""
    table = pq.read_table(path, columns=[image, label])
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features[label]["names"]
    vectors = embed_pictures(embedder, (cell["bytes"] for cell in table[image].to_pylist()))
    return average_precisions(embedder, vectors, [names[number] for number in table[label].to_pylist()])


def speed(embedder: ObjectsEmbedder, pictures: int = 256) -> float:
    """Return how many prepared pictures a second one thread embeds: the best of five runs."""
    prepared = [embedder.prepare(Image.effect_noise((256, 256), 64).convert("RGB"))] * pictures
    times = []
    for _ in range(5):
        start = time.perf_counter()
        embedder.embed_prepared(prepared)
        times.append(time.perf_counter() - start)
    return pictures / min(times)


def print_figures(title: str, figures: dict[str, float]) -> None:
    """Print the mean and each figure, best first."""
    print(f"{title}: mean AP {np.mean(list(figures.values())):.3f}")
    for name, figure in sorted(figures.items(), key=lambda item: -item[1]):
        print(f"    {figure:.3f}  {name}")


def report(data_dir: Path | None = None) -> None:
    """Print every figure that can be measured here."""
    embedder = ObjectsEmbedder()
    print_figures("data/photos", measure_photos(embedder))
    for name, (image, label) in SETS.items() if data_dir else ():
        path = data_dir / name
        if path.exists():
            print_figures(name, measure_parquet(embedder, path, image, label))
        else:
            print(f"{name}: not in {data_dir}")
    print(f"{speed(embedder):.0f} prepared pictures a second on one thread")


def main() -> None:
    """Parse the command line and print the figures."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--data-dir", type=Path, help="folder with the Parquet files named above")
    report(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
