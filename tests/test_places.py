"""The way back from a record's uri to its picture."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedstore import images
from embedstore.sources import open_source, pictures_at


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
