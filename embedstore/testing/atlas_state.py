"""The rules of the stand-in's Atlas: which rows, pictures and maps it takes, and what it refuses.

A request that cannot be met raises `Refused` with what the real server says. HTTP is left to `atlas_routes`, what a
dataset holds to `atlas_dataset`. Where the real server's answer is not publicly known the docstring says so.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.testing import features
from embedstore.testing.atlas_dataset import Dataset, Index
from embedstore.testing.quadtree import Tiles
from embedstore.testing.refusals import Refused

MIN_ROWS = 20
"""A map needs so many rows at least."""

MAX_ID = 36
"""Characters of an id at most."""


class Atlas:
    """All datasets of one organisation.

    Attributes
    ----------
    row_limit : int
        Rows that the organisation may have in all.
    build_seconds : float
        How long a dataset is locked when a map is made of it.
    string_bodies : bool
        Whether a refused upload is answered by a bare JSON string, as an older server did, in place of
        ``{"detail": ...}``. The client tells the reasons apart in strings only, and never ends after an id conflict.
    received : Counter[str]
        Rows that arrived in whole uploads, by dataset slug, whether they were stored or refused.
    """

    def __init__(self, organisation: str) -> None:
        self.organisation = organisation
        self.row_limit = 250_000
        self.build_seconds = 0.0
        self.string_bodies = False
        self.tile_rows = 500
        self.received: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._datasets: dict[str, Dataset] = {}
        self._jobs: dict[str, str] = {}

    def datasets(self) -> list[str]:
        """Return the slugs of all datasets."""
        with self.lock:
            return [dataset.slug for dataset in self._datasets.values()]

    def dataset(self, slug: str) -> Dataset:
        """Return the dataset with this slug, without its organisation; KeyError if there is none."""
        with self.lock:
            for dataset in self._datasets.values():
                if dataset.slug == slug:
                    return dataset
        raise KeyError(slug)

    def find(self, dataset_id: Any) -> Dataset:
        """Return a dataset by its id; refuse with 404 if there is none."""
        if dataset_id not in self._datasets:
            raise Refused(404, "Project not found")
        return self._datasets[dataset_id]

    def create(self, fields: dict[str, Any]) -> Dataset:
        """Make a dataset; a slug that is taken is refused (the real answer is not known)."""
        slug = str(fields["project_name"])
        if slug in self.datasets():
            raise Refused(400, f"Project {slug} already exists")
        dataset = Dataset(
            slug,
            name=slug,
            description=fields.get("description") or "",
            unique_id_field=fields.get("unique_id_field"),
            is_public=bool(fields.get("is_public", True)),
        )
        self._datasets[dataset.id] = dataset
        return dataset

    def remove(self, dataset_id: Any) -> None:
        """Delete a dataset."""
        del self._datasets[self.find(dataset_id).id]

    def add_rows(self, dataset: Dataset, table: pa.Table, *, ignore_conflicts: bool = False) -> None:
        """Store a shard whole, or refuse it whole (the real statuses of refusals are not known; 400 here)."""
        self.received[dataset.slug] += len(table)
        if dataset.locked:
            raise Refused(400, "Project transaction lock is held")
        if sum(len(other.ids) for other in self._datasets.values()) + len(table) > self.row_limit:
            raise Refused(400, f"Adding {len(table)} more datums exceeds your organization limit")
        if dataset.rows is not None and not table.schema.equals(dataset.rows.schema):
            raise Refused(422, f"Schema of the upload does not match the project: {table.schema}")
        ids = self._ids(dataset, table)
        known = set(dataset.ids)
        conflicts = sorted({i for i in ids if i in known} | {i for i, n in Counter(ids).items() if n > 1})
        if conflicts and ignore_conflicts:
            fresh = [row for row, i in enumerate(ids) if i not in known and i not in ids[:row]]
            table, ids = table.take(pa.array(fresh, pa.int64())), [ids[row] for row in fresh]
        elif conflicts:
            shown = ", ".join(conflicts[:10])
            raise Refused(400, f"Insert failed due to ID conflict. Conflicting IDs: {shown}")
        dataset.rows = table if dataset.rows is None else pa.concat_tables([dataset.rows, table])
        dataset.ids = dataset.ids + ids

    def delete_rows(self, dataset: Dataset, ids: list[Any]) -> None:
        """Delete rows by id; unknown ids are passed over."""
        gone = {str(i) for i in ids}
        kept = [row for row, i in enumerate(dataset.ids) if i not in gone]
        if dataset.rows is not None:
            dataset.rows = dataset.rows.take(pa.array(kept, pa.int64()))
        dataset.ids = [dataset.ids[row] for row in kept]

    def rows_of(self, dataset: Dataset, ids: list[Any]) -> list[dict[str, Any]]:
        """Return rows by id, in the order asked, without vectors; unknown ids are left out (real: not known)."""
        if dataset.rows is None:
            return []
        place = {i: row for row, i in enumerate(dataset.ids)}
        found = [place[str(i)] for i in ids if str(i) in place]
        shown = [name for name in dataset.columns if name != "_embeddings"]
        rows: list[dict[str, Any]] = dataset.rows.select(shown).take(pa.array(found, pa.int64())).to_pylist()
        return [{name: _plain(value) for name, value in row.items()} for row in rows]

    def add_blob(self, dataset: Dataset, blob: bytes) -> str | None:
        """Keep a picture and return its hash; None if it is none."""
        try:
            features.decode_pixels(blob)
        except ValueError:
            return None
        name = hashlib.sha256(blob).hexdigest()
        dataset.blobs[name] = blob
        return name

    def create_index(self, dataset: Dataset, fields: dict[str, Any]) -> str:
        """Make a map of the rows that are there, lock the dataset for a while, and return the job's id."""
        if dataset.locked:
            raise Refused(400, "Project transaction lock is held")
        if len(dataset.ids) < MIN_ROWS:
            have = len(dataset.ids)
            raise Refused(400, f"Your project has only {have} datums. Please add at least {MIN_ROWS} datums!")
        name, indexed = fields.get("index_name") or dataset.slug, fields.get("indexed_field")
        rows, vectors = self._vectors(dataset, indexed)
        ids = [dataset.ids[row] for row in rows]
        assert dataset.rows is not None
        id_column = pa.array(ids) if dataset.unique_id_field is None else None
        tiles = Tiles.build(
            dataset.rows.take(rows), vectors, dataset.unique_id_field or "id_", id_column, self.tile_rows
        )
        index = Index(str(uuid.uuid4()), str(uuid.uuid4()), name, indexed, ids, vectors, tiles)
        dataset.indices.append(index)
        if self.build_seconds:
            dataset.locked_until = time.monotonic() + self.build_seconds
        job = str(uuid.uuid4())
        self._jobs[job] = index.id
        return job

    def job(self, job_id: str) -> str:
        """Return the index that a job makes."""
        if job_id not in self._jobs:
            raise Refused(404, "Job not found")
        return self._jobs[job_id]

    def index(self, index_id: Any) -> tuple[Dataset, Index]:
        """Return an index, by its own id or its projection's, and whose it is."""
        for dataset in self._datasets.values():
            for index in dataset.indices:
                if index_id in (index.id, index.projection_id):
                    return dataset, index
        raise Refused(404, "Index not found")

    def nearest(self, index: Index, queries: NDArray[np.floating[Any]], k: int) -> dict[str, Any]:
        """Return the k nearest rows of each query by squared Euclidean distance, as the real index is set to."""
        asked, rows = queries.astype(np.float64), index.vectors.astype(np.float64)
        distances = (asked**2).sum(axis=1)[:, None] - 2 * asked @ rows.T + (rows**2).sum(axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return {
            "neighbors": [[index.ids[row] for row in nearest] for nearest in order],
            "distances": np.take_along_axis(distances, order, axis=1).tolist(),
        }

    def _ids(self, dataset: Dataset, table: pa.Table) -> list[str]:
        """Return the ids of an upload; assigned ones if the dataset names no id column."""
        if dataset.unique_id_field is None:
            return [f"{len(dataset.ids) + row:06d}" for row in range(len(table))]
        if dataset.unique_id_field not in table.column_names:
            raise Refused(422, f"The id field {dataset.unique_id_field} is missing")
        values = table[dataset.unique_id_field].to_pylist()
        if any(value is None or len(str(value)) > MAX_ID for value in values):
            raise Refused(422, f"Ids must not be null nor longer than {MAX_ID} characters")
        return [str(value) for value in values]

    def _vectors(self, dataset: Dataset, indexed: str | None) -> tuple[list[int], NDArray[np.float32]]:
        """Return the rows that a map shows and their vectors; rows without their picture are not on it."""
        if dataset.modality == "embedding":
            return list(range(len(dataset.ids))), dataset.vectors
        assert dataset.rows is not None
        if indexed not in dataset.columns:
            raise Refused(422, f"Indexing on {indexed} not allowed. Valid options are: {dataset.columns}")
        values = dataset.rows[indexed].to_pylist()
        if dataset.modality == "text":
            return list(range(len(values))), np.array([features.text_vector(str(value)) for value in values])
        rows = [row for row, value in enumerate(values) if value in dataset.blobs]
        if len(rows) < MIN_ROWS:
            raise Refused(400, f"Your project has only {len(rows)} images. Please add at least {MIN_ROWS}!")
        pictures = [features.decode_pixels(dataset.blobs[values[row]]) for row in rows]
        return rows, np.array([features.image_vector(pixels) for pixels in pictures])


def _plain(value: Any) -> Any:
    """Return a value as JSON can carry it."""
    return value.isoformat() if isinstance(value, datetime) else value
