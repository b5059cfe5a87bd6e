"""One dataset of the stand-in's Atlas, and the maps made of it: what is stored, and how it is described.

What may be stored is decided by `atlas_state`.
"""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.testing.quadtree import Tiles


@dataclass
class Index:
    """A map: a snapshot of the rows that were there when it was made.

    Attributes
    ----------
    id, projection_id, name, indexed_field
        As Atlas shows them.
    ids : list[str]
        Of the rows, in the order of upload.
    vectors : ndarray of shape (n, dim), float32
        In the order of upload.
    tiles : Tiles
        The rows in the order of the map's tiles, which is another.
    """

    id: str
    projection_id: str
    name: str
    indexed_field: str | None
    ids: list[str]
    vectors: NDArray[np.float32]
    tiles: Tiles


@dataclass
class Dataset:
    """One dataset, as a test may look at it.

    Attributes
    ----------
    rows : pyarrow.Table | None
        All rows in the order in which they were stored, ``_embeddings`` or ``_blob_hash`` included.
    ids : list[str]
        Their ids, given or assigned.
    locked_until : float
        Time (of `time.monotonic`) until which it takes no rows; ``float("inf")`` locks it for good.
    """

    slug: str
    name: str
    description: str
    unique_id_field: str | None
    is_public: bool
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    rows: pa.Table | None = None
    ids: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    indices: list[Index] = field(default_factory=list)
    locked_until: float = 0.0

    @property
    def locked(self) -> bool:
        """Whether it takes no rows now."""
        return time.monotonic() < self.locked_until

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

    def described(self, organisation: str) -> dict[str, Any]:
        """Return the JSON of ``GET /v1/project/{id}``."""
        schema = None if self.rows is None else base64.b64encode(self.rows.schema.serialize().to_pybytes())
        return {
            "id": self.id,
            "slug": self.slug,
            "project_name": self.name,
            "organization_slug": organisation,
            "description": self.description,
            "unique_id_field": self.unique_id_field,
            "modality": self.modality,
            "schema": None if schema is None else schema.decode(),
            "project_fields": self.columns,
            "total_datums_in_project": len(self.ids),
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
            ],
        }
