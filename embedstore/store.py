"""The store: embed each image once, then ask.

`EmbedStore` is the public face. It has a folder, which changes, and a reader, which answers; each verb hands on to the
package whose business it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from embedstore.errors import InputError, option
from embedstore.searching import scan
from embedstore.searching.index import APPROXIMATE, IndexFiles
from embedstore.searching.index_build import IndexReport, build
from embedstore.searching.matches import Matches
from embedstore.searching.query_vectors import QueryCache, QueryVectors
from embedstore.searching.reader import Reader
from embedstore.settings import mixing_is_allowed
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
from embedstore.storage.rows import Rows
from embedstore.storage.table import Snapshot
from embedstore.vectors import Mask, Vectors
from embedstore.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import ArrayLike

    from embedstore.deciding.carrying import Carried
    from embedstore.deciding.census import Estimate
    from embedstore.deciding.classifier import Classifier
    from embedstore.deciding.counted_sweep import CountedSweep
    from embedstore.deciding.evaluation import Evaluation
    from embedstore.deciding.label_log import Batch
    from embedstore.deciding.label_plan import LabelPlan
    from embedstore.deciding.match_parts import MatchParts
    from embedstore.deciding.rounds import History
    from embedstore.deciding.thresholds import Sweep
    from embedstore.embedders.protocol import Embedder
    from embedstore.ingest.executor import ExecutorFactory
    from embedstore.ingest.reports import AddPlan, AddReport
    from embedstore.storage.older_versions import VacuumReport
    from embedstore.storage.verify import VerifyReport


class EmbedStore:
    """A folder of embedded images, or a place in a bucket. Made by `EmbedStore.create` or `EmbedStore.open`.

    Threads may share one: each call answers from one version of the rows, also while another refreshes.

    Attributes
    ----------
    folder : StoreFolder
        What lies where, and the changes.
    reader : Reader
        The rows of one version, and the answers over them; frozen.

    Examples
    --------
    >>> store = EmbedStore.create("cats.store", model="objects")   # doctest: +SKIP
    >>> print(store.add("photos/"))                                # doctest: +SKIP
    >>> store.search("a cat on a sofa", k=5)                       # doctest: +SKIP
    """

    def __init__(
        self,
        folder: StoreFolder,
        executor: scan.Executor | str | None = None,
        embedder: Embedder | None = None,
        allow_mixed_backend: bool = False,
    ) -> None:
        self.folder = folder
        self._embedder = embedder
        self._mixed = allow_mixed_backend or mixing_is_allowed()
        if embedder is not None and not (self._mixed and self.space.same_model(embedder.space)):
            self.space.require(embedder.space, "the embedder given")
        self.reader = Reader(
            Rows(folder.snapshot()),
            folder.space,
            folder.id,
            QueryVectors(QueryCache(folder.ledger, folder.space), lambda: self.embedder),
            IndexFiles(folder.index),
            _executor_of(executor),
        )

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: str | None = None,
        *,
        space: str | Space | None = None,
        dim: int | None = None,
        embedder: Embedder | None = None,
        executor: scan.Executor | str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | str | None = None,
    ) -> EmbedStore:
        """Make an empty store.

        Parameters
        ----------
        path : path or URL
            A folder that does not exist, or is empty; or ``"s3://bucket/cats.store"``, a place in a bucket where
            nothing is.
        model : str, optional
            Name of an embedder: ``"nomic"``, ``"nomic-local"`` or ``"objects"``. By default ``EMBEDSTORE_MODEL``,
            else ``nomic`` if a key is configured, else ``nomic-local`` if its weights are here.
        space : str, optional
            Instead of a model: a name for vectors of your own making, of `dim` components.
        embedder : Embedder, optional
            Instead of a model: any object of the `Embedder` protocol.
        executor : Executor or str, optional
            Runs scans; by default threads of this process. See `open`.
        cache_dir, cache_size : path, int or str, optional
            Of a store in a bucket; see `open`.

        Raises
        ------
        StoreExistsError
            The folder is a store, or holds something else.
        ModelNotFoundError
            There is no such model, or none could be chosen.
        """
        StoreFolder.require_free(path)
        if isinstance(space, str):
            if not dim:
                raise InputError(f"a store of your own vectors needs their dimension: {option('dim', 512)}")
            space = Space.given(space, dim)
        if space is None:
            if embedder is None:
                from embedstore.embedders.registry import make_embedder

                embedder = make_embedder(model)
            space = embedder.space
        return cls(StoreFolder.create(path, space, cache_dir, cache_size), executor, embedder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        version: int | None = None,
        executor: scan.Executor | str | None = None,
        embedder: Embedder | None = None,
        allow_mixed_backend: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | str | None = None,
    ) -> EmbedStore:
        """Open a store; no model is loaded and nothing is written.

        Parameters
        ----------
        path : path or URL
            A folder, or a place in a bucket such as ``"s3://bucket/cats.store"``: what is read of that is kept in a
            cache on this machine.
        version : int, optional
            An older version, to read only; see `versions`.
        executor : Executor or str, optional
            Runs scans, with the same answers, and reads and embeds what is added: by default threads of this process;
            ``"ray"`` or ``"ray:HOST:PORT"`` for a Ray cluster whose nodes all see the store, and the pictures, at the
            same path, see `cluster.ray_executor.RayExecutor`.
        embedder : Embedder, optional
            For text and picture queries; by default the one that the store names.
        allow_mixed_backend : bool
            Let another backend of the same model make query vectors (``nomic-local`` for a store of ``nomic``, say);
            also ``EMBEDSTORE_ALLOW_MIXED_BACKEND=1``. Scores then differ a little from those that the store's own
            backend gives, and so may decisions near a threshold: `embedstore compare-backends` says by how much.
        cache_dir : path, optional
            Of a store in a bucket: below which folder its cache is; by default ``EMBEDSTORE_CACHE_DIR``, else where the
            system keeps caches. What must not be lost (paid rows, claims, labels) is in another folder,
            ``EMBEDSTORE_DATA_DIR``.
        cache_size : int or str, optional
            How much its parts may take there, such as ``"50GB"``: those used longest ago go. By default
            ``EMBEDSTORE_CACHE_SIZE``, else the smaller of 50 GB and half of what is free.

        Raises
        ------
        StoreNotFoundError, FormatVersionError, DamagedStoreError, SpaceMismatchError
        ClusterError, MissingDependencyError
            Of an executor "ray".
        """
        folder = StoreFolder.open(path, version, cache_dir, cache_size)
        return cls(folder, executor, embedder, allow_mixed_backend)

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

    @property
    def path(self) -> Path:
        """The folder on this machine; of a store in a bucket the one of what it must not lose here."""
        return self.folder.path

    @property
    def location(self) -> str:
        """What the store is called where people read it: its path, or its URL."""
        return self.folder.location

    @property
    def id(self) -> str:
        """32 hex digits, drawn at creation."""
        return self.folder.id

    @property
    def created_at(self) -> str:
        """When the store was made, ISO 8601, UTC."""
        return self.folder.created_at

    @property
    def space(self) -> Space:
        """The embedding space of all its vectors."""
        return self.folder.space

    @property
    def rows(self) -> Rows:
        """The rows of the version that is read."""
        return self.reader.rows

    @property
    def snapshot(self) -> Snapshot:
        """The version that is read, with its parts."""
        return self.rows.snapshot

    @property
    def version(self) -> int:
        """The number of the version that is read."""
        return self.reader.version

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a row, without the embedding."""
        return self.rows.columns

    def __len__(self) -> int:
        return len(self.reader)

    def __repr__(self) -> str:
        return (
            f"EmbedStore({self.location!r}, {counted(len(self), 'image')}, {self.space.model}, version {self.version})"
        )

    def _repr_html_(self) -> str:
        """Show what the store is, and its first pictures, in a notebook."""
        from embedstore import upkeep

        return upkeep.shown(self.folder, self.reader)

    def info(self) -> dict[str, Any]:
        """Return what there is to say of the store, as plain values: see `upkeep.info`."""
        from embedstore import upkeep

        return upkeep.info(self.folder, self.reader)

    def refresh(self) -> None:
        """Move on to the newest version, for rows that others have added; no effect on a store opened at a version."""
        if not self.folder.is_newest(self.snapshot):
            self.reader = self.reader.at(self.folder.snapshot())

    # Fill and keep.

    def add(
        self,
        source: Any = None,
        *,
        label_from_folder: bool = False,
        embedding_column: str | None = None,
        image_column: str | None = None,
        split: str | None = None,
        normalise: bool = False,
        reuse: Sequence[Any] = (),
        only: Sequence[str] | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
        thumbnails: bool = True,
        prune: bool = False,
        progress: bool | None = None,
    ) -> AddReport:
        """Embed what is new in `source` and store it. See `adding.add`, whose options these are.

        With an executor "ray" the workers of its cluster read and embed; see `cluster.ray_ingest`.

        Examples
        --------
        >>> store.add("photos", label_from_folder=True)                                # doctest: +SKIP
        >>> store.add([{"image": picture, "id": "cat-7", "label": "cat"}])             # doctest: +SKIP
        """
        from embedstore.ingest import adding

        try:
            return adding.add(
                self.folder,
                lambda: self.embedder,
                source,
                _ingest_executor(self.reader.executor),
                label_from_folder=label_from_folder,
                embedding_column=embedding_column,
                image_column=image_column,
                split=split,
                normalise=normalise,
                reuse=reuse,
                only=only,
                workers=workers,
                batch_size=batch_size,
                thumbnails=thumbnails,
                prune=prune,
                progress=progress,
            )
        finally:
            self.refresh()

    def plan_add(
        self,
        source: Any = None,
        *,
        label_from_folder: bool = False,
        image_column: str | None = None,
        split: str | None = None,
        reuse: Sequence[Any] = (),
        only: Sequence[str] | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> AddPlan:
        """Say what `add` would do, without doing it. See `adding.plan_add`."""
        from embedstore.ingest import adding

        return adding.plan_add(
            self.folder,
            lambda: self.embedder,
            source,
            label_from_folder=label_from_folder,
            image_column=image_column,
            split=split,
            reuse=reuse,
            only=only,
            batch_size=batch_size,
            progress=progress,
        )

    def missing(self) -> list[str]:
        """Return the ids of the rows whose picture was a file that is not there any more; see `adding.all_missing`."""
        from embedstore.ingest import adding

        return adding.all_missing(self.rows)

    def index(self, kind: str = "int8") -> IndexReport:
        """Make index files for new parts, so that search reads fewer bytes. See `index_build.build`."""
        report = build(self.folder, self.reader.index_files, self.reader.executor, kind)
        self.refresh()
        if report.parts and kind in APPROXIMATE:
            report.recall = self.reader.recall(kind)
        return report

    def verify(self, deep: bool = False) -> VerifyReport:
        """Check the store, at the version that it was opened at. See `upkeep.verify`."""
        from embedstore import upkeep

        return upkeep.verify(self.location, deep, self.folder.pinned)

    def remove(self, ids: Sequence[str] | None = None, *, where: Any = None, dry_run: bool = False) -> int:
        """Remove records by id or by a condition, and return how many.

        Older versions keep them until `vacuum`: `restore` brings them back, and an `add` of the same pictures embeds
        nothing. With `dry_run` nothing is removed; ``to_table(where=where)`` has the rows that would be.

        Raises InputError when neither or both are given, or an id is not in the store.
        """
        if dry_run:
            self.refresh()
            return int(self.folder.leaving(self.rows, ids, where).sum())
        removed = self.folder.remove(ids, where)
        self.refresh()
        return removed

    def restore(self, version: int) -> int:
        """Give the store the rows of an older version again, and return the number of the version that this makes.

        No version is lost, the newest included, and nothing is copied or embedded; see `versions`. Columns that are
        newer stay, empty. Where the newest version has just these rows, its number is returned.

        Raises InputError when there is no such version, `vacuum` has removed its files, or this store was opened at a
        version; DamagedStoreError when a file of that version is damaged.
        """
        made = self.folder.restore(version)
        self.refresh()
        return made.version

    def compact(self) -> int:
        """Merge small parts, lay out anew what another program has written; return the number of parts left."""
        parts = self.folder.compact().parts
        self.refresh()
        return len(parts)

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions, newest first, as dictionaries of version, timestamp and operation."""
        return self.folder.images.versions()

    def vacuum(self, keep_hours: int = 168, *, dry_run: bool = False) -> VacuumReport:
        """Delete files that only versions older than `keep_hours` hours need.

        Those versions can no longer be opened or restored, and a picture that only they hold is embedded again when it
        is added again. With `dry_run` nothing is deleted, and the report counts these pictures.
        """
        return self.folder.vacuum(keep_hours, dry_run)

    # Ask.

    def to_table(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Return rows as an Arrow table, in the order of `scores`: those that `where` keeps, see `where.parse_where`.

        By default with all columns but the embedding, which is returned when named.
        """
        return self.rows.to_table(columns, where)

    def to_pandas(self, columns: Sequence[str] | None = None, where: Any = None) -> pd.DataFrame:
        """Return rows as a pandas DataFrame; see `to_table`."""
        return self.to_table(columns, where).to_pandas()

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Return the vectors of records by id, float32 of shape (len(ids), dim); InputError for an id not here."""
        rows = self.rows
        return rows.vectors(rows.positions(ids))

    def mask(self, where: Any) -> Mask | None:
        """Return which rows `where` keeps, bool of shape (n_rows,), or None for all; see `where.parse_where`."""
        return self.reader.mask(where)

    def query_vectors(self, queries: Sequence[Any]) -> Vectors:
        """Return the unit vectors of queries, float32 of shape (n_queries, dim)."""
        return self.reader.query_vectors(queries)

    def scores(self, queries: Any, where: Any = None) -> Vectors:
        """Score every row against every query.

        Parameters
        ----------
        queries : list of queries, or one
            Texts, pictures, paths, vectors or `Query` objects; or an array of vectors, of shape (n_queries, dim).
        where : str, Expression or mask, optional
            Which rows.

        Returns
        -------
        ndarray of shape (n_queries, n_rows), float32
            Cosines, rows in the order of `to_table(where=where)`.
        """
        return self.reader.scores(queries, where)

    def search(
        self,
        query: Any,
        k: int = 10,
        threshold: float | None = None,
        where: Any = None,
        *,
        approximate: bool = False,
        **words: Any,
    ) -> Matches:
        """Return the nearest rows.

        Parameters
        ----------
        query : str, path, picture, vector, Query, Concept or list of these
            A ``str`` is a text, or the path of a picture here, which is then said: see `Query.of`; with + and - it is
            read by `Query.parse`. Several are averaged, also the rows of an array of vectors.
        k : int
            At most so many.
        threshold : float, optional
            Only rows with a score larger than this.
        where : str, Expression or mask, optional
            Only rows that this keeps, decided before scoring.
        approximate : bool
            Answer from an index of the kind ``ivf`` or ``rabitq``: faster where the store is larger than memory, but
            rows may be missing. Scores are exact.
        **words
            `template`, `weights`, `opposing`: see `Concept.of`.

        Returns
        -------
        Matches
            Nearest first; equal scores by id.
        """
        return self.search_many([query], k, threshold, where, approximate=approximate, **words)[0]

    def search_many(
        self,
        queries: Sequence[Any],
        k: int = 10,
        threshold: float | None = None,
        where: Any = None,
        *,
        approximate: bool = False,
        **words: Any,
    ) -> list[Matches]:
        """Search for several queries in one pass over the vectors; see `search`."""
        return self.reader.search_many(queries, k, threshold, where, approximate=approximate, **words)

    def classify(self, query: Any, threshold: float | None = None, where: Any = None, **words: Any) -> Matches:
        """Return *every* row that matches, nearest first.

        Parameters
        ----------
        query : query, list of queries, Concept or Classifier
            A classifier of one class brings its own threshold, and needs no model.
        threshold : float
            A match is a score larger than this.
        where : str, Expression or mask, optional
            Only rows that this keeps.
        **words
            `template`, `weights`, `opposing`: see `Concept.of`.
        """
        if hasattr(query, "targets"):
            from embedstore.deciding import evaluation

            return evaluation.matches(self.reader, query, threshold, where)
        if threshold is None:
            raise InputError("a query needs a threshold to decide by; `store.calibrate` finds one")
        return self.reader.classify(query, threshold, where, **words)

    def write_matches(
        self,
        folder: str | os.PathLike[str],
        query: Any,
        threshold: float | None = None,
        where: Any = None,
        **words: Any,
    ) -> MatchParts:
        """Write every row that matches into a folder, as Parquet files, and return how many: for very many matches.

        The options are those of `classify`. The files are written where the rows are scored, by the workers of a
        cluster where the store was opened on one: see `match_parts.write_matches`.
        """
        from embedstore.deciding import match_parts

        return match_parts.write_matches(self.reader, folder, query, threshold, where, **words)

    def count(self, query: Any, threshold: float, where: Any = None, **words: Any) -> int:
        """Return how many rows have a score larger than `threshold`; see `classify`."""
        return self.reader.count(query, threshold, where, **words)

    # Decide.

    def exceeding(self, scores: Any, threshold: float, label: str, where: Any = None) -> Matches:
        """Return every row whose score in `scores`, of shape (n_rows,), is larger than `threshold`."""
        return self.reader.exceeding(scores, threshold, label, where)

    @overload
    def sweep(self, query: Any, labels: Any = None, thresholds: None = None, **words: Any) -> Sweep: ...
    @overload
    def sweep(self, query: Any, labels: Any = None, *, thresholds: ArrayLike, **words: Any) -> CountedSweep: ...
    def sweep(
        self, query: Any, labels: Any = None, thresholds: ArrayLike | None = None, **words: Any
    ) -> Sweep | CountedSweep:
        """Score every row once, for all thresholds: see `thresholds.sweep`.

        With `thresholds` named beforehand the rows that exceed each are counted where they are scored, and no score is
        kept but those of labelled rows: see `counted_sweep.counted_sweep`. So billions of rows can be swept.
        """
        if thresholds is not None:
            from embedstore.deciding.counted_sweep import counted_sweep

            return counted_sweep(self.reader, query, thresholds, labels, **words)
        from embedstore.deciding.thresholds import sweep

        return sweep(self.reader, query, labels, **words)

    def calibrate(self, query: Any, labels: Any = None, **options: Any) -> Classifier:
        """Choose a threshold by labels and measure it: see `thresholds.calibrate`."""
        from embedstore.deciding import thresholds

        return thresholds.calibrate(self.reader, query, labels, **options)

    def estimate(self, query: Any, labels: Any = None, **options: Any) -> Estimate:
        """Say by random labels how many rows are positive, and how good a threshold is: see `census.estimate`."""
        from embedstore.deciding import census

        return census.estimate(self.reader, query, labels, **options)

    def plan_labels(self, query: Any, labels: Any = None, **options: Any) -> LabelPlan:
        """Say how many more labels would certify a precision or a recall: see `label_plan.plan_labels`."""
        from embedstore.deciding import label_plan

        return label_plan.plan_labels(self.reader, query, labels, **options)

    def evaluate(self, classifier: Classifier, labels: Any = None, where: Any = None) -> Evaluation:
        """Measure a classifier on labelled rows that `where` keeps: see `evaluation.evaluate`."""
        from embedstore.deciding import evaluation

        return evaluation.evaluate(self.reader, classifier, labels, where)

    def labels(self, concept: str) -> History:
        """Return what the store keeps of the labels of a concept; may stand wherever labels are asked for."""
        from embedstore.deciding import label_log

        return label_log.history(self.reader.ledger, concept, self.rows)

    def add_labels(self, labels: Any, concept: str | None = None, *, picked: str | None = None) -> list[Batch]:
        """Keep labels in the store, such as those of a review's CSV: see `label_log.add`."""
        from embedstore.deciding import label_log

        return label_log.add(self.reader, labels, concept, picked)

    def undo_labels(self, concept: str | None = None) -> Batch | None:
        """Take back what `add_labels` added last, of a concept or at all: see `label_log.undo`."""
        from embedstore.deciding import label_log

        return label_log.undo(self.reader.ledger, concept)

    def carry(self, name: str, other: EmbedStore, **options: Any) -> Carried:
        """Say whether a classifier of this store fits the rows of another: see `carrying.carry`."""
        from embedstore.deciding import carrying

        return carrying.carry(other.reader, self.classifier(name), **options)

    def save_classifier(self, classifier: Classifier) -> None:
        """Keep a classifier in the store, as ``classifiers/NAME.json``."""
        self.folder.publish_classifier(classifier.save(self.folder.classifiers / f"{classifier.name}.json"))

    def classifier(self, name: str) -> Classifier:
        """Return a classifier that the store keeps: see `classifier.find`."""
        from embedstore.deciding.classifier import find

        return find(self.folder.classifiers, name)

    def classifiers(self) -> list[str]:
        """Return the names of the classifiers that the store keeps, sorted."""
        return sorted(file.stem for file in self.folder.classifiers.glob("*.json"))


def _executor_of(named: scan.Executor | str | None) -> scan.Executor:
    """Return an executor as given, or by its name; threads of this process for none."""
    if isinstance(named, str):
        from embedstore.cluster.ray_executor import executor_of

        return executor_of(named)
    return named or scan.Threads()


def _ingest_executor(executor: scan.Executor) -> ExecutorFactory:
    """Return what reads and embeds where an executor scans."""
    from embedstore.ingest.executor import thread_executor

    if executor.local:
        return thread_executor
    from embedstore.cluster.ray_ingest import ingest_executor_for

    return ingest_executor_for(executor)
