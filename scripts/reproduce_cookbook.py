"""Nomic's cookbook page "Building image classifiers with Atlas", from stores that embed each picture once.

The page's experiments: dog on cats and dogs at two thresholds, dog on CIFAR-10 at three, 'a tiny white ball' at 0.058
on imagenette's train split, with the page's five pictures and its assertion, and on the sports data set. Prints the
tables beside the page's figures, what carrying a threshold from one set to the other costs, and how many pictures each
way embeds. Ends with 1 where Nomic's models decide the five pictures otherwise than the page says.

    python scripts/reproduce_cookbook.py --model nomic                          # data sets from the hub, an API key
    python scripts/reproduce_cookbook.py --data-dir DIR --model objects         # data sets that are here

In DIR a data set is a folder of its name on the hub, such as DIR/uoft-cs/cifar10, in any layout that `load_dataset`
reads, or one Parquet file, such as DIR/cifar10/test.parquet; what is not there is left out.

`frgfm/imagenette` is a data set with a script, which `datasets` refuses since its version 4 ("Dataset scripts are no
longer supported"). What still loads is the hub's own Parquet copy, which has a folder for each config, and embedstore
takes that by itself: load_dataset("frgfm/imagenette", data_dir="160px", revision="refs/convert/parquet").
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedstore import EmbedStore
from embedstore.measures.curves import above, precision_recall


@dataclass(frozen=True)
class Experiment:
    """One data set of the page.

    `positives` are the values of the label column that are the class looked for: its name, and its number for files
    that do not name their classes; none where the page names no class. `page` holds threshold -> (precision, recall,
    F1) as published, None where it publishes no figures. `page_embeds` is how many pictures the page's code sends to be
    embedded, all thresholds together, and `page_uploads` how many Atlas embeds for its map.
    """

    title: str
    repository: str
    config: str | None
    split: str
    query: str
    column: str
    positives: tuple[str, ...]
    page: dict[float, tuple[float, float, float] | None]
    page_embeds: int
    page_uploads: int = 0

    @property
    def hub(self) -> str:
        """What `embedstore add` calls it."""
        return f"hf://{self.repository}{f'/{self.config}' if self.config else ''}:{self.split}"

    @property
    def short(self) -> str:
        """The name of its folder of plain Parquet files."""
        return self.title.lower().replace(" ", "_").replace("-", "")


EXPERIMENTS = (
    Experiment(
        "cats and dogs",
        "Bingsu/Cat_and_Dog",
        None,
        "test",
        "dog",
        "labels",
        ("dog", "1"),
        {0.0544: (0.98, 0.74, 0.84), 0.0564: (0.99, 0.67, 0.80)},
        page_embeds=2 * 2_000,
        page_uploads=8_000,
    ),
    Experiment(
        "CIFAR-10",
        "uoft-cs/cifar10",
        None,
        "test",
        "dog",
        "label",
        ("dog", "5"),
        {0.0544: (0.49, 0.94, 0.64), 0.0564: (0.56, 0.92, 0.70), 0.0584: (0.63, 0.89, 0.74)},
        page_embeds=3 * 10_000,
    ),
    Experiment(
        "imagenette",
        "frgfm/imagenette",
        "160px",
        "train",
        "a tiny white ball",
        "label",
        ("golf ball", "8"),
        {0.058: None},
        page_embeds=5,
        page_uploads=9_469,
    ),
    Experiment(
        "sports",
        "nihaludeen/sports_classification",
        None,
        "train",
        "a tiny white ball",
        "label",
        (),
        {0.058: None},
        page_embeds=105,
    ),
)
FIVE = {7450: True, 6828: True, 7464: True, 2343: False, 3356: False}
"""Rows of imagenette's train split, and what the page asserts of them."""


@dataclass(frozen=True)
class Data:
    """A store of one experiment's pictures, their scores and labels by row of the data set, and what was embedded."""

    store: EmbedStore
    scores: dict[int, float]
    labels: dict[int, str]
    embedded: int

    def is_positive(self, experiment: Experiment) -> np.ndarray:
        """Return which rows are of the class looked for, in the order of the rows."""
        return np.array([self.labels[row] in experiment.positives for row in sorted(self.labels)])

    @property
    def by_row(self) -> np.ndarray:
        """The scores in the order of the rows, float32."""
        return np.array([self.scores[row] for row in sorted(self.scores)], np.float32)


