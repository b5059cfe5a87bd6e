"""The Delta table: versions, removal, and what other engines read."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DamagedStoreError, InputError, StoreNotFoundError
from embedstore.storage import arrow_columns, changes
from embedstore.storage.parts import Part
from embedstore.storage.table import DeltaFolder, Snapshot
from embedstore.store import EmbedStore

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


def table_in(folder: Path, dim: int = 4) -> DeltaFolder:
    table = DeltaFolder(folder / "images", dim, folder / "index" / "images.json")
    table.create(SCHEMA)
    return table


def batch(start: int, count: int, dim: int = 4) -> tuple[pa.Table, np.ndarray]:
    numbers = np.arange(start, start + count)
    vectors = np.random.default_rng(start).standard_normal((count, dim), dtype=np.float32)
    return pa.table({"id": [f"{n:06}" for n in numbers], "n": numbers}, schema=SCHEMA), vectors


def all_rows(table: DeltaFolder) -> tuple[list[str], np.ndarray]:
    snapshot = table.snapshot()
    vectors = [group for part in snapshot.parts for group in part.groups()]
    return snapshot.read(["id"]).column("id").to_pylist(), np.concatenate(vectors)


def test_rows_come_back_in_the_order_of_writing(tmp_path: Path) -> None:
    """Parts follow each other as they were committed."""
    table = table_in(tmp_path)
    given = [batch(0, 5), batch(100, 3), batch(50, 4)]
    for rows, vectors in given:
        changes.upsert(table, rows, vectors)
    ids, vectors = all_rows(table)
    assert ids == [name for rows, _ in given for name in rows.column("id").to_pylist()]
    assert np.array_equal(vectors, np.concatenate([vectors for _, vectors in given]))


WITH_URI = pa.schema([("id", pa.string()), ("uri", pa.string())])


def named(*rows: tuple[str, str | None]) -> tuple[pa.Table, np.ndarray]:
    ids, uris = zip(*rows, strict=True)
    vectors = np.random.default_rng(len(rows)).standard_normal((len(rows), 4), dtype=np.float32)
    return pa.table({"id": ids, "uri": uris}, schema=WITH_URI), vectors


def pairs(snapshot: Snapshot) -> list[tuple[str, str | None]]:
    return [(row["id"], row["uri"]) for row in snapshot.read(["id", "uri"]).to_pylist()]


def test_a_row_with_a_known_uri_replaces_the_old_one(tmp_path: Path) -> None:
    """Whatever its id is; rows without a uri, or with an empty one, replace nothing and stay."""
    table = table_in(tmp_path)
    changes.upsert(table, *named(("1", "/a"), ("2", "/b"), ("3", None), ("4", "")))
    found = changes.upsert(table, *named(("5", "/a"), ("6", None), ("7", "")))
    assert pairs(found) == [("2", "/b"), ("3", None), ("4", ""), ("5", "/a"), ("6", None), ("7", "")]
    found = changes.upsert(table, *named(("2", "/a")))  # by its id and by its uri
    assert pairs(found) == [("3", None), ("4", ""), ("6", None), ("7", ""), ("2", "/a")]
    found = changes.upsert(table, *named(("8", "/a")), by_uri=False)
    assert pairs(found)[-2:] == [("2", "/a"), ("8", "/a")]


def test_of_paid_rows_with_one_id_or_one_uri_the_last_counts(tmp_path: Path) -> None:
    """As if each had been stored by itself, one after the other."""
    random = np.random.default_rng(5)
    for number in range(40):
        together, apart = (table_in(tmp_path / f"{number}-{how}") for how in ("together", "apart"))
        rows = [(str(random.integers(4)), [None, "", "/a", "/b", "/c"][random.integers(5)]) for _ in range(6)]
        batches = []
        for place, row in enumerate(rows):
            metadata, vectors = named(row)
            batches.append(
                metadata.append_column(arrow_columns.embedding_field(), arrow_columns.list_array(vectors + place))
            )
        changes.fold(together, batches, ("series", 1))
        for place, one in enumerate(batches):
            changes.fold(apart, [one], ("series", place + 1))
        assert sorted(pairs(together.snapshot()), key=str) == sorted(pairs(apart.snapshot()), key=str), rows


def test_a_row_with_a_known_id_replaces_the_old_one(tmp_path: Path) -> None:
    """No id is ever there twice."""
    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 6))
    newer = batch(4, 4)
    changes.upsert(table, *newer)
    ids, vectors = all_rows(table)
    assert sorted(ids) == [f"{n:06}" for n in range(8)]
    assert np.array_equal(vectors[ids.index("000005")], newer[1][1])


def test_every_version_stays_readable_until_vacuum(tmp_path: Path) -> None:
    """An old version has its old rows; after vacuum it says that they are gone."""
    table = table_in(tmp_path)
    first = changes.upsert(table, *batch(0, 6))
    leaving = np.array([True, False] * 3)
    second = changes.remove(table, first, leaving)
    assert (first.rows, second.rows) == (6, 3)
    assert table.snapshot(first.version).read(["n"]).column("n").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert table.snapshot(second.version).read(["n"]).column("n").to_pylist() == [1, 3, 5]
    assert [entry["version"] for entry in table.versions()] == [2, 1, 0]
    assert len(table.vacuum(0, dry_run=True)) == 1
    table.vacuum(0, dry_run=False)
    with pytest.raises(InputError, match="vacuum has removed"):
        table.snapshot(first.version)
    assert all_rows(table)[0] == ["000001", "000003", "000005"]


def test_the_remembered_layout_is_only_a_note(tmp_path: Path) -> None:
    """A snapshot file that is missing, stale, cut or of other parts changes nothing but speed."""
    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 6))
    note = tmp_path / "index" / "images.json"
    truth = all_rows(table)
    good = note.read_text()
    for bad in (
        "",
        "{",
        "[]",
        good[:-20],
        good.replace('"rows": 6', '"rows": 6, "x": 1').replace('"version": 1', '"version": 0'),
    ):
        note.write_text(bad)
        assert all_rows(table)[0] == truth[0]
        assert np.array_equal(all_rows(table)[1], truth[1])
    note.unlink()
    assert np.array_equal(all_rows(table)[1], truth[1])


def test_small_parts_are_merged_as_they_gather(tmp_path: Path) -> None:
    """100 commits of 3 rows leave few parts, and every row once."""
    table = table_in(tmp_path)
    for number in range(100):
        snapshot = changes.upsert(table, *batch(number * 3, 3), replaces=False)
    assert len(snapshot.parts) <= 21
    ids, vectors = all_rows(table)
    assert sorted(ids) == [f"{n:06}" for n in range(300)]
    expected = {
        name: v
        for n in range(100)
        for name, v in zip(batch(n * 3, 3)[0].column("id").to_pylist(), batch(n * 3, 3)[1], strict=True)
    }
    assert all(np.array_equal(expected[name], vector) for name, vector in zip(ids, vectors, strict=True))


def test_compact_lays_a_foreign_part_out_anew(tmp_path: Path) -> None:
    """Rows that deltalake wrote itself are read, and mapped after compact, with the same bits."""
    from deltalake import write_deltalake

    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 6))
    rows, vectors = batch(10, 5)
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False))
    foreign = rows.append_column(pa.field("embedding", kind, nullable=False), pa.array(vectors.tolist(), kind))
    write_deltalake(str(table.path), foreign, mode="append")
    before = dict(zip(*all_rows(table), strict=True))
    snapshot = table.snapshot()
    assert [part.mapped for part in snapshot.parts].count(False) == 1
    compacted = changes.compact(table, snapshot)
    assert all(part.mapped for part in compacted.parts)
    after = dict(zip(*all_rows(table), strict=True))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_columns_may_be_added_but_not_change_their_type(tmp_path: Path) -> None:
    """A new column is null in old rows; a text for a number is refused before anything is written."""
    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 2))
    rows, vectors = batch(2, 2)
    snapshot = changes.upsert(table, rows.append_column("label", pa.array(["a", "b"])), vectors)
    assert snapshot.read(["label"]).column("label").to_pylist() == [None, None, "a", "b"]
    bad = pa.table({"id": ["x"], "n": ["seven"]})
    with pytest.raises(InputError, match="'n' holds int64 in this store and string"):
        changes.upsert(table, bad, vectors[:1])
    assert table.snapshot().version == snapshot.version


def test_a_lost_part_is_named(tmp_path: Path) -> None:
    """A part that somebody deleted is damage with a name."""
    table = table_in(tmp_path)
    snapshot = changes.upsert(table, *batch(0, 2))
    snapshot.parts[0].path.unlink()
    with pytest.raises(DamagedStoreError, match=snapshot.parts[0].name):
        table.snapshot().read(["id"])


def test_a_folder_without_a_log_is_no_table(tmp_path: Path) -> None:
    """Asking a folder that never was a table says so."""
    with pytest.raises(StoreNotFoundError):
        DeltaFolder(tmp_path / "nothing", 4, tmp_path / "note.json").snapshot()


def test_every_engine_reads_the_store_and_agrees_to_the_bit(store: EmbedStore) -> None:
    """DeltaTable, pyarrow, DuckDB, Polars, pandas and datasets give the store's own vectors and labels."""
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    own = store.to_table(["id", "label", "embedding"])
    expected = {row["id"]: (row["label"], np.array(row["embedding"], np.float32).tobytes()) for row in own.to_pylist()}
    folder = str(store.path / "images")
    files = [str(part.path) for part in store.snapshot.parts]

    def check(rows: list[dict]) -> None:
        found = {row["id"]: (row["label"], np.array(row["embedding"], np.float32).tobytes()) for row in rows}
        assert found == expected

    check(DeltaTable(folder).to_pyarrow_table().to_pylist())
    check(pq.read_table(files[0]).to_pylist())
    check(pl.scan_parquet(files).collect().to_dicts())
    check(pd.concat(pd.read_parquet(file) for file in files).to_dict("records"))
    names = ["id", "label", "embedding"]
    relation = duckdb.connect().read_parquet(files).project(", ".join(names))
    check([dict(zip(names, row, strict=True)) for row in relation.fetchall()])
    cache = str(store.path.parent / "hf-cache")
    check(list(datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)))


