"""What goes up comes down: names, types and values of a store are restored, or named."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from atlas_stores import NAME, sync, vector_store
from hypothesis import given
from hypothesis import strategies as st

from embedstore.atlas import description, plan_sync, pull
from embedstore.atlas.columns import atlas_rows
from embedstore.atlas.description import Described
from embedstore.atlas.restoring import restored
from embedstore.space import Space
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

ROWS = 24
DAY = dt.datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=dt.UTC)
COLUMNS: dict[str, Any] = {
    "id": [f"/photos/at the sea/{row:040}.jpg" if row % 2 else f"n{row}" for row in range(ROWS)],
    "flag": [(True, False, None)[row % 3] for row in range(ROWS)],
    "big": [row * 2**40 for row in range(ROWS)],
    "huge": [float(10.0 ** (row * 12)) for row in range(ROWS)],
    "day": [dt.date(1969, 12, 20) + dt.timedelta(days=row) for row in range(ROWS)],
    "when": [DAY + dt.timedelta(hours=row) for row in range(ROWS)],
    "text": [("", None, "null", '""', "\\null", "a\\b", "\\\\server\\x", "ä")[row % 8] for row in range(ROWS)],
    "_private": [f"p{row}" for row in range(ROWS)],
    "x": [row * 0.5 for row in range(ROWS)],
    "share": [row / 7 for row in range(ROWS)],
}


@pytest.fixture
def store(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "s.store", ROWS, **COLUMNS)


def test_what_goes_up_comes_down(server: NomicServer, store: EmbedStore, tmp_path: Path) -> None:
    """Each column comes back with its name, its type and its values, or it is named with what was lost."""
    sync(store, index=True)
    report = pull(tmp_path / "copy.store", NAME, timeout=10.0)
    copy = EmbedStore.open(tmp_path / "copy.store")
    names = [name for name in store.columns if name != "added_at"]
    here, there = (one.to_table(names).sort_by("id") for one in (store, copy))
    assert here.schema.types == there.schema.types
    for name in names:
        if name == "share":
            np.testing.assert_allclose(there[name].to_numpy(), here[name].to_numpy(), rtol=1e-7)
        else:
            assert there[name].to_pylist() == here[name].to_pylist(), name
    assert set(copy.columns) == set(store.columns)
    assert report.notes["share"] == "numbers of 32-bit precision"
    assert "column share: numbers of 32-bit precision" in str(report)
    again = plan_sync(copy, NAME)
    assert (again.missing, again.differing, again.problems) == (0, {}, [])


def test_what_the_map_found(server: NomicServer, store: EmbedStore, tmp_path: Path) -> None:
    """With map=True its places, topics and duplicates come down as columns; a store's own x stays its own."""
    sync(store, index=True, topic_model="text")
    pull(tmp_path / "plain.store", NAME, timeout=10.0)
    assert not any(name.startswith("map_") for name in EmbedStore.open(tmp_path / "plain.store").columns)
    report = pull(tmp_path / "copy.store", NAME, map=True, timeout=10.0)
    copy = EmbedStore.open(tmp_path / "copy.store")
    found = ["map_x", "map_y", "map_topic_1", "map_topic_2", "map_duplicate", "map_duplicate_group"]
    assert sorted(report.found) == sorted(found)
    tiles = server.atlas.dataset("photos").indices[0].tiles
    places = dict(zip(tiles.table["id"].to_pylist(), tiles.table["x"].to_pylist(), strict=True))
    ids = dict(zip(store.to_table(["id"])["id"].to_pylist(), server.atlas.dataset("photos").ids, strict=True))
    dataset = server.atlas.dataset("photos").rows
    texts = dict(zip(dataset["stored_id"].to_pylist(), dataset["text"].to_pylist(), strict=True))
    rows = {row["id"]: row for row in copy.to_table(["id", "x", "text", *found]).to_pylist()}
    for row in store.to_table(["id", "x"]).to_pylist():
        there = rows[row["id"]]
        assert there["x"] == row["x"]
        assert there["map_x"] == pytest.approx(places[ids[row["id"]]])
        assert there["map_duplicate"] == "singleton"
        assert there["map_topic_2"] == texts[row["id"]]
        assert there["map_topic_1"] == texts[row["id"]][:1].upper()
    plan = plan_sync(copy, NAME)
    assert (plan.problems, plan.missing) == ([], 0)
    assert "came from a map" in plan.unsent["map_x"]


@given(st.lists(st.one_of(st.none(), st.text(alphabet='nul"\\ä', max_size=6), st.just("null")), min_size=1))
def test_every_text_comes_back(texts: list[str | None]) -> None:
    """Whatever a text is, missing and empty ones too, it is what it was after the way there and back."""
    rows = pa.table({"id": [str(row) for row in range(len(texts))], "text": pa.array(texts, pa.string())})
    sent = atlas_rows(rows).table
    there = sent["text"].to_pylist()
    assert "" not in there  # the client makes "null" of these,
    assert None not in there  # and of these
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * len(texts), np.float16)), 2)
    back = restored(sent.append_column("_embeddings", vectors), Described(escaped=True), {})
    assert back["text"].to_pylist() == texts


def test_a_dataset_of_an_earlier_version(server: NomicServer, store: EmbedStore, tmp_path: Path) -> None:
    """A dataset whose description says nothing takes rows as ever, and that they cannot come back whole is said."""
    about = f"Images of an embedstore store. {store.space.to_json()}"
    server.atlas.create({"project_name": "photos", "unique_id_field": "id", "description": about})
    plan = plan_sync(store, NAME)
    assert any("does not tell what its columns were" in note for note in plan.notes)
    sync(store, index=True)
    assert '""' not in server.atlas.dataset("photos").rows["text"].to_pylist()[::8]
    pull(tmp_path / "copy.store", NAME, timeout=10.0)
    copy = EmbedStore.open(tmp_path / "copy.store")
    assert copy.space == store.space.rounded()
    assert set(copy.to_table(["flag"])["flag"].to_pylist()) == {"true", "false", None}


def test_values_that_somebody_changed(server: NomicServer, store: EmbedStore, tmp_path: Path) -> None:
    """A value in Atlas that is not of the column's type any more leaves the column as it is there, and is named."""
    sync(store)
    dataset = server.atlas.dataset("photos")
    flags = ["maybe", *dataset.rows["flag"].to_pylist()[1:]]
    dataset.rows = dataset.rows.set_column(dataset.columns.index("flag"), "flag", pa.array(flags))
    sync(store, index=True)
    report = pull(tmp_path / "copy.store", NAME, timeout=10.0)
    assert "somebody has changed it in Atlas" in report.notes["flag"]
    assert "maybe" in EmbedStore.open(tmp_path / "copy.store").to_table(["flag"])["flag"].to_pylist()


def test_descriptions() -> None:
    """What is written into a description is read out of it; what people write there does no harm."""
    space = Space.given("mine", 8)
    text = description.write('Ours {"embedstore"', space, {"x_value": ("x", "double")}, ["raw"], images=False)
    read = description.read(text)
    assert (read.text, read.space, read.escaped) == ('Ours {"embedstore"', space, True)
    assert (read.origins, read.unsent) == ({"x_value": ("x", "double")}, ["raw"])
    assert description.read(description.write("", space, {}, [], images=True)).space.backend == "nomic-atlas"
    for wrong in (None, "", "words", '{"embedstore": 3}', '{"embedstore": {"columns": {"a": 1}}}', '{"embedstore"'):
        assert description.read(wrong).origins == {}
    assert json.loads(text.splitlines()[-1])["embedstore"]["version"] == 1