def source_of(experiment: Experiment, data_dir: Path | None) -> Any:
    """Return what is to be added: the name on the hub, a data set in a folder, or a file; None where it is not here."""
    if data_dir is None:
        return experiment.hub
    folder = data_dir / experiment.repository
    file = data_dir / experiment.short / f"{experiment.split}.parquet"
    if folder.is_dir():
        import datasets

        return datasets.load_dataset(str(folder), experiment.config, split=experiment.split)
    return str(file) if file.is_file() else None


def prepare(experiment: Experiment, source: Any, folder: Path, model: str | None) -> Data:
    """Embed what is new, and score every picture."""
    path = folder / f"{experiment.title.replace(' ', '-').lower()}-{experiment.split}.store"
    store = EmbedStore.open(path) if (path / "store.json").exists() else EmbedStore.create(path, model)
    report = store.add(source)
    if report.failures:
        raise SystemExit(f"{experiment.title}: {report}")
    table = store.to_table(["uri", experiment.column])
    uris = table.column("uri").to_pylist()
    if all(re.search(r"#\d+$", uri) for uri in uris):
        rows = [int(uri.rpartition("#")[2]) for uri in uris]
    else:  # pictures that are files have no number in their data set
        rows = list(range(len(uris)))
    labels = [str(value) for value in table.column(experiment.column).to_pylist()]
    scores = store.scores(experiment.query)[0].tolist()
    found = dict(zip(rows, scores, strict=True)), dict(zip(rows, labels, strict=True))
    return Data(store, *found, report.embedded)


def is_nomic(store: EmbedStore) -> bool:
    """Tell whether the page's thresholds mean anything for a store's scores."""
    return store.space.model.startswith("nomic")


