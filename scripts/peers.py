"""The stores that are measured side by side, each behind the same few calls.

Every peer is used as its documentation says for exact search by inner product. `ingest` makes its files in a folder
from the same rows, `open` is what a new process does before its first question, and answers are row numbers, so that
they can be compared. A heavy import stands inside the method that needs it: a peer's start is part of what is
measured.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

DIM = 768
KEPT_LABEL = 3
_LEVELS = 8


@dataclass
class Rows:
    """What is put into each store: vectors in a .npy file, and their metadata."""

    npy: Path
    ids: list[str]
    uris: list[str]
    hashes: list[str]
    labels: np.ndarray

    def table(self) -> Any:
        """Return an Arrow table; the vectors are the mapped file."""
        import pyarrow as pa

        values = pa.array(np.load(self.npy, mmap_mode="r").reshape(-1))
        return pa.table(
            {
                "id": self.ids,
                "uri": self.uris,
                "content_hash": self.hashes,
                "label": pa.array(self.labels),
                "vector": pa.FixedSizeListArray.from_arrays(values, DIM),
            }
        )


class Peer(ABC):
    """One store."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    largest: ClassVar[int] = 10_000_000
    needs: ClassVar[tuple[str, ...]] = ()
    has_records: ClassVar[bool] = False
    """Whether it stores what else is known of a row, such as its uri."""
    mapped: ClassVar[bool] = True
    """Whether its files stay in the page cache; else they are read into the memory of each process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def ingest(self, rows: Rows) -> None:
        """Make the files."""

    @abstractmethod
    def open(self) -> None:
        """Do what a new process does before its first question."""

    @abstractmethod
    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        """Return the numbers of the nearest `k` rows; a store of records reads their uris for it."""

    def nearest(self, query: np.ndarray, k: int) -> Any:
        """Find the nearest `k` rows and their scores; reading what else is known of them is not asked for."""
        return self.top(query, k)

    def warm(self, queries: np.ndarray) -> None:
        """Do what a process does at first only."""
        for query in queries[:8]:
            self.top(query, 20)

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        """Answer each query."""
        return [self.top(query, k) for query in queries]

    def above(self, query: np.ndarray, threshold: float) -> int:
        """Find all rows with a score larger than the threshold, and return how many there are."""
        raise NotImplementedError

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        """Find the nearest `k` rows whose label is `KEPT_LABEL`."""
        raise NotImplementedError

    def sweep(self, query: np.ndarray, thresholds: np.ndarray) -> Any:
        """Count the rows above each threshold."""
        raise NotImplementedError


class Embedstore(Peer):
    """This project, scanning the Parquet parts where they lie."""

    name = "embedstore"
    has_records = True

    def ingest(self, rows: Rows) -> None:
        from embedstore import EmbedStore

        store = EmbedStore.create(self.folder / "rows.store", space="bench", dim=DIM)
        store.add(rows.table(), embedding_column="vector", progress=False)

    def open(self) -> None:
        from embedstore import EmbedStore

        self.store = EmbedStore.open(self.folder / "rows.store")

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._rows(self.store.search(query, k))

    def nearest(self, query: np.ndarray, k: int) -> Any:
        return self.store.search(query, k).score

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        return self.store.search_many(list(queries), k)

    def above(self, query: np.ndarray, threshold: float) -> int:
        return len(self.store.classify(query, threshold))

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        return self.store.search(query, k, where=f"label == {KEPT_LABEL}").score

    def sweep(self, query: np.ndarray, thresholds: np.ndarray) -> Any:
        return self.store.sweep(query).columns(thresholds)["matches"]

    @staticmethod
    def _rows(matches: Any) -> np.ndarray:
        return row_numbers(matches.uri)


class EmbedstoreIndexed(Embedstore):
    """This project with `embedstore index`: the same answers."""

    name = "embedstore + index"

    def ingest(self, rows: Rows) -> None:
        shutil.copytree(self.folder.parent / "embedstore", self.folder, copy_function=_link, dirs_exist_ok=True)
        from embedstore import EmbedStore

        EmbedStore.open(self.folder / "rows.store").index()

    def warm(self, queries: np.ndarray) -> None:
        from embedstore.searching.index import PATIENCE

        searches = 8 + PATIENCE // (len(self.store) * DIM * 4)  # the index is used once it pays to open it
        for number in range(searches):
            self.store.search(queries[number % len(queries)], 20)
        super().warm(queries)


class Numpy(Peer):
    """A matrix in a .npy file, mapped."""

    name = "numpy"

    def ingest(self, rows: Rows) -> None:
        np.save(self.folder / "rows.npy", np.load(rows.npy, mmap_mode="r"))
        np.save(self.folder / "labels.npy", rows.labels)

    def open(self) -> None:
        self.rows = np.load(self.folder / "rows.npy", mmap_mode="r").view(np.ndarray)
        self.labels = np.load(self.folder / "labels.npy")

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return _best(self.rows @ query, k)

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        scores = np.concatenate([self.rows[n : n + 65_536] @ queries.T for n in range(0, len(self.rows), 65_536)])
        return [_best(line, k) for line in scores.T]

    def above(self, query: np.ndarray, threshold: float) -> int:
        return len(np.flatnonzero(self.rows @ query > np.float32(threshold)))

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        kept = np.flatnonzero(self.labels == KEPT_LABEL)
        return kept[_best(self.rows[kept] @ query, k)]

    def sweep(self, query: np.ndarray, thresholds: np.ndarray) -> Any:
        scores = np.sort(self.rows @ query)
        return len(scores) - np.searchsorted(scores, thresholds.astype(np.float32), side="right")


class FaissFlat(Peer):
    """FAISS IndexFlatIP, mapped."""

    name = "FAISS flat"
    needs = ("faiss",)

    def ingest(self, rows: Rows) -> None:
        import faiss

        index = self._empty(faiss)
        vectors = np.load(rows.npy, mmap_mode="r")
        for start in range(0, len(vectors), 65_536):
            index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
        faiss.write_index(index, str(self.folder / "rows.faiss"))
        np.save(self.folder / "labels.npy", rows.labels)

    def open(self) -> None:
        import faiss

        self.index = faiss.read_index(str(self.folder / "rows.faiss"), faiss.IO_FLAG_MMAP_IFC)
        self.labels = np.load(self.folder / "labels.npy")

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(query[np.newaxis], k)[1][0]

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        return self.index.search(queries, k)

    def above(self, query: np.ndarray, threshold: float) -> int:
        return len(self.index.range_search(query[np.newaxis], threshold)[2])

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        import faiss

        bits = np.packbits(self.labels == KEPT_LABEL, bitorder="little")
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        return self.index.search(query[np.newaxis], k, params=chosen)[1][0]

    @staticmethod
    def _empty(faiss: Any) -> Any:
        return faiss.IndexFlatIP(DIM)


class FaissHalf(FaissFlat):
    """FAISS fp16 codes, mapped, not re-scored."""

    name = "FAISS fp16"
    exact = False

    @staticmethod
    def _empty(faiss: Any) -> Any:
        return faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


class FaissPanorama(FaissFlat):
    """FAISS IndexFlatIPPanorama, which leaves out rows by bounds on levels of their components."""

    name = "FAISS Panorama"
    mapped = False

    @staticmethod
    def _empty(faiss: Any) -> Any:
        return faiss.IndexFlatIPPanorama(DIM, _LEVELS)


class FaissWhole(FaissFlat):
    """FAISS codes of whole numbers, mapped, not re-scored; the query is rounded too."""

    name = "FAISS int8"
    exact = False

    def ingest(self, rows: Rows) -> None:
        import faiss

        vectors = np.load(rows.npy, mmap_mode="r")
        scale = 127 / max(float(np.abs(vectors[n : n + 65_536]).max()) for n in range(0, len(vectors), 65_536))
        index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(vectors), 65_536):
            index.add(np.rint(vectors[start : start + 65_536] * np.float32(scale)))
        faiss.write_index(index, str(self.folder / "rows.faiss"))
        np.save(self.folder / "labels.npy", rows.labels)

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return super().top(np.rint(query * (127 / np.abs(query).max())), k)

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        return super().top_of_many(np.rint(queries * (127 / np.abs(queries).max())), k)

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        return super().filtered(np.rint(query * (127 / np.abs(query).max())), k)

    def above(self, query: np.ndarray, threshold: float) -> int:
        raise NotImplementedError


class UsearchHalf(Peer):
    """usearch's exact search over half-precision rows, mapped."""

    name = "usearch f16"
    exact = False
    needs = ("usearch",)

    def ingest(self, rows: Rows) -> None:
        vectors = np.load(rows.npy, mmap_mode="r")
        half = np.lib.format.open_memmap(self.folder / "rows.npy", "w+", np.float16, vectors.shape)
        for start in range(0, len(vectors), 65_536):
            half[start : start + 65_536] = vectors[start : start + 65_536]
        half.flush()

    def open(self) -> None:
        self.rows = np.load(self.folder / "rows.npy", mmap_mode="r").view(np.ndarray)

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._search(query[np.newaxis], k).keys.reshape(-1)

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        return self._search(queries, k)

    def _search(self, queries: np.ndarray, k: int) -> Any:
        from usearch.index import MetricKind, search

        return search(self.rows, queries.astype(np.float16), k, MetricKind.IP, exact=True, threads=0)


