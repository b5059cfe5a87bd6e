"""Nomic's cookbook page "Building image classifiers with Atlas", from stores that embed each picture once.

Three experiments: dog on cats and dogs, dog on CIFAR-10, 'a tiny white ball' on imagenette. Prints the tables beside
the page's figures, what carrying a threshold from one set to the other costs, and how many pictures each way embeds.

    python scripts/reproduce_cookbook.py --model nomic                          # data sets from the hub, an API key
    python scripts/reproduce_cookbook.py --data-dir DIR --model objects         # Parquet files in the hub's layout
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedstore import EmbedStore
from embedstore.measures.curves import precision_recall


@dataclass(frozen=True)
class Experiment:
    """One data set of the page.

    `positives` are the values of the label column that are the class looked for: its name, and its number for files
    that do not name their classes. `page` holds threshold -> (precision, recall, F1) as published.
    """

    title: str
    file: str
    hub: str
    query: str
    column: str
    positives: tuple[str, ...]
    page: dict[float, tuple[float, float, float]]


EXPERIMENTS = (
    Experiment(
        "cats and dogs",
        "cats_and_dogs/test.parquet",
        "hf://Bingsu/Cat_and_Dog:test",
        "dog",
        "labels",
        ("dog", "1"),
        {0.0544: (0.98, 0.74, 0.84), 0.0564: (0.99, 0.67, 0.80)},
    ),
    Experiment(
        "CIFAR-10",
        "cifar10/test.parquet",
        "hf://uoft-cs/cifar10:test",
        "dog",
        "label",
        ("dog", "5"),
        {0.0544: (0.49, 0.94, 0.64), 0.0564: (0.56, 0.92, 0.70), 0.0584: (0.63, 0.89, 0.74)},
    ),
    Experiment(
        "imagenette",
        "imagenette/validation.parquet",
        "hf://frgfm/imagenette/160px:validation",
        "a tiny white ball",
        "label",
        ("golf ball", "8"),
        {},
    ),
)
PAGE_THRESHOLDS = (0.0544, 0.0564, 0.0584)


def labels_of(store: EmbedStore, experiment: Experiment) -> np.ndarray:
    """Return which rows are of the class looked for."""
    values = store.to_table([experiment.column]).column(experiment.column).to_pylist()
    return np.array([str(value) in experiment.positives for value in values])


def prepare(experiment: Experiment, data_dir: Path | None, folder: Path, model: str | None) -> tuple[EmbedStore, int]:
    """Return the experiment's store and how many pictures were embedded for it now."""
    path = folder / f"{experiment.title.replace(' ', '-').lower()}.store"
    store = EmbedStore.open(path) if (path / "store.json").exists() else EmbedStore.create(path, model)
    report = store.add(experiment.hub if data_dir is None else str(data_dir / experiment.file))
    if report.failures:
        raise SystemExit(f"{experiment.title}: {report}")
    return store, report.embedded


def three_thresholds(store: EmbedStore, scores: np.ndarray, labels: np.ndarray) -> Sequence[float]:
    """Return the page's thresholds for Nomic's models; for others three of their own scale around the best F1."""
    if store.space.model.startswith("nomic"):
        return PAGE_THRESHOLDS
    curve = precision_recall(scores, labels)
    best = float(curve.thresholds[int(np.argmax(curve.f1))])
    step = 0.25 * float(np.std(scores))
    return (best - step, best, best + step)


def row(what: str, figures: Sequence[float], note: str = "") -> str:
    """Return a line of a table."""
    return f"  {what:<34}" + "".join(f"{value:>11.3f}" for value in figures) + (f"   {note}" if note else "")


def main() -> None:
    """Run the experiments and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="Parquet files in the hub's layout, instead of the hub")
    parser.add_argument("--model", help="nomic, nomic-local or objects")
    parser.add_argument("--stores", type=Path, default=Path("cookbook.stores"), help="where to keep the stores")
    arguments = parser.parse_args()
    arguments.stores.mkdir(exist_ok=True)
    found = {}
    embedded = {}
    for experiment in EXPERIMENTS:
        store, embedded[experiment.title] = prepare(experiment, arguments.data_dir, arguments.stores, arguments.model)
        scores, labels = store.scores(experiment.query)[0], labels_of(store, experiment)
        found[experiment.title] = (store, scores, labels)
        print(f"\n{experiment.query!r} on {experiment.title}: {len(labels):,} pictures, {labels.sum():,} positive")
        print(f"  {'score >':<34}{'precision':>11}{'recall':>11}{'F1':>11}")
        curve = precision_recall(scores, labels)
        for threshold in three_thresholds(store, scores, labels):
            figures = curve.at(threshold)
            page = experiment.page.get(threshold)
            note = "page: {:.2f} {:.2f} {:.2f}".format(*page) if page else ""
            print(row(f"{threshold:.4f}", (figures.precision, figures.recall, figures.f1), note))
        if experiment.page and not store.space.model.startswith("nomic"):
            for threshold, page in experiment.page.items():
                print(row(f"{threshold:.4f} (the page, with Nomic)", page))
        print(f"  average precision {curve.average_precision:.3f}")
    carry(found)
    costs(found, embedded)


def carry(found: dict[str, tuple[EmbedStore, np.ndarray, np.ndarray]]) -> None:
    """Calibrate 'dog' on each of two sets, apply it to both."""
    names = ("cats and dogs", "CIFAR-10")
    made = {name: found[name][0].calibrate("dog", found[name][2], name=f"dog {name}") for name in names}
    print("\na threshold for 'dog' is at home where it was calibrated")
    print(f"  {'calibrated on -> applied to':<34}{'threshold':>11}{'F1':>11}")
    for origin in names:
        for target in names:
            store, _, labels = found[target]
            if origin == target:
                figure, note = made[origin].targets[0].metrics["f1"], "held out"
            else:
                evaluation = store.evaluate(made[origin], labels)
                figure = next(iter(evaluation.metrics.values())).f1
                best = made[target].targets[0].metrics["f1"]
                note = f"recalibrating wins {best - figure:+.3f}"
                shift = next(iter(evaluation.shift.values()))
                note += "; the scores differ, it says so" if shift is not None and shift.differs else ""
            print(row(f"{origin} -> {target}", (made[origin].threshold, figure), note))


def costs(found: dict[str, tuple[EmbedStore, np.ndarray, np.ndarray]], embedded: dict[str, int]) -> None:
    """Print how many pictures each way embeds for three thresholds."""
    print("\npictures embedded for three thresholds")
    print(f"  {'':<24}{'the page':>12}{'embedstore':>12}{'in this run':>13}")
    for name, (store, _, _) in found.items():
        print(f"  {name:<24}{3 * len(store):>12,}{len(store):>12,}{embedded[name]:>13,}")
    total = sum(len(store) for store, _, _ in found.values())
    print(f"  {'in all':<24}{3 * total:>12,}{total:>12,}{sum(embedded.values()):>13,}")


if __name__ == "__main__":
    main()