def test_columns_of_another_writer_keep_their_type(tmp_path: Path) -> None:
    """Whole numbers of every width, decimals, dates, lists and structures that another engine has added stay what they
    are: in the layout note, after rows were added and removed and parts merged, for us and for other engines."""
    import duckdb
    import polars as pl
    from deltalake import DeltaTable, write_deltalake

    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=4)
    one = np.eye(4, dtype=np.float32)
    store.add(pa.table({"id": ["a", "b"], "v": list(one[:2])}), embedding_column="v", progress=False)
    kinds: dict[str, tuple[pa.DataType, Any]] = {
        "tiny": (pa.int8(), -5),
        "small": (pa.int16(), 300),
        "whole": (pa.int32(), 70_000),
        "single": (pa.float32(), 0.5),
        "price": (pa.decimal128(10, 2), Decimal("19.90")),
        "day": (pa.date32(), date(2026, 5, 1)),
        "naive": (pa.timestamp("us"), datetime(2026, 5, 1, 12)),
        "raw": (pa.binary(), b"\x00\xff"),
        "tags": (pa.list_(pa.field("element", pa.string())), ["x", "y"]),
        "box": (pa.struct([("x", pa.int32()), ("name", pa.string())]), {"x": 1, "name": "left"}),
    }
    full = store.to_table([*store.columns, "embedding"])
    foreign = full.slice(0, 2).set_column(0, "id", pa.array(["c", "d"]))
    for name, (kind, value) in kinds.items():
        foreign = foreign.append_column(name, pa.array([value, None], kind))
    write_deltalake(str(store.folder.images.path), foreign, mode="append", schema_mode="merge")

    def check(opened: EmbedStore) -> None:
        table = opened.to_table(where="id = 'c'")
        for name, (kind, value) in kinds.items():
            assert (table.schema.field(name).type, table.column(name).to_pylist()) == (kind, [value]), name
        here = DeltaTable(str(store.folder.images.path))
        declared = pa.schema(here.schema().to_arrow())
        assert {name: declared.field(name).type for name in kinds} == {n: kind for n, (kind, _) in kinds.items()}
        read = pl.read_delta(str(store.folder.images.path)).filter(pl.col("id") == "c")
        assert read.select(list(kinds)).row(0, named=True) == {name: value for name, (_, value) in kinds.items()}
        files = [str(part.path) for part in opened.snapshot.parts]
        sql = f"SELECT {', '.join(kinds)} FROM read_parquet($1, union_by_name=true) WHERE id = 'c'"
        found = duckdb.connect().execute(sql, [files]).fetchall()
        assert found == [tuple(value for _, value in kinds.values())]

    store.refresh()
    check(store)
    check(EmbedStore.open(store.path))  # from the layout note
    more = {"id": ["e", "f"], "v": list(one[2:]), "whole": [1, 2], "single": [0.25, 1], "tiny": [1, None]}
    assert store.add(pa.table(more), embedding_column="v", progress=False).added == 2
    assert store.to_table(["whole", "tiny"], where="id = 'e'").to_pylist() == [{"whole": 1, "tiny": 1}]
    with pytest.raises(InputError, match="'whole' holds int32"):
        store.add(pa.table({"id": ["g"], "v": [one[0]], "whole": [2**40]}), embedding_column="v", progress=False)
    with pytest.raises(InputError, match="'tags' holds list"):
        store.add(pa.table({"id": ["g"], "v": [one[0]], "tags": ["x"]}), embedding_column="v", progress=False)
    check(store)
    assert store.remove(["d"]) == 1
    store.compact()
    check(store)
    assert all(part.mapped for part in store.snapshot.parts)
    assert store.verify(deep=True).ok