def thresholds_for(experiment: Experiment, data: Data) -> Sequence[float]:
    """Return the page's thresholds for Nomic's models; for others as many of their own scale around the best F1."""
    labels = data.is_positive(experiment)
    if is_nomic(data.store):
        return list(experiment.page)
    scores = data.by_row
    if not labels.any():
        return [float(np.quantile(scores, 0.9))]
    curve = precision_recall(scores, labels)
    best = float(curve.thresholds[curve.best_cut])
    step = 0.25 * float(np.std(scores))
    return [best + step * (place - len(experiment.page) // 2) for place in range(len(experiment.page))]


def row(what: str, figures: Sequence[float], note: str = "") -> str:
    """Return a line of a table."""
    return f"  {what:<34}" + "".join(f"{value:>11.3f}" for value in figures) + (f"   {note}" if note else "")


def show(experiment: Experiment, data: Data) -> None:
    """Print precision, recall and F1 at the thresholds, or what matches where no class is named."""
    scores, labels = data.by_row, data.is_positive(experiment)
    positive = f", {labels.sum():,} positive" if experiment.positives else ""
    print(f"\n{experiment.query!r} on {experiment.title} ({experiment.split}): {len(labels):,} pictures{positive}")
    thresholds = thresholds_for(experiment, data)
    if not experiment.positives:
        for threshold in thresholds:
            matched = above(scores, threshold)
            classes = Counter(
                data.labels[row] for row, match in zip(sorted(data.labels), matched, strict=True) if match
            )
            kinds = ", ".join(f"{count} {name}" for name, count in classes.most_common()) or "none"
            print(f"  score > {threshold:.4f}   {matched.sum():,} match: {kinds}")
        return
    print(f"  {'score >':<34}{'precision':>11}{'recall':>11}{'F1':>11}")
    curve = precision_recall(scores, labels)
    for threshold in thresholds:
        figures = curve.at(threshold)
        page = experiment.page.get(threshold)
        note = "page: {:.2f} {:.2f} {:.2f}".format(*page) if page else f"{figures.tp + figures.fp:,} match"
        print(row(f"{threshold:.4f}", (figures.precision, figures.recall, figures.f1), note))
    if not is_nomic(data.store):
        for threshold, page in experiment.page.items():
            if page:
                print(row(f"{threshold:.4f} (the page, with Nomic)", page))
    print(f"  average precision {curve.average_precision:.3f}")


def five(experiment: Experiment, data: Data) -> bool:
    """Print what is decided of the page's five pictures; return whether its assertion holds, where it can be asked."""
    missing = [number for number in FIVE if number not in data.scores]
    if missing:
        print(f"  the page's five pictures: rows {', '.join(map(str, missing))} are not here")
        return True
    [threshold] = thresholds_for(experiment, data)
    decided = {number: data.scores[number] > threshold for number in FIVE}
    print(f"  the page's five pictures at {threshold:.4f}:")
    for number, wanted in FIVE.items():
        print(f"    {number}: {decided[number]!s:<5}   page: {wanted!s:<5}   score {data.scores[number]:.4f}")
    if decided == FIVE:
        print("  its assertion holds")
    elif is_nomic(data.store):
        print(f"  its assertion FAILS: {list(decided.values())}, expected {list(FIVE.values())}")
    else:
        print("  its assertion is of Nomic's models, and does not hold with this one")
    return decided == FIVE or not is_nomic(data.store)


def carry(found: dict[str, Data]) -> None:
    """Calibrate 'dog' on each of two sets, apply it to both."""
    experiments = EXPERIMENTS[:2]
    if not all(experiment.title in found for experiment in experiments):
        return
    labels, made = {}, {}
    for experiment in experiments:
        data = found[experiment.title]
        values = data.store.to_table([experiment.column]).column(experiment.column).to_pylist()
        labels[experiment.title] = np.array([str(value) in experiment.positives for value in values])
        made[experiment.title] = data.store.calibrate("dog", labels[experiment.title], name=f"dog {experiment.title}")
    print("\na threshold for 'dog' is at home where it was calibrated")
    print(f"  {'calibrated on -> applied to':<34}{'threshold':>11}{'F1':>11}")
    for origin in made:
        for target in made:
            if origin == target:
                figure, note = made[origin].targets[0].metrics["f1"], "held out"
            else:
                evaluation = found[target].store.evaluate(made[origin], labels[target])
                figure = next(iter(evaluation.metrics.values())).f1
                best = made[target].targets[0].metrics["f1"]
                note = f"recalibrating wins {best - figure:+.3f}"
                shift = next(iter(evaluation.shift.values()))
                note += "; the scores differ, it says so" if shift is not None and shift.differs else ""
            print(row(f"{origin} -> {target}", (made[origin].threshold, figure), note))


def costs(found: dict[str, Data]) -> None:
    """Print how many pictures the page's code embeds, of the data sets as they are on the hub, and how many a store."""
    print("\npictures embedded")
    print(f"  {'':<24}{'the page':>12}{'its uploads':>13}{'embedstore':>12}{'in this run':>13}")
    table = [
        (experiment.title, experiment.page_embeds, experiment.page_uploads, len(data.store), data.embedded)
        for experiment in EXPERIMENTS
        if (data := found.get(experiment.title)) is not None
    ]
    total = ("in all", *(sum(line[place] for line in table) for place in (1, 2, 3, 4)))
    for name, page, uploads, ours, now in [*table, total]:
        print(f"  {name:<24}{page:>12,}{uploads:>13,}{ours:>12,}{now:>13,}")
    print("  the page: sent by its code, once for each threshold; its uploads: embedded by Atlas, for the maps")


def main() -> None:
    """Run the experiments and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="data sets that are here, instead of the hub")
    parser.add_argument("--model", help="nomic, nomic-local or objects")
    parser.add_argument("--stores", type=Path, default=Path("cookbook.stores"), help="where to keep the stores")
    arguments = parser.parse_args()
    arguments.stores.mkdir(parents=True, exist_ok=True)
    found: dict[str, Data] = {}
    holds = True
    for experiment in EXPERIMENTS:
        source = source_of(experiment, arguments.data_dir)
        if source is None:
            print(f"\n{experiment.title}: the split {experiment.split!r} is not in {arguments.data_dir}; left out")
            continue
        data = found[experiment.title] = prepare(experiment, source, arguments.stores, arguments.model)
        show(experiment, data)
        if experiment.repository == "frgfm/imagenette":
            holds &= five(experiment, data)
    carry(found)
    costs(found)
    raise SystemExit(not holds)


if __name__ == "__main__":
    main()
