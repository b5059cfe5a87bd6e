"""Anything that holds pictures is a source, and a record's uri leads back to its picture."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_pictures import hf_dataset, png, put

from embedstore import images
from embedstore.errors import SourceError
from embedstore.sources import open_source, pictures_at


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root, "is empty"),
        (lambda root: root / "missing", "there is no .*missing"),
        (lambda root: f"{root}/*.jpg", "no file matches"),
        (lambda root: [], "list is empty"),
        (lambda root: "", "found ''"),
        (lambda root: 7, "type int"),
        (lambda root: {"a": 1}, "the key 'image'"),
    ],
)
def test_nothing_there(tmp_path: Path, make: Any, message: str) -> None:
    """An empty folder, a missing path, an empty list and things of no known kind are one clear error each."""
    with pytest.raises(SourceError, match=message):
        open_source(make(tmp_path))


def test_single_picture_batch_of_arrays_and_mixed_list(tmp_path: Path) -> None:
    """One image, an array of many pictures, and a list of files and images are all sources."""
    assert len(list(open_source(Image.new("L", (2, 2))))) == 1
    batch = np.zeros((5, 4, 4, 3), np.uint8)
    assert len(list(open_source(batch))) == 5
    records = list(open_source([Image.new("L", (2, 2)), put(tmp_path / "a.png")]))
    assert [record.key.partition(":")[0] for record in records] == ["file", "memory"]


def test_sources_can_be_iterated_again(tmp_path: Path) -> None:
    """A second pass gives the same keys as the first."""
    put(tmp_path / "a.png")
    table = pa.table({"image": [png(1), png(1)]})
    for source in (open_source([tmp_path, png(1), png(1), table]), open_source(hf_dataset())):
        assert [record.key for record in source] == [record.key for record in source]


def test_split_where_it_means_nothing(tmp_path: Path) -> None:
    """A split of a picture in memory, or of a folder that has none, is refused."""
    put(tmp_path / "a.png")
    for source in (tmp_path, png(1)):
        with pytest.raises(SourceError, match="no split 'train' in"):
            open_source(source, split="train")


def test_every_uri_of_a_local_source_leads_back_to_its_picture(tmp_path: Path, pictures: Path) -> None:
    """Files, rows of tables and members of archives, asked for together and in any order."""
    files = sorted(pictures.rglob("*.png"))
    table, archive = tmp_path / "a#b.parquet", tmp_path / "c!d.zip"
    pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), table)
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in files:
            zipped.write(file, f"in/{file.name}")
    expected = {}
    for source in (pictures, table, archive):
        expected |= {record.uri: images.content_hash(record.load()) for record in open_source(source)}
    assert len(expected) == 36
    found = pictures_at(reversed(expected))
    assert {uri: images.content_hash(picture) for uri, picture in found.items()} == expected


def test_what_is_not_on_this_machine_is_left_out(tmp_path: Path) -> None:
    """URLs, pictures of a memory long gone, deleted files and rows that a table does not have."""
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [b"x"]}), table)
    gone = ["https://example.org/a.jpg", "memory:00", str(tmp_path / "gone.jpg"), f"{table}#7", ""]
    assert pictures_at(gone) == {}
