"""The columns of a table: which are scalars to keep, which holds the pictures, and names for class labels.

Hugging Face writes the features of a data set (`Image`, `ClassLabel`) as JSON into the schema's metadata;
they are read from there, so that no data set library is needed for a Parquet file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from embedstore.errors import SourceError

_LIKELY_NAMES = ("image", "img", "picture", "photo", "file_name", "image_path", "path", "image_url", "url")
Features = Mapping[str, Any]


def features_of(schema: pa.Schema) -> Features:
    """Return Hugging Face's features by column, as parsed JSON; empty when there are none."""
    try:
        parsed = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(parsed.get("info", {}).get("features") or {})
    except (ValueError, AttributeError, TypeError):
        return {}


def is_scalar(kind: pa.DataType) -> bool:
    """Return whether values of this type are kept as metadata: text, numbers, truth values, dates and times."""
    if pa.types.is_dictionary(kind):
        return is_scalar(kind.value_type)
    kinds = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_date,
        pa.types.is_timestamp,
    )
    return any(is_kind(kind) for is_kind in kinds)


def scalar_names(schema: pa.Schema, without: str | None = None) -> tuple[list[str], list[str]]:
    """Return the names of the columns to keep, and of those that are left out."""
    kept = [field.name for field in schema if is_scalar(field.type) and field.name != without]
    return kept, [name for name in schema.names if name != without and name not in kept]


def scalars_of(table: pa.Table, without: str | None = None, features: Features | None = None) -> pa.Table:
    """Return the scalar columns of a table: dictionaries decoded, class labels as their names.

    Parameters
    ----------
    without : str, optional
        A column to leave out.
    features : mapping, optional
        As from `features_of`; a label of -1, which means "not known", or of no class becomes null.
    """
    kept, _ = scalar_names(table.schema, without)
    if len(set(kept)) < len(kept):
        raise SourceError(f"two columns have the same name: {', '.join(kept)}; rename one")
    columns: dict[str, Any] = {}
    for name in kept:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        names = _class_names((features or {}).get(name))
        if names and pa.types.is_integer(column.type):
            column = _named(column, names)
        columns[name] = column
    if not columns:  # a table without columns would lose its number of rows
        return table.select([])
    return pa.table(columns)


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel feature."""
    if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if names else None
    return None


def _named(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Replace label numbers by names."""
    import pyarrow.compute as pc  # late: 40 ms that sources of files need not pay

    known = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names)))
    return pc.take(pa.array(names), pc.if_else(known, column, pa.scalar(None, column.type)))


def find_image_column(schema: pa.Schema, features: Features, wanted: str | None = None) -> str:
    """Return the column that holds the pictures.

    In this order: the column asked for; one that Hugging Face calls an `Image`; a struct of bytes and path;
    the only binary column, or the one with a likely name; a text column with a likely name, which then holds
    paths or URLs.

    Raises
    ------
    SourceError
        There is no such column, or more than one.
    """
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is not None:
        if wanted not in schema.names:
            raise SourceError(f"there is no column {wanted!r} for the pictures; found {columns}")
        return wanted
    for candidates in _candidates(schema, features):
        likely = [name for name in _LIKELY_NAMES if name in candidates]
        if len(candidates) == 1 or len(likely) == 1:
            return likely[0] if likely else candidates[0]
        if candidates:
            raise SourceError(
                f"several columns may hold the pictures: {', '.join(candidates)}; say which with image_column"
            )
    raise SourceError(
        f"no column holds pictures (bytes, or a struct of bytes and path); found {columns}. "
        "Name one with image_column, or give embedding_column if the table holds vectors"
    )


def _candidates(schema: pa.Schema, features: Features) -> list[list[str]]:
    """List the columns that may hold pictures, the surest kind first."""
    images = [name for name in schema.names if _is_image_feature(features.get(name))]
    structs = [field.name for field in schema if is_picture_struct(field.type)]
    binary = [field.name for field in schema if is_binary(field.type)]
    text = [name for name in _LIKELY_NAMES if name in schema.names and is_text(schema.field(name).type)]
    return [images, structs, binary, text[:1]]


def _is_image_feature(feature: Any) -> bool:
    """Return whether Hugging Face calls this column an image."""
    return isinstance(feature, Mapping) and feature.get("_type") == "Image"


def is_picture_struct(kind: pa.DataType) -> bool:
    """Return whether this is a struct of bytes and path, the way that Hugging Face stores pictures."""
    return pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}


def is_binary(kind: pa.DataType) -> bool:
    """Return whether this is a type of bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether this is a type of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