class NumkongWhole(Peer):
    """numkong's dot products of whole numbers, a scale for each row, mapped, not re-scored."""

    name = "numkong int8"
    exact = False
    needs = ("numkong",)

    def ingest(self, rows: Rows) -> None:
        vectors = np.load(rows.npy, mmap_mode="r")
        codes = np.lib.format.open_memmap(self.folder / "codes.npy", "w+", np.int8, vectors.shape)
        largest = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), 65_536):
            block = vectors[start : start + 65_536]
            largest[start : start + 65_536] = np.abs(block).max(axis=1)
            codes[start : start + 65_536] = np.rint(block * (127 / largest[start : start + 65_536, np.newaxis]))
        codes.flush()
        np.save(self.folder / "largest.npy", largest)

    def open(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.codes = np.load(self.folder / "codes.npy", mmap_mode="r").view(np.ndarray)
        self.largest = np.load(self.folder / "largest.npy")
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        import numkong

        whole = np.rint(query * (127 / np.abs(query).max())).astype(np.int8)[np.newaxis]

        def products(start: int) -> np.ndarray:
            return np.asarray(numkong.cdist(self.codes[start : start + 65_536], whole, "dot"))[:, 0]

        found = np.concatenate(list(self.threads.map(products, range(0, len(self.codes), 65_536))))
        return _best(found * self.largest, k)


class LanceDb(Peer):
    """LanceDB, flat search."""

    name = "LanceDB"
    has_records = True
    largest = 1_000_000
    needs = ("lancedb",)

    def ingest(self, rows: Rows) -> None:
        import lancedb

        lancedb.connect(self.folder).create_table("rows", rows.table())

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(self.folder).open_table("rows")

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._found(self._search(query).limit(k))

    def above(self, query: np.ndarray, threshold: float) -> int:
        # Lance's distance is 1 - score; upper bounds are exclusive.
        near = self._search(query).distance_range(upper_bound=1 - threshold).limit(10**8)
        return near.select(["id", "_distance"]).to_arrow().num_rows

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._found(self._search(query).where(f"label = {KEPT_LABEL}", prefilter=True).limit(k))

    def _search(self, query: np.ndarray) -> Any:
        return self.table.search(query, vector_column_name="vector").distance_type("dot")

    @staticmethod
    def _found(search: Any) -> np.ndarray:
        found = search.select(["id", "uri", "_distance"]).to_arrow()
        return row_numbers(found.column("uri").to_pylist())


class DuckDb(Peer):
    """DuckDB with a FLOAT[768] column."""

    name = "DuckDB"
    has_records = True
    largest = 100_000
    needs = ("duckdb",)
    _score = f"array_inner_product(vector, ?::FLOAT[{DIM}])"

    def ingest(self, rows: Rows) -> None:
        import duckdb

        table = rows.table()  # noqa: F841  (DuckDB finds it by its name)
        with duckdb.connect(str(self.folder / "rows.duckdb")) as database:
            database.execute(f"CREATE TABLE rows AS SELECT * REPLACE (vector::FLOAT[{DIM}] AS vector) FROM 'table'")

    def open(self) -> None:
        import duckdb

        self.database = duckdb.connect(str(self.folder / "rows.duckdb"), read_only=True)

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._found(f"ORDER BY {self._score} DESC LIMIT {k}", query)

    def above(self, query: np.ndarray, threshold: float) -> int:
        return len(self._rows(f"WHERE {self._score} > {threshold}", query)["id"])

    def filtered(self, query: np.ndarray, k: int) -> np.ndarray:
        return self._found(f"WHERE label = {KEPT_LABEL} ORDER BY {self._score} DESC LIMIT {k}", query)

    def _found(self, clause: str, query: np.ndarray) -> np.ndarray:
        return row_numbers(self._rows(clause, query)["uri"])

    def _rows(self, clause: str, query: np.ndarray) -> Any:
        return self.database.execute(f"SELECT id, uri FROM rows {clause}", [query.tolist()]).fetchnumpy()


class HuggingFace(Peer):
    """Hugging Face datasets with a flat FAISS index beside them."""

    name = "HF datasets + FAISS"
    has_records = True
    largest = 100_000
    needs = ("datasets", "faiss")

    def ingest(self, rows: Rows) -> None:
        import datasets
        import faiss

        datasets.disable_progress_bars()
        loaded = datasets.Dataset(rows.table())
        loaded.save_to_disk(str(self.folder / "rows"))
        loaded.add_faiss_index("vector", metric_type=faiss.METRIC_INNER_PRODUCT)
        loaded.save_faiss_index("vector", str(self.folder / "rows.faiss"))

    def open(self) -> None:
        import datasets

        self.loaded = datasets.load_from_disk(str(self.folder / "rows"))
        self.loaded.load_faiss_index("vector", str(self.folder / "rows.faiss"))

    def top(self, query: np.ndarray, k: int) -> np.ndarray:
        return row_numbers(self.loaded.get_nearest_examples("vector", query, k).examples["uri"])

    def top_of_many(self, queries: np.ndarray, k: int) -> Any:
        return self.loaded.search_batch("vector", queries, k)


PEERS: tuple[type[Peer], ...] = (
    Embedstore,
    EmbedstoreIndexed,
    Numpy,
    FaissFlat,
    FaissHalf,
    FaissWhole,
    FaissPanorama,
    UsearchHalf,
    NumkongWhole,
    LanceDb,
    DuckDb,
    HuggingFace,
)


def row_numbers(uris: Sequence[str]) -> np.ndarray:
    """Return the row numbers that the uris were made from."""
    return np.array([int(Path(uri).stem) for uri in uris])


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    best = np.argpartition(-scores, k)[:k]
    return best[np.argsort(-scores[best], kind="stable")]


def _link(source: str, target: str) -> str:
    """Share a file between two folders; index files are not copied."""
    Path(target).hardlink_to(source)
    return target
