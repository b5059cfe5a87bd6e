"""The store: embed each image once, then ask.

`EmbedStore` is the public face: it finds a query's vector, scores it against the rows, and returns rows. What lies
where is `folder`'s business, how records come in `ingest`'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.errors import InputError
from embedstore.measures.thresholds import as_thresholds
from embedstore.searching import scan
from embedstore.searching.answers import Answers
from embedstore.searching.index import Shelf
from embedstore.searching.matches import Matches
from embedstore.searching.queries import Query, Resolver, mixing_is_allowed
from embedstore.searching.query_cache import QueryCache
from embedstore.space import Space
from embedstore.storage import journal, manifest
from embedstore.storage.folder import StoreFolder
from embedstore.storage.manifest import Manifest
from embedstore.storage.table import Snapshot
from embedstore.vectors import Vectors

if TYPE_CHECKING:
    from embedstore.deciding.decide import Evaluation
    from embedstore.deciding.sweeping import Sweep
    from embedstore.embedders.protocol import Embedder
    from embedstore.ingest.reports import AddPlan, AddReport
    from embedstore.measures.classifier import Classifier
    from embedstore.searching.indexing import IndexReport
    from embedstore.verify import VerifyReport


class EmbedStore(StoreFolder):
    """A folder of embedded images. Made by `EmbedStore.create` or `EmbedStore.open`.

    Attributes
    ----------
    path : Path
    space : Space
        The embedding space of all its vectors.
    id : str
        32 hex digits, drawn at creation.

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
        allow_mixed_backend: bool = False,
    ) -> None:
        super().__init__(path, about, version)
        self._embedder = embedder
        self._mixed = allow_mixed_backend or mixing_is_allowed()
        self._executor = executor or scan.Threads()
        if embedder is not None and not (self._mixed and self.space.same_model(embedder.space)):
            self.space.require(embedder.space, "the embedder given")
        self._cache = QueryCache(self.table("queries"), self.space)
        self._shelf = Shelf(self.path / "index")
        self._answer_from_rows()

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
        about = Manifest.new(space)
        cls.lay_out(path, about)
        return cls(path, about, None, executor, embedder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        version: int | None = None,
        executor: scan.Executor | None = None,
        embedder: Embedder | None = None,
        allow_mixed_backend: bool = False,
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
        allow_mixed_backend : bool
            Let another backend of the same model make query vectors (``nomic-local`` for a store of ``nomic``, say);
            also ``EMBEDSTORE_ALLOW_MIXED_BACKEND=1``. Scores then differ a little from those that the store's own
            backend gives, and so may decisions near a threshold: `backends.compare` says by how much.

        Raises
        ------
        StoreNotFoundError, FormatVersionError, DamagedStoreError, SpaceMismatchError
        """
        path = Path(path)
        return cls(path, manifest.read(path), version, executor, embedder, allow_mixed_backend)

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

            self._embedder = embedder_for_space(self.space, other_backend=self._mixed)
        return self._embedder

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
            "created_at": self.created_at,
            "version": self.version,
            "columns": self.columns,
            "parts": len(parts),
            "foreign_parts": sum(not part.mapped for part in parts),
            "bytes": part_bytes,
            "bytes_per_image": round(part_bytes / len(self), 1) if len(self) else None,
            "cached_queries": len(self._cache),
            "waiting_in_journal": journal.waiting(self.path / "journal"),
        }

    def add(self, source: Any = None, **options: Any) -> AddReport:
        """Embed what is new in `source` and store it. See `adding.add`, whose options these are."""
        from embedstore.ingest import adding

        return adding.add(self, source, **options)

    def plan_add(self, source: Any = None, **options: Any) -> AddPlan:
        """Say what `add` would do, without doing it. See `adding.plan_add`."""
        from embedstore.ingest import adding

        return adding.plan_add(self, source, **options)

    def index(self, kind: str = "fp16") -> IndexReport:
        """Make index files for new parts, so that search reads fewer bytes. See `indexing.build`."""
        from embedstore.searching import indexing

        return indexing.build(self, self._shelf, kind)

    def verify(self, deep: bool = False) -> VerifyReport:
        """Check the store against itself. See `verify.verify`."""
        from embedstore.verify import verify

        return verify(self, deep)

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
        found = self._answers.scores(self.query_vectors(listed))
        mask = self.mask(where)
        return found if mask is None else found[:, mask]

    def search(
        self,
        query: Any,
        k: int = 10,
        threshold: float | None = None,
        where: Any = None,
        *,
        approximate: bool = False,
    ) -> Matches:
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
        approximate : bool
            Answer from an index of the kind ``ivf`` or ``rabitq``: faster where the store is larger than memory, but
            rows may be missing. Scores are exact.

        Returns
        -------
        Matches
            Nearest first; equal scores by id.
        """
        return self.search_many([query], k, threshold, where, approximate=approximate)[0]

    def search_many(
        self,
        queries: Sequence[Any],
        k: int = 10,
        threshold: float | None = None,
        where: Any = None,
        *,
        approximate: bool = False,
    ) -> list[Matches]:
        """Search for several queries in one pass over the vectors; see `search`."""
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k is how many rows to return, at least 1; found {k!r}")
        limit = None if threshold is None else float(as_thresholds(threshold))
        asked = [Query.of(query) for query in queries]
        wanted = self._resolver.vectors(asked)
        return self._answers.nearest(
            wanted, [query.label for query in asked], int(k), limit, self.mask(where), approximate
        )

    def classify(self, query: Any, threshold: float | None = None, where: Any = None) -> Matches:
        """Return *every* row that matches, nearest first.

        Parameters
        ----------
        query : query or Classifier
            A classifier of one class brings its own threshold, and needs no model.
        threshold : float
            A match is a score larger than this.
        where : str or Expression, optional
            Only rows that this keeps.
        """
        if hasattr(query, "targets"):
            from embedstore.deciding import decide

            return decide.matches(self, query, threshold, where)
        if threshold is None:
            raise InputError("a query needs a threshold to decide by; see `calibrate` for how to find one")
        limit = float(as_thresholds(threshold))
        asked = Query.of(query)
        return self._answers.every(self._resolver.vectors([asked]), asked.label, limit, self.mask(where))

    def exceeding(self, found: Any, threshold: float, label: str, where: Any = None) -> Matches:
        """Return every row whose score in `found`, of shape (n_rows,), is larger than `threshold`."""
        return self._answers.exceeding(found, label, float(as_thresholds(threshold)), self.mask(where))

    def count(self, query: Any, threshold: float, where: Any = None) -> int:
        """Return how many rows have a score larger than `threshold`."""
        limit = float(as_thresholds(threshold))
        return self._answers.count(self.query_vectors([query]), limit, self.mask(where))

    # What follows is `deciding`, by the names that one looks for here.

    def sweep(self, query: Any, labels: Any = None, **words: Any) -> Sweep:
        """Score every row once, for all thresholds: see `sweeping.sweep`."""
        from embedstore.deciding import sweeping

        return sweeping.sweep(self, query, labels, **words)

    def calibrate(self, query: Any, labels: Any, **options: Any) -> Classifier:
        """Choose a threshold by labels and measure it: see `decide.calibrate`."""
        from embedstore.deciding import decide

        return decide.calibrate(self, query, labels, **options)

    def evaluate(self, classifier: Classifier, labels: Any) -> Evaluation:
        """Measure a classifier on labelled rows: see `decide.evaluate`."""
        from embedstore.deciding import decide

        return decide.evaluate(self, classifier, labels)

    def save_classifier(self, classifier: Classifier) -> None:
        """Keep a classifier in the store, as ``classifiers/NAME.json``."""
        from embedstore.deciding import decide

        decide.save(self, classifier)

    def classifier(self, name: str) -> Classifier:
        """Return a classifier that the store keeps: see `decide.load`."""
        from embedstore.deciding import decide

        return decide.load(self, name)

    def classifiers(self) -> list[str]:
        """Return the names of the classifiers that the store keeps, sorted."""
        from embedstore.deciding import decide

        return decide.names(self)

    def _read(self, snapshot: Snapshot) -> None:
        super()._read(snapshot)
        self._answer_from_rows()

    def _answer_from_rows(self) -> None:
        """Answer from the rows of the version that is read now."""
        self._answers = Answers(self.rows, self._executor, self._shelf)
        self._resolver = Resolver(
            self.space, self._cache, lambda: self.embedder, self.rows.vector_of_id, self.rows.vector_of_hash
        )
