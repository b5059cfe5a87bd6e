"""Matches: rows by number, slices, and tables for whoever asks."""

from __future__ import annotations

import pickle
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import save_picture
from html_pages import NASTY, Seen

from embedstore.store import EmbedStore


def test_matches_are_a_sequence_of_rows(store: EmbedStore) -> None:
    """By number from both ends, in slices, which are nearest first too, one by one; beyond the end is an IndexError."""
    found = store.search("dog", k=7)
    rows = found.to_pylist()
    assert [row["id"] for row in rows] == found.id
    assert ([found[n] for n in range(7)], found[-1], found[np.int64(2)]) == (rows, rows[-1], rows[2])
    assert list(found) == rows
    assert found[1:3].to_pylist() == rows[1:3]
    assert found[::3].to_pylist() == rows[::3]
    assert found[::-1].to_pylist() == rows
    assert [len(found), len(found[2:]), len(found[9:])] == [7, 5, 0]
    assert found[1:3].threshold is found.threshold
    with pytest.raises(IndexError):
        found[7]


def test_whoever_reads_arrow_reads_matches(store: EmbedStore) -> None:
    """pyarrow, Polars, DuckDB and pandas take them as they are, a slice too."""
    found = store.search("dog", k=5)[1:]
    expected = found.to_arrow()
    assert expected is found.table
    assert expected.column_names[:3] == ["id", "score", "uri"]
    assert pa.table(found) == expected
    assert pl.DataFrame(found).to_dicts() == expected.to_pylist()
    assert duckdb.sql("select id from found").fetchall() == [(one,) for one in found.id]
    pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
    assert len(pa.table(found[:0])) == 0


def test_matches_come_in_batches_too(store: EmbedStore) -> None:
    """The same rows in the same order, of the same types, whether or not the table was made; of none the columns."""
    for kept in (slice(None), slice(1, 4), slice(0)):
        found = store.search("dog", k=7)[kept]
        before = found.batches().read_all()
        assert before.equals(found.table)
        assert found.batches().read_all().equals(before)
    assert pickle.loads(pickle.dumps(found)).batches().read_all().equals(found.table)


def test_a_notebook_shows_pictures_and_escapes_words(store: EmbedStore, tmp_path: Path) -> None:
    """The query, and a path that is full of markup, come out as text."""
    save_picture(tmp_path / "odd" / "<b onclick='x'>&.png", 77)
    store.add(tmp_path / "odd")
    found = store.classify(f"dog {NASTY}", -1.0)
    seen = Seen(found._repr_html_())
    assert seen.open == []
    assert {"script", "b onclick"} & set(seen.tags) == set()
    assert "onclick" not in dict(seen.attributes)
    assert repr(f"dog {NASTY}") in seen.text
    assert "above -1.0000" in seen.text
    assert seen.tags.count("img") == 13
    assert ("title", str(tmp_path / "odd" / "<b onclick='x'>&.png")) in seen.attributes
    assert repr(store.search("dog", k=1)).startswith("1 match for 'dog'\n")
