"""A Parquet file -> how many rows of it may be unpacked at once.

A column's values lie in pages, which are unpacked whole; a dictionary page holds each value once, and the rows that
name it may be thousands. How large either is stands in front of each page, and nowhere else. The tables themselves are
read by `table_files`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

from embedstore.errors import SourceError
from embedstore.files import open_regular

MOST_BYTES = 256 << 20
"""What the largest pages of all columns that are read may take together."""

_AT_ONCE = 32 << 20
_HEADER = 1 << 16


def rows_at_once(path: str, metadata: Any, columns: Collection[str], most: int) -> int:
    """Return how many rows, from 1 to `most`, take some 32 MB at most; `metadata` is the footer's as of pyarrow.

    Raises SourceError where a page is too large for this machine's share, or is not what a page looks like.
    """
    pages: dict[str, int] = {}
    cells: dict[str, float] = {}
    with open_regular(path) as file:
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            for chunk in (group.column(number) for number in range(group.num_columns)):
                name = chunk.path_in_schema
                if name.split(".")[0] not in columns or not group.num_rows:
                    continue
                largest, dictionary = _largest_pages(file, chunk, path)
                pages[name] = max(pages.get(name, 0), largest + dictionary)
                cell = max(chunk.total_uncompressed_size / group.num_rows, dictionary)
                cells[name] = max(cells.get(name, 0), cell)
    if sum(pages.values()) > MOST_BYTES:
        raise SourceError(
            f"{path} has pages of {sum(pages.values()):,} bytes, which are unpacked whole, and more than "
            f"{MOST_BYTES:,} are not; write it anew with smaller row groups, of 100 rows say"
        )
    return max(1, min(most, int(_AT_ONCE / (sum(cells.values()) or 1))))


def _largest_pages(file: BinaryIO, chunk: Any, path: str) -> tuple[int, int]:
    """Return the bytes of the largest page of values of a column chunk, and of its dictionary, packed and unpacked."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    end, largest, dictionary = start + chunk.total_compressed_size, 0, 0
    while start < end:
        try:
            file.seek(start)
            header, length = _header(file.read(_HEADER))
            kind, unpacked, packed = (header[number] for number in (1, 2, 3))
        except (IndexError, KeyError, ValueError, OSError) as error:
            raise SourceError(f"{path} is damaged: there is no page at byte {start:,}") from error
        size = unpacked + packed
        if kind == 2:
            dictionary = max(dictionary, size)
        else:
            largest = max(largest, size)
        start += length + max(0, packed)
    return largest, dictionary


def _header(data: bytes) -> tuple[dict[int, int], int]:
    """Return the numbers of a page's header by their field, and its length: a struct in Thrift's compact protocol."""
    fields: dict[int, int] = {}
    place, field, depth = 0, 0, [0]
    while True:
        byte = data[place]
        place += 1
        if byte == 0:
            field = depth.pop()
            if not depth:
                return fields, place
            continue
        kind = byte & 15
        if byte >> 4:
            field += byte >> 4
        else:
            field, place = _number(data, place)
        if kind in (4, 5, 6):
            number, place = _number(data, place)
            if len(depth) == 1:
                fields[field] = number
        elif kind == 8:
            length, place = _varint(data, place)
            place += length
        elif kind == 12:
            depth.append(field)
            field = 0
        elif kind == 3:
            place += 1
        elif kind == 7:
            place += 8
        elif kind not in (1, 2):
            raise KeyError(kind)


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