def test_two_columns_whose_names_differ_by_case_are_refused() -> None:
    """Delta would take them for one; the message has both names."""
    with pytest.raises(InputError, match="'label' and 'Label' differ by case only"):
        changes.merged_schema(pa.schema([("label", pa.string())]), pa.schema([("Label", pa.string())]))


def flip(part: Part, offset: int) -> None:
    data = bytearray(part.path.read_bytes())
    data[offset] ^= 1
    part.path.write_bytes(data)


def test_no_rewrite_copies_a_damaged_block(tmp_path: Path) -> None:
    """Compact, remove and a replacing add refuse with the name of the part, and change nothing."""
    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 6))
    snapshot = changes.upsert(table, *batch(100, 6))
    damaged = snapshot.parts[0]
    flip(damaged, (damaged.blocks or ())[0].offset + 3)
    before, files = table.snapshot(), sorted(table.path.iterdir())
    leaving = np.zeros(12, bool)
    leaving[1] = True
    for change in (
        lambda: changes.compact(table, table.snapshot()),
        lambda: changes.remove(table, table.snapshot(), leaving),
        lambda: changes.upsert(table, *batch(5, 1)),
    ):
        with pytest.raises(DamagedStoreError, match=f"{damaged.name}, row group 0: the vectors are damaged"):
            change()
    assert table.snapshot().version == before.version
    assert sorted(table.path.iterdir()) == files


