"""ImageNet's class names and WordNet -> classes.npy: the vector of each class that ConSE weights by probability.

And class_words.txt: the words of the names that the text table has no whole row for.

A class is the text vector of its name plus those of its hypernyms, each step up counting 0.8 of the one below, so
that a query for "bird" finds a magpie. Hypernyms that hold nearly everything are left out.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from embedstore.embedders.objects import TextTable, words_of

DECAY = 0.8
TOO_WIDE = {
    "abstraction",
    "causal agent",
    "entity",
    "living thing",
    "matter",
    "object",
    "organism",
    "physical entity",
    "thing",
    "whole",
}


def read_nouns(path: Path) -> dict[str, tuple[str, str | None]]:
    """Return WordNet's data.noun (format: wndb(5WN)) as offset -> (first word, offset of the first hypernym)."""
    nouns = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):  # the licence at its head
            continue
        fields = line.partition("|")[0].split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        # A pointer has four fields: symbol, offset, part of speech, source and target.
        upward = [pointers[at + 1] for at in range(0, len(pointers) - 3, 4) if pointers[at] in ("@", "@i")]
        nouns[fields[0]] = (fields[4].replace("_", " "), upward[0] if upward else None)
    return nouns


def hypernyms(nouns: dict[str, tuple[str, str | None]], offset: str) -> list[str]:
    """Return the words above a noun, nearest first, without those that hold nearly everything."""
    words = []
    above = nouns[offset][1]
    while above is not None:
        word, above = nouns[above]
        words.append(word)
    return [word for word in words if word not in TOO_WIDE]


def write_classes(names: Path, wordnet: Path, out: Path) -> None:
    """Write `out`/classes.npy, float16 of shape (1000, 256), in the order of `names` (tab-separated: wnid, name)."""
    table = TextTable(out)
    nouns = read_nouns(wordnet / "data.noun")
    vectors = []
    with names.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            texts = [row["name"], *hypernyms(nouns, row["wnid"].removeprefix("n"))]
            weights = DECAY ** np.arange(len(texts))
            total = weights @ table.vectors(texts)
            vectors.append(total / np.linalg.norm(total))
    np.save(out / "classes.npy", np.array(vectors, dtype=np.float16))


def write_class_words(names: Path, out: Path) -> None:
    """Write `out`/class_words.txt, a word a line, sorted: what `vocab.txt` lacks of the words in `names`."""
    with names.open(encoding="utf-8", newline="") as file:
        words = {word for row in csv.DictReader(file, delimiter="\t") for word in words_of(row["name"])}
    words -= set((out / "vocab.txt").read_text(encoding="utf-8").split("\n"))
    (out / "class_words.txt").write_text("\n".join(sorted(words)) + "\n", encoding="utf-8")
