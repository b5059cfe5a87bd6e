"""The columns beside a table's pictures or vectors -> columns of plain values, which every store can hold.

Text, numbers, truth values, dates and times stay what they are; class labels become their names, as Hugging Face writes
them into a schema. Lists, structs and maps become JSON text, times of day and durations text. What is left out, bytes
above all, is named with the reason. What of this a store's own columns can hold is left to those who store it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from embedstore.errors import SourceError

Features: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Hugging Face's features by column, as parsed JSON: ``{"_type": "ClassLabel", "names": [...]}``."""

MOST_JSON = 8_000
"""Letters of a list or struct as text; what is longer is left out."""
TOO_LONG = f"more than {MOST_JSON:,} letters as JSON"
_MOST_BYTES = 64 << 10  # a nested value of more is longer than that whatever it holds, and is not looked at
_VECTOR = 64
"""A column of lists of so many floats on average holds vectors, which are no metadata."""
_INDEX = re.compile(r"__index_level_\d+__")
_INDEX_SAID = "the index of the data frame; its reset_index() makes a column of it"


def kept_columns(table: pa.Table, names: Sequence[str], features: Features, left_out: dict[str, str]) -> pa.Table:
    """Return columns of a table as plain values: dictionaries decoded, class labels as names, nested values as JSON.

    A label of -1, which means "not known", or of no class becomes null; which numbers are labels is told by `features`,
    see `features_of`. What is too long goes into `left_out`, by column.
    """
    columns: dict[str, Any] = {}
    for name in names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        feature = features.get(name, {})
        classes = feature.get("names") if feature.get("_type") == "ClassLabel" else None
        if classes and pa.types.is_integer(column.type):
            column = _class_names(column, classes)
        elif not is_scalar(column.type):
            column = _texts(column, name, left_out)
        columns[name] = column
    # A table made of no columns would lose its number of rows.
    return pa.table(columns) if columns else table.select([])


def scalars_of(table: pa.Table) -> pa.Table:
    """Return all columns of a small table that are kept, as `kept_columns` does; SourceError as `kept_names`."""
    names, _ = kept_names(table.schema)
    return kept_columns(table, names, features_of(table.schema), {})


def kept_names(schema: pa.Schema, without: str | None = None) -> tuple[list[str], dict[str, str]]:
    """Return the names of the columns that are kept as metadata, and of those left out, with the reason.

    Raises SourceError where two have the same name.
    """
    kept, left_out = [], {}
    for field in schema:
        if field.name == without:
            continue
        why = _INDEX_SAID if _INDEX.fullmatch(field.name) else _unkept(field.type)
        if why is None:
            kept.append(field.name)
        elif why:
            left_out[field.name] = why
    if len(set(kept)) < len(kept):
        raise SourceError(f"two columns have the same name: {', '.join(kept)}; rename one")
    return kept, left_out


def vector_columns(table: pa.Table) -> list[str]:
    """Return the names of columns that hold lists of so many floats that they are vectors, by the rows of `table`."""
    found = []
    for field in table.schema:
        is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        if is_list and pa.types.is_floating(field.type.value_type) and len(table):
            numbers = sum(len(chunk.flatten()) for chunk in table[field.name].chunks)
            if numbers >= _VECTOR * len(table):
                found.append(field.name)
    return found


def features_of(schema: pa.Schema) -> Features:
    """Return the features that Hugging Face has written into a schema; empty when there are none."""
    try:
        parsed = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(parsed.get("info", {}).get("features") or {})
    except (ValueError, AttributeError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, Mapping)}


def is_text(kind: pa.DataType) -> bool:
    """Return whether this is a type of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Return whether this is a type of bytes."""
    types = pa.types
    whole = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(whole or types.is_binary_view(kind))


def is_scalar(kind: pa.DataType) -> bool:
    """Return whether values of this type stay what they are: text, numbers, truth values, dates and times."""
    types = pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(number or is_text(kind) or types.is_boolean(kind) or types.is_date(kind) or types.is_timestamp(kind))


def plain_value(value: Any) -> Any:
    """Return a value that a person holds as one that can be metadata: lists, arrays and dictionaries as JSON text.

    Other values stay as they are. Raises ValueError for a text of more than `MOST_JSON` letters.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if isinstance(value, Mapping | list | tuple | set | np.ndarray):
        return json_text(value)
    return str(value) if isinstance(value, time | timedelta) else value


def json_text(value: Any) -> str:
    """Return a nested value as JSON; what JSON has no form for is text, numbers that are not finite are null.

    Raises ValueError where it is longer than `MOST_JSON`.
    """
    text = json.dumps(_jsonable(value), ensure_ascii=False)
    if len(text) > MOST_JSON:
        raise ValueError(TOO_LONG)
    return text


def _unkept(kind: pa.DataType) -> str | None:
    """Return why values of a type are not kept; None where they are, an empty text where there are no values."""
    types = pa.types
    if isinstance(kind, pa.ExtensionType):
        return str(kind)
    if types.is_null(kind):
        return ""
    if _has_bytes(kind):
        return "bytes"
    if types.is_fixed_size_list(kind) and types.is_floating(kind.value_type):
        return "vectors"
    return None


def _has_bytes(kind: pa.DataType) -> bool:
    """Return whether there are bytes in values of a type, at any depth."""
    if is_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    return any(_has_bytes(kind.field(number).type) for number in range(kind.num_fields))


def _texts(column: pa.ChunkedArray, name: str, left_out: dict[str, str]) -> pa.ChunkedArray:
    """Return a column of nested values as JSON, of times and durations as text."""
    texts: list[str | None] = []
    is_map = pa.types.is_map(column.type)
    for row in range(len(column)):
        try:
            if column.slice(row, 1).nbytes > _MOST_BYTES:
                raise ValueError(TOO_LONG)
            value = column[row].as_py()
            plain = plain_value(dict(value) if is_map and value is not None else value)
            texts.append(None if plain is None else str(plain))
        except (ValueError, TypeError) as error:
            left_out[name] = str(error)
            texts.append(None)
    return pa.chunked_array([pa.array(texts, pa.string())])


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | str) or value is None:
        return value
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _class_names(column: pa.ChunkedArray, names: Sequence[Any]) -> pa.ChunkedArray:
    """Replace label numbers by names."""
    import pyarrow.compute as pc  # late: 40 ms that sources of files need not pay

    known = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names)))
    return pc.take(pa.array(map(str, names)), pc.if_else(known, column, pa.scalar(None, column.type)))
