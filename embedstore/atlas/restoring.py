"""A tile of a map -> rows as the store had them that sent them: names, types and ids back, vectors in float32.

What Atlas needed is undone by the origins in the dataset's description (`description.Described`); of a dataset that
says nothing only what is common to all is: float16 vectors, "null" for missing texts, times without a zone. What cannot
be brought back is noted. Reading tiles is left to `maps`, storing to `pull`.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from embedstore.atlas.columns import EMPTY, FROM_THE_MAP, NOTHING, VECTORS
from embedstore.atlas.description import Described
from embedstore.errors import AtlasError

COLUMN: Final = "embedding"

_UTC: Final = pa.timestamp("us", tz="UTC")
_ESCAPED: Final = r'^\\(\\*)(null|"")$'
_KINDS: Final = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "date32[day]": pa.date32(),
    "timestamp[us, tz=UTC]": _UTC,
    "string": pa.string(),
}
"""The types that a store has for metadata, as they are written into descriptions."""


def restored(tile: pa.Table, described: Described, notes: dict[str, str]) -> pa.Table:
    """Return a tile's rows as a store takes them, with the vectors as the column `COLUMN`.

    `notes` gets, by column, what is not as it was in the store that sent it.
    """
    if VECTORS not in tile.column_names:
        raise AtlasError("the map has no vectors")
    columns: dict[str, Any] = {}
    for name in tile.column_names:
        column = tile.column(name)
        if name == VECTORS:
            columns[COLUMN] = column.cast(pa.list_(pa.float32(), column.type.list_size))
        elif name == "id":
            columns.setdefault("id", column)
        elif name.startswith(FROM_THE_MAP):
            columns[name] = column  # no column that was sent is called so
        else:
            here, kind = described.origins.get(name, (name, ""))
            columns[here] = _values(column, here, kind, described.escaped, notes)
    return pa.table(columns)


def _values(column: pa.ChunkedArray, name: str, kind: str, escaped: bool, notes: dict[str, str]) -> pa.ChunkedArray:
    """Bring one column back to its type, `kind`, where it is known."""
    if types.is_string(column.type):
        column = _texts(column, escaped)
    elif types.is_timestamp(column.type) and column.type.tz is None and kind != "date32[day]":
        column = column.cast(_UTC)
        notes.setdefault(name, "times to the millisecond")
    elif types.is_floating(column.type):
        notes.setdefault(name, "numbers of 32-bit precision")
    wanted = _KINDS.get(kind)
    if wanted is None or column.type.equals(wanted):
        return column
    try:
        if types.is_string(column.type) and types.is_timestamp(wanted):  # beyond the years that Atlas has
            return column.cast(pa.int64()).cast(pa.timestamp("us")).cast(wanted)
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        notes[name] = f"{column.type} in place of {kind}: somebody has changed it in Atlas ({error})"
        return column


def _texts(column: pa.ChunkedArray, escaped: bool) -> pa.ChunkedArray:
    """Undo how missing and empty texts travel; see `columns`."""
    found = pc.if_else(pc.equal(column, NOTHING), None, column)
    if not escaped:
        return found
    found = pc.if_else(pc.equal(column, EMPTY), "", found)
    return pc.replace_substring_regex(found, _ESCAPED, r"\1\2")
