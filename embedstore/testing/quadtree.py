"""The files of a map: its rows spread over the tiles of a quadtree, with sidecar files of columns beside each tile.

From a table and its vectors to Feather files by name, in the layout that the official client reads. The order of
the rows is not that of the upload: this is what a reader has to undo, by the ids.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather


@dataclass
class Tiles:
    """A map's files."""

    keys: list[str]
    """Names of the tiles, such as ``1/0/1``, in the order of the manifest."""
    table: pa.Table
    """All columns of the map, in its order."""
    starts: list[int]
    """First row of each tile, and the end."""
    sidecars: dict[str, str]
    """Name of the sidecar with each column; the empty name is the tile's own file."""

    @classmethod
    def build(
        cls,
        rows: pa.Table,
        vectors: NDArray[np.float32],
        id_field: str,
        ids: pa.Array,
        tile_rows: int,
        found: dict[str, tuple[str, pa.Array]] | None = None,
    ) -> Tiles:
        """Lay rows, given in the order of upload, out over tiles of at most `tile_rows` rows; `ids` is `id_field`.

        `found` has the map's own columns of these rows, each with its sidecar: topics, duplicates.
        """
        n, dim = vectors.shape
        directions = np.random.default_rng(2).standard_normal((dim, 2))
        plane = (vectors @ directions).astype(np.float32)
        plane -= np.median(plane, axis=0)
        shuffled = np.random.default_rng(n).permutation(n)
        tiles = _spread(shuffled, plane, tile_rows)
        order = np.concatenate([members for _, members in tiles])
        halves = pa.array(vectors[order].astype(np.float16).reshape(-1))
        columns = {"x": pa.array(plane[order, 0]), "y": pa.array(plane[order, 1]), id_field: ids.take(pa.array(order))}
        sidecars = {"x": "", "y": "", id_field: "datum_id", "_embeddings": "embeddings"}
        for name in rows.column_names:
            if name not in ("_embeddings", id_field):
                columns[name], sidecars[name] = rows[name].take(pa.array(order)), "meta"
        for name, (sidecar, column) in (found or {}).items():
            columns[name], sidecars[name] = column.take(pa.array(order)), sidecar
        columns["_embeddings"] = pa.FixedSizeListArray.from_arrays(halves, dim)
        starts = np.cumsum([0, *(len(members) for _, members in tiles)]).tolist()
        return cls([key for key, _ in tiles], pa.table(columns), starts, sidecars)

    def schema(self) -> bytes:
        """Return the serialized schema; each field's metadata names its sidecar, as JSON."""
        fields = [
            column.with_metadata({"sidecar_name": json.dumps(self.sidecars[column.name])})
            for column in self.table.schema
        ]
        return bytes(pa.schema(fields).serialize().to_pybytes())

    def file(self, name: str) -> bytes | None:
        """Return a Feather file by its name below ``quadtree/``; None if there is none."""
        if name == "manifest.feather":
            return _feather(pa.table({"key": pa.array(self.keys)}))
        key, _, suffix = name.partition(".")
        sidecar = "" if suffix == "feather" else suffix.removesuffix(".feather")
        columns = [column for column, its in self.sidecars.items() if its == sidecar]
        if key not in self.keys or not columns:
            return None
        place = self.keys.index(key)
        start, end = self.starts[place], self.starts[place + 1]
        return _feather(self.table.select(columns).slice(start, end - start))


def _spread(
    members: NDArray[np.int64], plane: NDArray[np.float32], tile_rows: int
) -> list[tuple[str, NDArray[np.int64]]]:
    """Fill the root tile, hand what is over to its quarters, and so on; return (key, rows), level by level."""
    tiles = []
    queue = [(0, 0, 0, members)]
    while queue:
        level, column, row, members = queue.pop(0)
        tiles.append((f"{level}/{column}/{row}", members[:tile_rows]))
        over = members[tile_rows:]
        if not len(over):
            continue
        middle = np.median(plane[over], axis=0)
        right, upper = plane[over, 0] > middle[0], plane[over, 1] > middle[1]
        if not (right.any() or upper.any()):
            right = np.arange(len(over)) % 2 == 0  # all in one point: halve, so that it comes to an end
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            quarter = over[(right == bool(x)) & (upper == bool(y))]
            if len(quarter):
                queue.append((level + 1, 2 * column + x, 2 * row + y, quarter))
    return tiles


def _feather(table: pa.Table) -> bytes:
    """Return a table as an uncompressed Feather file."""
    file = io.BytesIO()
    feather.write_feather(table.combine_chunks(), file, compression="uncompressed")
    return file.getvalue()
