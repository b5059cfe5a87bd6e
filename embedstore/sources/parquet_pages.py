"""A Parquet file -> how many rows of it may be unpacked at once, and which columns hold too much for that.

A column's values lie in pages, which are unpacked whole; a dictionary page holds each value once, and the rows that
name it may be thousands. How large either is stands in front of each page, and nowhere else. Where the pages lie stands
in the footer, which is read here too: of a damaged one pyarrow may end the process when it is asked for a column chunk.
The tables themselves are read by `table_files`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, BinaryIO, NamedTuple

from embedstore.errors import SourceError
from embedstore.files import open_regular

MOST_BYTES = 256 << 20
"""What the largest pages of all columns that are read may take together."""

MOST_VALUES = 1 << 24
"""What the lists of a column may hold in one row group, of whose rows one may be nearly all."""

_AT_ONCE = 32 << 20
_HEADER = 1 << 16
_TAIL = 8  # bytes: the length of the footer, and a magic word
_TRUE, _FALSE = 1, 2  # kinds of values in Thrift's compact protocol, as are all of `_value`
_DEEPEST = 16  # structs and lists within one another; those of a footer are some 8 deep


class _Chunk(NamedTuple):
    """Where the pages of one column lie in one row group."""

    column: str
    rows: int
    start: int
    packed: int
    unpacked: int
    values: int


def rows_at_once(path: str, columns: Collection[str], most: int) -> int:
    """Return how many rows, from 1 to `most`, take some 32 MB at most.

    Raises SourceError where a page is too large for this machine's share, or is not what a page looks like.
    """
    pages: dict[str, int] = {}
    cells: dict[str, float] = {}
    with open_regular(path) as file:
        for chunk in _chunks(file, path):
            name = chunk.column
            if name.split(".")[0] not in columns or not chunk.rows:
                continue
            largest, dictionary = _largest_pages(file, chunk, path)
            pages[name] = max(pages.get(name, 0), largest + dictionary)
            cells[name] = max(cells.get(name, 0), chunk.unpacked / chunk.rows, dictionary)
    if sum(pages.values()) > MOST_BYTES:
        raise SourceError(
            f"{path} has pages of {sum(pages.values()):,} bytes, which are unpacked whole, and more than "
            f"{MOST_BYTES:,} are not; write it anew with smaller row groups, of 100 rows say"
        )
    return max(1, min(most, int(_AT_ONCE / (sum(cells.values()) or 1))))


def crowded(path: str) -> dict[str, str]:
    """Return the columns that hold more than `MOST_VALUES` in one row group, and that they do: a few bytes may say so.

    Raises SourceError where the footer cannot be read.
    """
    with open_regular(path) as file:
        chunks = _chunks(file, path)
    why = f"more than {MOST_VALUES:,} values in a row group"
    return {chunk.column.split(".")[0]: why for chunk in chunks if chunk.values > MOST_VALUES}


def _chunks(file: BinaryIO, path: str) -> list[_Chunk]:
    """Return the column chunks that the footer names, in its order. The numbers are parquet.thrift's."""
    try:
        end = file.seek(-_TAIL, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(end - length)
        footer, _ = _struct(file.read(length), 0)
        return [_chunk(column[3], group[3]) for group in footer[4] for column in group[1] if 3 in column]
    except (IndexError, KeyError, TypeError, ValueError, OSError) as error:
        raise SourceError(f"{path} is damaged: its footer cannot be read") from error


def _chunk(about: dict[int, Any], rows: int) -> _Chunk:
    start = min(about[9], about.get(11) or about[9])  # the dictionary's page stands in front of the first of values
    return _Chunk(b".".join(about[3]).decode(), rows, start, about[7], about[6], about[5])


def _largest_pages(file: BinaryIO, chunk: _Chunk, path: str) -> tuple[int, int]:
    """Return the bytes of the largest page of values of a column chunk, and of its dictionary, packed and unpacked."""
    start, end, largest, dictionary = chunk.start, chunk.start + chunk.packed, 0, 0
    while start < end:
        try:
            file.seek(start)
            header, length = _struct(file.read(_HEADER), 0)
            kind, unpacked, packed = (int(header[number]) for number in (1, 2, 3))
        except (IndexError, KeyError, TypeError, ValueError, OSError) as error:
            raise SourceError(f"{path} is damaged: there is no page at byte {start:,}") from error
        size = unpacked + packed
        if kind == 2:
            dictionary = max(dictionary, size)
        else:
            largest = max(largest, size)
        start += length + max(0, packed)
    return largest, dictionary


def _struct(data: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return the values of a struct by the number of their field, and where it ends: Thrift's compact protocol."""
    values: dict[int, Any] = {}
    field = 0
    while byte := data[place]:
        place += 1
        kind = byte & 15
        if byte >> 4:
            field += byte >> 4
        else:
            field, place = _number(data, place)
        if kind in (_TRUE, _FALSE):
            values[field] = kind == _TRUE
        else:
            values[field], place = _value(data, place, kind, depth)
    return values, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a value of a kind, and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("too many structs and lists within one another")
    if kind in (_TRUE, _FALSE, 3):  # in a list a truth takes a byte, as a small number does
        return data[place], place + 1
    if kind in (4, 5, 6):
        return _number(data, place)
    if kind == 7:
        return data[place : place + 8], place + 8
    if kind == 8:
        length, place = _varint(data, place)
        return data[place : place + length], place + length
    if kind == 12:
        return _struct(data, place, depth + 1)
    if kind not in (9, 10):
        raise ValueError(f"no value is of kind {kind}")
    head = data[place]
    size, place = (head >> 4, place + 1) if head >> 4 < 15 else _varint(data, place + 1)
    values = []
    for _ in range(size):
        value, place = _value(data, place, head & 15, depth + 1)
        values.append(value)
    return values, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _number(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