def test_a_damaged_part_holds_up_no_change_that_copies_nothing_of_it(tmp_path: Path) -> None:
    """Rows of other parts are removed, the damaged part is removed whole, and new rows come in."""
    table = table_in(tmp_path)
    changes.upsert(table, *batch(0, 6))
    snapshot = changes.upsert(table, *batch(100, 6))
    flip(snapshot.parts[0], (snapshot.parts[0].blocks or ())[0].offset)
    leaving = np.zeros(12, bool)
    leaving[8] = True
    assert changes.remove(table, snapshot, leaving).rows == 11
    assert changes.upsert(table, *batch(200, 3)).rows == 14
    leaving = np.zeros(14, bool)
    leaving[:6] = True
    assert changes.remove(table, table.snapshot(), leaving).rows == 8
    assert [part.check() for part in table.snapshot().parts] == [[], []]


def test_small_parts_are_merged_around_a_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Adding goes on, the damaged part stays as it is, and a warning names it."""
    table = table_in(tmp_path)
    snapshot = changes.upsert(table, *batch(0, 3))
    damaged = snapshot.parts[0]
    flip(damaged, (damaged.blocks or ())[0].offset)
    for number in range(1, 20):
        snapshot = changes.upsert(table, *batch(number * 3, 3), replaces=False)
    assert snapshot.rows == 60
    assert damaged.name in [part.name for part in snapshot.parts]
    assert len(snapshot.parts) < 12
    assert f"{damaged.name}, row group 0: the vectors are damaged" in caplog.text
