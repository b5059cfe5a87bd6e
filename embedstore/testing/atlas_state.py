"""The stand-in's Atlas: datasets and the maps made of them, which rows and pictures it takes, and what it refuses.

A request that cannot be met raises `Refused` with what the real server says. Rows and maps may be shown late, as by a
service of many machines; an upload meets the rows that are there all the same. HTTP is left to `routes`, the files of
a map to `quadtree`. Where the real server's answer is not publicly known the docstring says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.testing import features
from embedstore.testing.quadtree import Tiles
from embedstore.testing.wire import Refused

ORGANISATION = {
    "organization_id": "6f3d1c1e-2a55-4f0b-9d2f-3f5d3a0e7c11",
    "slug": "stand-in",
    "user_id": "auth0|stand-in",
    "access_role": "OWNER",
    "plan_type": "verified",
}
"""The one organisation that there is, and the user whose key is accepted."""
MIN_ROWS = 20
"""A map needs so many rows at least."""
MAX_ID = 36
"""Characters of an id at most."""


@dataclass
class Index:
    """A map: a snapshot of the rows that were there when it was made.

    `ids` and `vectors`, of shape (n, dim), stand in the order of upload, `tiles` in that of the map, which is another.
    """

    id: str
    projection_id: str
    name: str
    indexed_field: str | None
    ids: list[str]
    vectors: NDArray[np.float32]
    tiles: Tiles
    listed_from: float = 0.0
    """Time (of `time.monotonic`) from which the dataset lists it."""
    ready_from: float = 0.0
    """Time from which it is completed, at the latest; it is as soon as the dataset is not locked any more."""
    topic_field: str | None = None
    """The column that names its topics."""


@dataclass
class Dataset:
    """One dataset, as a test may look at it."""

    slug: str
    description: str
    unique_id_field: str | None
    is_public: bool
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    rows: pa.Table | None = None
    """All rows in the order in which they were stored, ``_embeddings`` or ``_blob_hash`` included."""
    ids: list[str] = field(default_factory=list)
    """Of the rows, given or assigned."""
    shown_from: list[float] = field(default_factory=list)
    """For each row the time (of `time.monotonic`) from which look-ups and the count show it."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Pictures by their hashes."""
    indices: list[Index] = field(default_factory=list)
    locked_until: float = 0.0
    """Time (of `time.monotonic`) until which it takes no rows; ``float("inf")`` locks it for good."""

    @property
    def locked(self) -> bool:
        """Whether it takes no rows now."""
        return time.monotonic() < self.locked_until

    def has_built(self, index: Index) -> bool:
        """Return whether a map is completed and can be read."""
        return not self.locked or time.monotonic() >= index.ready_from

    @property
    def shown(self) -> list[int]:
        """Places of the rows that are shown by now."""
        now = time.monotonic()
        return [row for row, moment in enumerate(self.shown_from) if moment <= now]

    @property
    def columns(self) -> list[str]:
        """Names of the columns, private ones included."""
        return [] if self.rows is None else list(self.rows.column_names)

    @property
    def modality(self) -> str | None:
        """What it holds, by its columns: embedding, image, text, or None before the first row."""
        if self.rows is None:
            return None
        if "_embeddings" in self.columns:
            return "embedding"
        return "image" if "_blob_hash" in self.columns else "text"

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The uploaded embeddings, of shape (n, dim), in the order of `ids`."""
        if self.rows is None or "_embeddings" not in self.columns:
            raise ValueError(f"dataset {self.slug} holds no embeddings")
        column = self.rows["_embeddings"].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, np.float32).reshape(len(column), column.type.list_size)

    def described(self) -> dict[str, Any]:
        """Return the JSON of ``GET /v1/project/{id}``."""
        schema = None if self.rows is None else base64.b64encode(self.rows.schema.serialize().to_pybytes()).decode()
        return {
            "id": self.id,
            "slug": self.slug,
            "project_name": self.slug,
            "organization_slug": ORGANISATION["slug"],
            "description": self.description,
            "unique_id_field": self.unique_id_field,
            "modality": self.modality,
            "schema": schema,
            "project_fields": self.columns,
            "total_datums_in_project": len(self.shown),
            "insert_update_delete_lock": self.locked,
            "created_timestamp": self.created.strftime("%Y-%m-%dT%H:%M:%S.%f%z"),
            "is_public": self.is_public,
            "atlas_indices": [
                {
                    "id": index.id,
                    "index_name": index.name,
                    "indexed_field": index.indexed_field,
                    "projections": [{"id": index.projection_id}],
                }
                for index in self.indices
                if time.monotonic() >= index.listed_from
            ],
        }


class Atlas:
    """All datasets of the organisation, and what a test may set of how it takes them."""

    def __init__(self) -> None:
        self.row_limit = 250_000
        """Rows that the organisation may have in all."""
        self.build_seconds = 0.0
        """How long a map takes; the dataset is locked meanwhile."""
        self.listed_after = 0.0
        """Seconds after its order from which a map is listed."""
        self.shown_after = 0.0
        """Seconds after an upload from which its rows are shown."""
        self.string_bodies = False
        """Whether a refused upload is answered by a bare JSON string, as an older server did, in place of
        ``{"detail": ...}``. The client tells the reasons apart in strings only, and never ends after an id conflict."""
        self.tile_rows = 500
        """Rows of one tile of a map, at most."""
        self.received: Counter[str] = Counter()
        """Rows that arrived in whole uploads, by dataset slug, whether they were stored or refused."""
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
            return {dataset.slug: dataset for dataset in self._datasets.values()}[slug]

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
        description, is_public = fields.get("description") or "", bool(fields.get("is_public", True))
        dataset = Dataset(slug, description, fields.get("unique_id_field"), is_public)
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
        ids = _ids(dataset, table)
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
        dataset.shown_from = dataset.shown_from + [time.monotonic() + self.shown_after] * len(ids)

    def delete_rows(self, dataset: Dataset, ids: list[Any]) -> None:
        """Delete rows by id; unknown ids are passed over (of the real one only the route is known, no answer).

        A locked dataset refuses, as it does uploads.
        """
        if dataset.locked:
            raise Refused(400, "Project transaction lock is held")
        gone = {str(i) for i in ids}
        kept = [row for row, i in enumerate(dataset.ids) if i not in gone]
        if dataset.rows is not None:
            dataset.rows = dataset.rows.take(pa.array(kept, pa.int64()))
        dataset.ids = [dataset.ids[row] for row in kept]
        dataset.shown_from = [dataset.shown_from[row] for row in kept]

    def rows_of(self, dataset: Dataset, ids: list[Any]) -> list[dict[str, Any]]:
        """Return rows by id, in the order asked, without vectors; unknown ids are left out (real: not known)."""
        if dataset.rows is None:
            return []
        place = {dataset.ids[row]: row for row in dataset.shown}
        found = [place[str(i)] for i in ids if str(i) in place]
        shown = [name for name in dataset.columns if name != "_embeddings"]
        rows: list[dict[str, Any]] = dataset.rows.select(shown).take(pa.array(found, pa.int64())).to_pylist()
        for row in rows:
            row.update({name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)})
        return rows

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
        have = len(dataset.ids)
        if dataset.rows is None or have < MIN_ROWS:
            raise Refused(400, f"Your project has only {have} datums. Please add at least {MIN_ROWS} datums!")
        name, indexed = fields.get("index_name") or dataset.slug, fields.get("indexed_field")
        rows, vectors = _vectors(dataset, dataset.rows, indexed)
        ids, shown, id_field = [dataset.ids[row] for row in rows], dataset.rows.take(rows), dataset.unique_id_field
        id_column = pa.array(ids) if id_field is None else shown[id_field]
        found = {**_topics(shown, fields), **_duplicates(vectors, fields)}
        tiles = Tiles.build(shown, vectors, id_field or "id_", id_column, self.tile_rows, found)
        now = time.monotonic()
        times = now + self.listed_after, now + self.build_seconds
        index = Index(str(uuid.uuid4()), str(uuid.uuid4()), name, indexed, ids, vectors, tiles, *times)
        topics = json.loads(fields.get("topic_model_hyperparameters") or "{}")
        index.topic_field = topics.get("community_description_target_field")
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


def _ids(dataset: Dataset, table: pa.Table) -> list[str]:
    """Return the ids of an upload; assigned ones if the dataset names no id column."""
    if dataset.unique_id_field is None:
        return [f"{len(dataset.ids) + row:06d}" for row in range(len(table))]
    if dataset.unique_id_field not in table.column_names:
        raise Refused(422, f"The id field {dataset.unique_id_field} is missing")
    values = table[dataset.unique_id_field].to_pylist()
    if any(value is None or len(str(value)) > MAX_ID for value in values):
        raise Refused(422, f"Ids must not be null nor longer than {MAX_ID} characters")
    return [str(value) for value in values]


def _vectors(dataset: Dataset, rows: pa.Table, indexed: str | None) -> tuple[list[int], NDArray[np.float32]]:
    """Return the rows that a map shows and their vectors; rows without their picture are not on it."""
    if dataset.modality == "embedding":
        return list(range(len(rows))), dataset.vectors
    if indexed not in dataset.columns:
        raise Refused(422, f"Indexing on {indexed} not allowed. Valid options are: {dataset.columns}")
    values = rows[indexed].to_pylist()
    if dataset.modality == "text":
        return list(range(len(values))), np.array([features.text_vector(str(value)) for value in values])
    places = [row for row, value in enumerate(values) if value in dataset.blobs]
    if len(places) < MIN_ROWS:
        raise Refused(400, f"Your project has only {len(places)} images. Please add at least {MIN_ROWS}!")
    pictures = [features.decode_pixels(dataset.blobs[values[row]]) for row in places]
    return places, np.array([features.image_vector(pixels) for pixels in pictures])


def _topics(rows: pa.Table, fields: dict[str, Any]) -> dict[str, tuple[str, pa.Array]]:
    """Return the map's columns of topics with their sidecar, if a model was ordered and a column names them.

    A row's topic is the first letter of that column, and its narrower topic the column itself; the columns have their
    numbers in the order of the alphabet, and `topics_of` the names.
    """
    options = json.loads(fields.get("topic_model_hyperparameters") or "{}")
    named = options.get("community_description_target_field")
    if not options.get("build_topic_model") or named not in rows.column_names:
        return {}
    texts = [str(value) for value in rows[named].to_pylist()]
    columns = {}
    for depth, names in enumerate(([text[:1].upper() for text in texts], texts), 1):
        numbers = {name: number for number, name in enumerate(sorted(set(names)), 1)}
        columns[f"_topic_depth_{depth}_int"] = ("topics", pa.array([numbers[name] for name in names], pa.int32()))
    return columns


def topics_of(index: Index) -> list[dict[str, Any]]:
    """Return a map's topics as the real service lists them, by depth and number."""
    named, table = index.topic_field, index.tiles.table
    if named is None or "_topic_depth_1_int" not in table.column_names:
        return []
    texts = sorted({str(value) for value in table[named].to_pylist()})
    depths = (sorted({text[:1].upper() for text in texts}), texts)
    return [
        {"topic": number, "depth": depth, "topic_short_description": name}
        for depth, names in enumerate(depths, 1)
        for number, name in enumerate(names, 1)
    ]


def _duplicates(vectors: NDArray[np.float32], fields: dict[str, Any]) -> dict[str, tuple[str, pa.Array]]:
    """Return the map's columns of duplicates with their sidecar, if they were asked for: rows of equal vectors."""
    options = json.loads(fields.get("duplicate_detection_hyperparameters") or "{}")
    if not options.get("tag_duplicates"):
        return {}
    _, first, clusters, counts = np.unique(vectors, axis=0, return_index=True, return_inverse=True, return_counts=True)
    clusters = clusters.reshape(-1)
    names = np.where(np.isin(np.arange(len(vectors)), first), "retention candidate", "deletion candidate")
    classes = np.where(counts[clusters] == 1, "singleton", names)
    found = {"_duplicate_class": pa.array(classes.tolist()), "_cluster_id": pa.array(clusters.astype(np.int32))}
    return {name: ("duplicates", column) for name, column in found.items()}
