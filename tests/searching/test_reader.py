"""Answers: kept scores, thresholds by binary search, rows read when looked at, one total order."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import vectors
from embedstore.errors import QueryError
from embedstore.searching import reader, scan
from embedstore.searching.queries import Concept, Query, at_a_glance
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore

DIM = 16


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbedStore, np.ndarray, np.ndarray]:
    """A store of two parts with many equal vectors, in an order that is not that of the ids."""
    x = unit(3000)
    x[::5] = x[0]
    ids = np.array([f"{n:05}" for n in np.random.default_rng(1).permutation(len(x))])
    store = EmbedStore.create(tmp_path_factory.mktemp("answers") / "s.store", space="own", dim=DIM)
    for rows in (slice(0, 1800), slice(1800, None)):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x[rows].reshape(-1)), DIM)
        table = pa.table({"id": ids[rows].tolist(), "v": lists, "colour": ["red", "blue", None] * (len(lists) // 3)})
        store.add(table, embedding_column="v", progress=False)
    assert len(store.snapshot.parts) == 2
    return store, x, ids


def ordered(x: np.ndarray, ids: np.ndarray, query: np.ndarray, kept: np.ndarray) -> list[tuple[str, np.float32]]:
    """(id, score) of the rows kept, by score descending and then by id."""
    rows = zip(ids[kept].tolist(), np.vecdot(x[kept], query), strict=True)
    return sorted(rows, key=lambda row: (-row[1], row[0]))


@pytest.mark.parametrize("k", [1, 7, 599, 601, 5000])
@pytest.mark.parametrize("scored", [False, True])
def test_nearest_are_in_the_total_order(made: tuple[EmbedStore, np.ndarray, np.ndarray], k: int, scored: bool) -> None:
    """Among 600 equal rows the smallest ids come first, from a scan and from kept scores alike."""
    store, x, ids = made
    store = EmbedStore.open(store.path)
    for query in (x[0], x[3]):
        if scored:
            store.scores(query)
        for where, kept in ((None, np.ones(len(x), bool)), ("colour == 'red'", np.arange(len(x)) % 3 == 0)):
            found = store.search(query, k=k, where=where)
            assert list(zip(found.id, found.score, strict=True)) == ordered(x, ids, query, kept)[:k]


@settings(deadline=None, max_examples=30)
@given(row=st.integers(0, 2999), step=st.sampled_from([-1, 0, 1]))
def test_every_threshold_is_strict_and_exact(
    made: tuple[EmbedStore, np.ndarray, np.ndarray], row: int, step: int
) -> None:
    """At a score, and a float64 step beside it, counts and matches are those of comparing in float64."""
    store, x, ids = made
    query = unit(1, seed=4)[0]
    scores = np.vecdot(x, query).astype(np.float64)
    threshold = float(scores[row])
    if step:
        threshold = float(np.nextafter(threshold, np.inf * step))
    expected = [pair for pair in ordered(x, ids, query, np.ones(len(x), bool)) if float(pair[1]) > threshold]
    assert [store.count(query, threshold) for _ in range(3)] == [len(expected)] * 3
    found = store.classify(query, threshold)
    assert len(found) == len(expected)
    assert list(zip(found.id, found.score, strict=True)) == expected
    red = np.arange(len(x)) % 3 == 0
    assert store.count(query, threshold, where="colour == 'red'") == int((scores[red] > threshold).sum())


def test_a_further_threshold_is_counted_as_the_first_was(made: tuple[EmbedStore, np.ndarray, np.ndarray]) -> None:
    """However a query is spelt, each count is that of a plain comparison, and a changed array is another query."""
    x = made[1]
    store = EmbedStore.open(made[0].path)
    first, second = unit(2, seed=31)
    mean = vectors.normalise((first.astype(np.float64) + second)[np.newaxis].astype(np.float32))[0]
    store.reader.queries.cache.put("text", ["ball"], second[np.newaxis])
    changing = first.copy()
    asked = [
        (first, first),
        (2 * first.astype(np.float64), first),
        (first.tolist(), first),
        (Query.vector(first), first),
        (np.stack([first, second]), mean),
        ("ball", second),
        (" ball ", second),
        (Query.text("ball"), second),
        (changing, first),
    ]
    for spelt, meant in asked:
        scores = np.vecdot(x, meant).astype(np.float64)
        for threshold in (-0.2, 0.1, float(scores[5]), 0.1):
            assert store.count(spelt, threshold) == int((scores > threshold).sum())
    changing[:] = second
    assert store.count(changing, 0.1) == int((np.vecdot(x, second).astype(np.float64) > 0.1).sum())
    assert len({at_a_glance(spelt) for spelt, _ in asked} - {None}) == 5


def test_rows_read_by_column_are_those_of_the_table(made: tuple[EmbedStore, np.ndarray, np.ndarray]) -> None:
    """`id`, `uri` and `score` before the table is read are its columns; copies travel with their rows."""
    store, _, _ = made
    for found in (store.search(unit(1, seed=2)[0], k=40), store.classify(unit(1, seed=2)[0], 0.2)):
        early = (found.id, found.uri, found.score)
        travelled = pickle.loads(pickle.dumps(found))
        table = found.table
        assert table.schema.names[:3] == ["id", "score", "uri"]
        assert early[:2] == (table.column("id").to_pylist(), table.column("uri").to_pylist())
        assert early[2].tolist() == table.column("score").to_pylist()
        assert travelled.table.equals(table)
        assert (found.id, found.uri) == early[:2]


def test_a_scored_query_is_not_scanned_again(
    made: tuple[EmbedStore, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further thresholds, searches and score lists of a query read no vector."""
    store = EmbedStore.open(made[0].path)
    query = unit(1, seed=6)[0]
    first = (store.count(query, 0.1), store.search(query, k=5).id, store.scores([query, -query]).tobytes())

    def scanned(*_: object) -> None:
        raise AssertionError("the vectors were read")

    monkeypatch.setattr(scan, "all_scores", scanned)
    monkeypatch.setattr(scan, "nearest", scanned)
    again = (store.count(query, 0.1), store.search(query, k=5).id, store.scores([query, -query]).tobytes())
    assert again == first
    with pytest.raises(AssertionError, match="were read"):
        store.count(unit(1, seed=7)[0], 0.1)


