"""The store: a folder that holds each image's vector once and answers every question about them from there.

`EmbedStore` opens the folder, finds a query's vector, scores it against the rows, and returns rows. How records come
in is `ingest`'s business, how rows lie on the disk `table`'s and `parts`'.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embedstore import changes, journal, manifest, scan
from embedstore.errors import InputError, StoreLockedError
from embedstore.manifest import Manifest
from embedstore.matches import Matches
from embedstore.queries import Query, QueryCache, Resolver
from embedstore.rows import Rows
from embedstore.space import Space
from embedstore.table import DeltaFolder, Snapshot
from embedstore.thresholds import above, as_thresholds
from embedstore.vectors import Vectors, total_order

if TYPE_CHECKING:
    from embedstore.embedders.protocol import Embedder
    from embedstore.reports import AddPlan, AddReport
    from embedstore.verify import VerifyReport

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("added_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The columns that every store has, besides ``embedding``."""

_LOCK_TIMEOUT = 60.0
_SCORES_BYTES = 256 * 2**20


class EmbedStore:
    """A folder of embedded images. Made by `EmbedStore.create` or `EmbedStore.open`.

    Attributes
    ----------
    path : Path
    space : Space
        The embedding space of all its vectors.
    id : str
        32 hex digits, given at creation.

    Examples
    --------
    >>> store = EmbedStore.create("cats.store", model="objects")   # doctest: +SKIP
    >>> print(store.add("photos/"))                                # doctest: +SKIP
    >>> store.search("a cat on a sofa", k=5)                       # doctest: +SKIP
    """

    def __init__(
        self,
        path: Path,
        about: Manifest,
        version: int | None,
        executor: scan.Executor | None,
        embedder: Embedder | None,
    ) -> None:
        self.path = path
        self.space = about.space
        self.id = about.store_id
        self._created_at = about.created_at
        self._embedder = embedder
        self._executor = executor or scan.Threads()
        self._pinned = version is not None
        if embedder is not None:
            self.space.require(embedder.space, "the embedder given")
        self.images = DeltaFolder(path / "images", self.space.dim, path / "index" / "images.json")
        queries = DeltaFolder(path / "queries", self.space.dim, path / "index" / "queries.json")
        self._cache = QueryCache(queries, self.space)
        self._open(self.images.snapshot(version))

    # -- the folder -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: str | None = None,
        *,
        space: str | Space | None = None,
        dim: int | None = None,
        embedder: Embedder | None = None,
        executor: scan.Executor | None = None,
    ) -> EmbedStore:
        """Make an empty store.

        Parameters
        ----------
        path : path
            A folder that does not exist, or is empty.
        model : str, optional
            Name of an embedder: ``"nomic"``, ``"nomic-local"`` or ``"objects"``. By default ``EMBEDSTORE_MODEL``,
            else ``nomic`` if a key is configured, else ``nomic-local`` if its weights are here.
        space : str, optional
            Instead of a model: a name for vectors of your own making; needs `dim`.
        dim : int, optional
            Number of components of your own vectors.
        embedder : Embedder, optional
            Instead of a model: any object of the `Embedder` protocol.
        executor : Executor, optional
            Runs scans; by default threads of this process.

        Raises
        ------
        StoreExistsError
            The folder is a store, or holds something else.
        ModelNotFoundError
            There is no such model, or none could be chosen.
        """
        path = Path(path)
        manifest.require_free(path)
        if space is not None:
            if isinstance(space, str):
                if not dim:
                    raise InputError("a store of your own vectors needs their dimension: dim=512")
                space = Space.given(space, dim)
        else:
            if embedder is None:
                from embedstore.embedders.registry import make_embedder

                embedder = make_embedder(model)
            space = embedder.space
        path.mkdir(parents=True, exist_ok=True)
        for name in ("index", "classifiers"):
            (path / name).mkdir()
        DeltaFolder(path / "images", space.dim, path / "index" / "images.json").create(SCHEMA)
        about = Manifest.new(space)
        about.write(path)
        return cls(path, about, None, executor, embedder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        version: int | None = None,
        executor: scan.Executor | None = None,
        embedder: Embedder | None = None,
    ) -> EmbedStore:
        """Open a store; no model is loaded and nothing is written.

        Parameters
        ----------
        path : path
        version : int, optional
            An older version, to read only; see `versions`.
        executor : Executor, optional
        embedder : Embedder, optional
            For text and picture queries; by default the one that the store names.

        Raises
        ------
        StoreNotFoundError, FormatVersionError, DamagedStoreError, SpaceMismatchError
        """
        path = Path(path)
        return cls(path, manifest.read(path), version, executor, embedder)

    @property
    def version(self) -> int:
        """The version of the table that this object reads."""
        return self.snapshot.version

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a row, without the embedding."""
        return self.rows.columns

    @property
    def snapshot(self) -> Snapshot:
        """The version of the table that this object reads, with its parts."""
        return self.rows.snapshot

    @property
    def embedder(self) -> Embedder:
        """The embedder of this store's space, loaded when first asked for.

        Raises
        ------
        ModelNotFoundError
            It cannot be made here; the message says what it needs.
        """
        if self._embedder is None:
            from embedstore.embedders.registry import embedder_for_space

            self._embedder = embedder_for_space(self.space)
        return self._embedder

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"EmbedStore({str(self.path)!r}, {len(self):,} images, {self.space.model}, version {self.version})"

    def info(self) -> dict[str, Any]:
        """Return what there is to say of the store, as plain values: counts, bytes, space, columns."""
        parts = self.snapshot.parts
        part_bytes = sum(part.path.stat().st_size for part in parts)
        return {
            "path": str(self.path),
            "images": len(self),
            "model": self.space.model,
            "space": self.space.to_dict(),
            "store_id": self.id,
            "created_at": self._created_at,
            "version": self.version,
            "columns": self.columns,
            "parts": len(parts),
            "foreign_parts": sum(not part.mapped for part in parts),
            "bytes": part_bytes,
            "bytes_per_image": round(part_bytes / len(self), 1) if len(self) else None,
            "cached_queries": len(self._cache),
            "waiting_in_journal": journal.waiting(self.path / "journal"),
        }

    def refresh(self) -> EmbedStore:
        """Move on to the newest version, for rows that another process has added; return self."""
        if self.images.newest_version() != self.version and not self._pinned:
            self._open(self.images.snapshot())
        return self

    # -- rows in and out --------------------------------------------------------------------------------------

    def add(self, source: Any, **options: Any) -> AddReport:
        """Embed what is new in `source` and store it. See `ingest.add`, whose options these are."""
        from embedstore import ingest

        return ingest.add(self, source, **options)

    def plan_add(self, source: Any, **options: Any) -> AddPlan:
        """Say what `add` would do, without doing it. See `ingest.plan_add`."""
        from embedstore import ingest

        return ingest.plan_add(self, source, **options)

    def to_table(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Return rows as an Arrow table.

        Parameters
        ----------
        columns : sequence of str, optional
            Default: all but the embedding, which is returned when named.
        where : str or pyarrow.compute.Expression, optional
            Which rows; see `filters.parse_where`.

        Returns
        -------
        pyarrow.Table
            Rows in the order of `scores`.
        """
        table = self.rows.with_embeddings(self.columns if columns is None else list(columns))
        mask = self.mask(where)
        return table if mask is None else table.filter(pa.array(mask))

    def mask(self, where: Any) -> scan.Mask | None:
        """Return which rows `where` keeps, bool of shape (n_rows,), or None for all."""
        if where is None:
            return None
        from embedstore.filters import parse_where  # not needed to search everything

        parsed = parse_where(where, self.columns)
        return None if parsed is None else parsed.mask(self.rows.metadata(list(parsed.columns)))

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Return the vectors of records by id, float32 of shape (len(ids), dim).

        Raises
        ------
        InputError
            An id is not in the store.
        """
        return self.rows.vectors(self.rows.positions(ids))

    def remove(self, ids: Sequence[str] | None = None, *, where: Any = None) -> int:
        """Remove records by id or by a filter; older versions keep them until `vacuum`.

        Returns
        -------
        int
            Number of rows removed.

        Raises
        ------
        InputError
            Neither or both are given, or an id is not in the store.
        """
        if (ids is None) == (where is None):
            raise InputError("say which records to remove, either by ids or by where='...'")
        with self.writing():
            if ids is not None:
                leaving = np.zeros(len(self), dtype=bool)
                leaving[self.rows.positions(ids)] = True
            else:
                found = self.mask(where)
                assert found is not None
                leaving = found
            self._open(changes.remove(self.images, self.snapshot, leaving))
        return int(leaving.sum())

    def compact(self) -> int:
        """Merge small parts into large ones; return the number of parts that are left."""
        with self.writing():
            self._open(changes.compact(self.images, self.snapshot))
        return len(self.snapshot.parts)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first, as dictionaries of version, timestamp and operation."""
        return self.images.versions()

    def vacuum(self, keep_hours: int = 168, *, dry_run: bool = False) -> list[str]:
        """Delete files that only versions older than `keep_hours` need; return their names."""
        with self.writing():
            return self.images.vacuum(keep_hours, dry_run)

    def verify(self, deep: bool = False) -> VerifyReport:
        """Check the store against itself. See `verify.verify`."""
        from embedstore.verify import verify

        return verify(self, deep)

    # -- questions --------------------------------------------------------------------------------------------

    def query_vectors(self, queries: Sequence[Any]) -> Vectors:
        """Return the unit vectors of queries, float32 of shape (n_queries, dim)."""
        return self._resolver.vectors([Query.of(query) for query in queries])

    def scores(self, queries: Any, where: Any = None) -> Vectors:
        """Score every row against every query.

        Parameters
        ----------
        queries : list of queries, or one
            Texts, pictures, paths, vectors or `Query` objects.
        where : str or Expression, optional
            Which rows.

        Returns
        -------
        ndarray of shape (n_queries, n_rows), float32
            Cosines, rows in the order of `to_table(where=where)`.
        """
        listed = queries if isinstance(queries, list | tuple) else [queries]
        found = self._scores(self.query_vectors(listed))
        mask = self.mask(where)
        return found if mask is None else found[:, mask]

    def search(self, query: Any, k: int = 10, threshold: float | None = None, where: Any = None) -> Matches:
        """Return the nearest rows.

        Parameters
        ----------
        query : str, path, picture, vector or Query
            A ``str`` is always a text.
        k : int
            At most so many.
        threshold : float, optional
            Only rows with a score larger than this.
        where : str or Expression, optional
            Only rows that this keeps, decided before scoring.

        Returns
        -------
        Matches
            Nearest first; equal scores by id.
        """
        return self.search_many([query], k, threshold, where)[0]

    def search_many(
        self, queries: Sequence[Any], k: int = 10, threshold: float | None = None, where: Any = None
    ) -> list[Matches]:
        """Search for several queries in one pass over the vectors; see `search`."""
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k is how many rows to return, at least 1; found {k!r}")
        limit = None if threshold is None else float(as_thresholds(threshold))
        asked = [Query.of(query) for query in queries]
        mask = self.mask(where)
        partial = scan.nearest(
            self.snapshot.parts, self._resolver.vectors(asked), int(k), mask, self._executor
        )
        return [
            self._matches(query, positions, found, limit, int(k))
            for query, positions, found in zip(asked, partial.positions, partial.scores, strict=True)
        ]

    def classify(self, query: Any, threshold: float, where: Any = None) -> Matches:
        """Return *every* row with a score larger than `threshold`, nearest first."""
        limit = float(as_thresholds(threshold))
        asked = Query.of(query)
        found = self._scores(self._resolver.vectors([asked]))[0]
        matching = above(found, limit)
        mask = self.mask(where)
        if mask is not None:
            matching &= mask
        positions = np.flatnonzero(matching)
        return self._matches(asked, positions, found[positions], limit, len(positions))

    def count(self, query: Any, threshold: float, where: Any = None) -> int:
        """Return how many rows have a score larger than `threshold`."""
        return int(np.count_nonzero(above(self.scores([query], where)[0], float(as_thresholds(threshold)))))

    # -- inside -----------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, on the newest version.

        Raises
        ------
        StoreLockedError
            Another process holds it for longer than a minute.
        InputError
            This object was opened at an older version.
        """
        from filelock import FileLock, Timeout

        if self._pinned:
            raise InputError(
                f"this store was opened at version {self.version}, to read; open it without a version"
            )
        try:
            with FileLock(self.path / ".lock", timeout=_LOCK_TIMEOUT):
                self.refresh()
                yield
        except Timeout as error:
            raise StoreLockedError(
                f"another process is writing to {self.path}; wait for it, or end it and try again"
            ) from error

    def fold(self, waiting: journal.Journal) -> None:
        """Take the rows of a journal into the table; the caller holds `writing`."""
        self._open(changes.fold(self.images, waiting))

    def upsert(self, rows: pa.Table, vectors: Vectors, *, replaces: bool) -> None:
        """Add rows with their vectors in one commit; the caller holds `writing`. See `changes.upsert`."""
        self._open(changes.upsert(self.images, rows, vectors, replaces=replaces))

    def _open(self, snapshot: Snapshot) -> None:
        """Read another version from now on, and forget what was remembered of the one before."""
        if hasattr(self, "rows") and snapshot.version == self.version:
            return
        self.rows = Rows(snapshot)
        self._score_lines: OrderedDict[bytes, Vectors] = OrderedDict()
        self._resolver = Resolver(
            self.space, self._cache, lambda: self.embedder, self.rows.vector_of_id, self.rows.vector_of_hash
        )

    def _scores(self, wanted: Vectors) -> Vectors:
        """Score all rows, keeping each query's line so that a further threshold costs no scan."""
        keys = [query.tobytes() for query in wanted]
        missing = [number for number, key in enumerate(keys) if key not in self._score_lines]
        if missing:
            fresh = scan.all_scores(self.snapshot.parts, wanted[missing], self._executor)
            fresh.flags.writeable = False
            if len(keys) == len(missing) and fresh.nbytes > _SCORES_BYTES:
                return fresh
            self._score_lines.update(
                {keys[number]: line for number, line in zip(missing, fresh, strict=True)}
            )
        lines = [self._score_lines[key] for key in keys]
        while (
            len(self._score_lines) > 1
            and sum(line.nbytes for line in self._score_lines.values()) > _SCORES_BYTES
        ):
            self._score_lines.popitem(last=False)
        return (
            lines[0][np.newaxis]
            if len(lines) == 1
            else np.stack(lines)
            if lines
            else np.empty((0, len(self)), np.float32)
        )

    def _matches(
        self,
        query: Query,
        positions: scan.Positions,
        found: np.ndarray[Any, Any],
        threshold: float | None,
        k: int,
    ) -> Matches:
        if threshold is not None:
            kept = above(found, threshold)
            positions, found = positions[kept], found[kept]
        table = self.rows.take(positions)
        order = total_order(found, table.column("id").to_numpy())[:k]
        table = table.take(pa.array(order)).add_column(1, "score", pa.array(found[order], pa.float32()))
        return Matches(table, query.label, threshold)
