"""README's recipes for other engines, as they stand there: the ids and counts of embedstore, scores to a few ulps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hints import blocks_of_page

from embedstore import vectors
from embedstore.store import EmbedStore

README = Path(__file__).parents[1] / "README.md"
DIM, ROWS, THRESHOLD = 96, 3000, 0.2
MOST_ULPS = 16


def recipe(engine: str) -> str:
    """Return the one block of code that imports an engine."""
    blocks = [*blocks_of_page(README, "python"), *blocks_of_page(README, "py")]
    (found,) = [block for block in blocks if f"\nimport {engine}" in block]
    return found


def ran(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two parts, many equal vectors, and parts of older versions that lie there still."""
    folder = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(5)
    query = vectors.normalise(random.standard_normal((1, DIM)).astype(np.float32))
    x = random.standard_normal((ROWS, DIM)) + random.uniform(-1, 8, (ROWS, 1)) * query
    x[::400] = 11 * query[0] + random.standard_normal(DIM)
    x = vectors.normalise(x.astype(np.float32))
    ids = [f"{number:05}" for number in random.permutation(ROWS)]
    store = EmbedStore.create(folder / "photos.store", space="own", dim=DIM)
    for rows in (slice(0, 2000), slice(2000, None)):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x[rows].ravel()), DIM)
        store.add(pa.table({"id": ids[rows], "v": lists}), embedding_column="v", progress=False)
    store.remove(ids[1:40])
    store.reader.queries.cache.put("text", ["a dog"], query)
    assert len(list((store.path / "images").glob("*.parquet"))) > len(store.snapshot.parts) == 2
    return folder


@pytest.mark.parametrize("engine", ["duckdb", "polars", "daft"])
def test_a_recipe_finds_what_embedstore_finds(engine: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest 20 and the rows above a threshold, ties by id, from the newest version only."""
    if engine == "daft":
        pytest.importorskip("daft")
    monkeypatch.chdir(home)
    store = EmbedStore.open("photos.store")
    scores = store.scores("a dog")[0]
    assert np.abs(scores.astype(np.float64) - THRESHOLD).min() > 2 * vectors.rounding(DIM)  # no row is undecided
    (saving,) = [block for block in blocks_of_page(README, "python") if "np.save(" in block]
    ran(saving)
    assert np.load("query.npy").tobytes() == store.query_vectors(["a dog"])[0].tobytes()
    names = ran(recipe(engine))
    expected = store.search("a dog", k=20)
    ids, found = zip(*names["nearest"], strict=True)
    assert list(ids) == expected.id
    assert len(np.unique(expected.score)) == 20 - 7  # eight rows are equal
    assert names["above"] == store.count("a dog", THRESHOLD) > 100
    ulps = np.abs(np.array(found, np.float64) - expected.score) / np.spacing(expected.score)
    assert ulps.max() <= MOST_ULPS


def test_the_page_says_how_far_scores_differ_and_who_may_write() -> None:
    """What the test above allows stands in README, and so does that Spark only reads."""
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert f"{MOST_ULPS} with Polars" in text
    assert "Spark may read the table, never write it" in text