def test_the_cache_of_a_store_stays_below_its_limit(
    made: tuple[EmbedStore, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many queries are counted, and however often, no more bytes than the limit are held."""
    monkeypatch.setattr(reader, "SCORES_BYTES", 5 * 3000 * 4)
    store = EmbedStore.open(made[0].path)
    for number in range(12):
        query = unit(1, seed=number)[0]
        assert store.count(query, 0.1) == store.count(query, 0.1) == store.count(query, 0.1)
        store.scores(list(unit(4, seed=number)))
        held = sum(line.nbytes for line in store.reader._kept._kept.values())
        assert held <= 5 * 3000 * 4


def test_scores_cannot_be_written_to(made: tuple[EmbedStore, np.ndarray, np.ndarray]) -> None:
    """Kept scores are shared, so whoever gets them gets them read-only."""
    query = unit(1, seed=9)[0]
    for found in (made[0].scores(query), made[0].scores([query, unit(1, seed=8)[0]])):
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1


def test_many_queries_at_once_answer_as_one_by_one(made: tuple[EmbedStore, np.ndarray, np.ndarray]) -> None:
    """Ids and scores of fifty queries are, to the bit, those of fifty searches."""
    store, x, _ = made
    queries = [*unit(30, seed=11), *x[:20]]
    for where in (None, "colour == 'blue'"):
        together = store.search_many(queries, k=13, where=where)
        apart = [store.search(query, k=13, where=where) for query in queries]
        assert [found.id for found in together] == [found.id for found in apart]
        assert [found.score.tobytes() for found in together] == [found.score.tobytes() for found in apart]


def test_answers_do_not_depend_on_the_number_of_threads(
    made: tuple[EmbedStore, np.ndarray, np.ndarray],
) -> None:
    """Processes with one OpenMP and BLAS thread give the same bits: scan, index, many queries, thresholds."""
    store = made[0]
    store.index()
    code = (
        "import sys, hashlib, numpy as np; from embedstore import EmbedStore; from embedstore.searching import index;"
        "index.PATIENCE = float(sys.argv[2]); s = EmbedStore.open(sys.argv[1]);"
        f"q = np.random.default_rng(3).standard_normal((40, {DIM})).astype('f4');"
        "found = [*(s.search(v, k=50) for v in q), *s.search_many(list(q), k=50), s.classify(q[0], 0.1)];"
        "bits = b''.join(m.score.tobytes() + ''.join(m.id).encode() for m in found);"
        "print(hashlib.sha256(bits).hexdigest(), bool(s.reader.index_files._open))"
    )
    printed = set()
    for threads in ({}, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}):
        for patience in ("inf", "0"):
            done = subprocess.run(
                [sys.executable, "-c", code, str(store.path), patience],
                env={**os.environ, **threads},
                capture_output=True,
                text=True,
                check=True,
            )
            digest, indexed = done.stdout.split()
            assert indexed == str(patience == "0")
            printed.add(digest)
    assert len(printed) == 1


def test_a_search_imports_nothing_that_it_does_not_need(
    made: tuple[EmbedStore, np.ndarray, np.ndarray],
) -> None:
    """Opening, searching and reading the rows loads none of the slow libraries."""
    slow = (
        "{'pandas', 'deltalake', 'faiss', 'sklearn', 'PIL', 'pyarrow.compute', 'datasets', 'onnxruntime', '_hashlib'}"
    )
    code = (
        "import sys, numpy as np; from embedstore import EmbedStore; s = EmbedStore.open(sys.argv[1]);"
        f"m = s.search(np.ones({DIM}, 'f4'), k=5); m.id, m.uri, m.score, m.table;"
        f"print(len(m), sorted(set(sys.modules) & {slow}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made[0].path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5 []"


@pytest.mark.parametrize("where", [None, "colour = 'red'"])
def test_searches_classifies_and_counts_by_opposing_and_averaged_queries(
    made: tuple[EmbedStore, np.ndarray, np.ndarray], where: str | None
) -> None:
    """A list of queries is the direction of their mean; opponents take their best score off: by the plain formula."""
    store, x, ids = made
    first, second, against, other = unit(4, seed=21)
    mean = (first.astype(np.float64) + second) / np.linalg.norm(first.astype(np.float64) + second)
    own = np.vecdot(x, mean.astype(np.float32))
    scores = own - np.maximum(np.vecdot(x, against), np.vecdot(x, other))
    red = np.arange(len(x)) % 3 == 0 if where else np.ones(len(x), bool)
    best = sorted(np.flatnonzero(red).tolist(), key=lambda n: (-scores[n], ids[n]))
    words = {"opposing": [against, other]}
    found = store.search([first, second], k=9, where=where, **words)
    assert found.id == [ids[n] for n in best[:9]]
    assert found.score.tolist() == [scores[n] for n in best[:9]]
    limit = float(scores[best[40]])
    above = [ids[n] for n in best if float(scores[n]) > limit]
    assert store.classify([first, second], limit, where, **words).id == above
    assert store.count([first, second], limit, where, **words) == len(above)
    assert store.search([first, second], k=9, threshold=limit, where=where, **words).id == above[:9]
    together = store.search_many([first, Concept.of(first, **words)], k=5, where=where)
    assert together[0].id == store.search(first, k=5, where=where).id
    assert together[1].score.tobytes() == store.search(first, k=5, where=where, **words).score.tobytes()
    with pytest.raises(QueryError, match="opponents"):
        store.search(first, approximate=True, **words)


def test_a_slice_of_matches_reads_its_own_rows(
    made: tuple[EmbedStore, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`matches[a:b]` are those rows of the table, in order, without the others being read; an index is one row."""
    store = made[0]
    whole = store.classify(unit(1, seed=2)[0], -1.0)
    rows = whole.to_pylist()
    assert len(rows) == 3000
    asked = []
    take = Rows.take
    monkeypatch.setattr(
        Rows,
        "take",
        lambda self, positions, columns=None: (asked.append(len(positions)), take(self, positions, columns))[1],
    )
    found = store.classify(unit(1, seed=2)[0], -1.0)
    ties = len(asked)
    part = found[1000:1024]
    assert (len(part), part.to_pylist()) == (24, rows[1000:1024])
    assert max(asked[ties + 1 :]) == 24
    assert (found[5], found[-1]) == (rows[5], rows[-1])
    assert found[::-1][:2].to_pylist() == rows[:2]
    assert pickle.loads(pickle.dumps(part)).to_pylist() == rows[1000:1024]
    with pytest.raises(IndexError):
        found[3000]
