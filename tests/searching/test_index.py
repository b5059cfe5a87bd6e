"""Index files: the same answers to the bit, and nothing damaged or stale is ever believed."""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import files, vectors
from embedstore.errors import InputError
from embedstore.searching import index, index_build, scan, shortlist
from embedstore.searching.index import Asked, IndexFiles
from embedstore.searching.shortlist import Shortlist
from embedstore.storage import parts
from embedstore.store import EmbedStore

DIM = 48


def unit(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def part_of(path: Path, x: np.ndarray) -> parts.Part:
    table = pa.table({"id": [str(n) for n in range(len(x))]})
    batches = ((table.slice(n, 500), x[n : n + 500]) for n in range(0, len(x), 500))
    return parts.write(path, batches, table.schema, x.shape[1])


def table_of(x: np.ndarray, first: int = 0) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    return pa.table({"id": [f"{n:05}" for n in range(first, first + len(x))], "v": lists, "n": range(len(x))})


def store_of(path: Path, x: np.ndarray) -> EmbedStore:
    store = EmbedStore.create(path, space="own", dim=x.shape[1])
    store.add(table_of(x), embedding_column="v", progress=False)
    return store


def exactly(partial: scan.PartialScan | None) -> dict[int, float]:
    assert partial is not None
    return dict(zip(partial.positions[0].tolist(), partial.scores[0].tolist(), strict=True))


@pytest.fixture(scope="module", params=["int8", "fp16"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[parts.Part], np.ndarray, IndexFiles, str]:
    """Two indexed parts and one without an index between them, with many equal vectors; and the kind of index."""
    folder = tmp_path_factory.mktemp("parts")
    x = unit(4000)
    x[::9] = x[0]
    x[1::50] = x[1] + np.float32(1e-5) * unit(len(x[1::50]), seed=8)  # nearer to each other than fp16 can tell
    cuts = [x[:2500], x[2500:2700], x[2700:]]
    found = [part_of(folder / f"part-{n}-x.parquet", cut) for n, cut in enumerate(cuts)]
    shelf = IndexFiles(folder / "index")
    for part in (found[0], found[2]):
        shelf.build(part, request.param)
    return found, x, shelf, request.param


@settings(deadline=None, max_examples=60)
@given(
    k=st.sampled_from([1, 2, 20, 300]),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([None, 0.0, 0.01, 0.3, 0.9]),
    near=st.booleans(),
)
def test_an_index_changes_no_bit_of_an_answer(
    made: tuple[list[parts.Part], np.ndarray, IndexFiles, str], k: int, seed: int, share: float | None, near: bool
) -> None:
    """Rows, ties and scores are those of the scan: near and far queries, any k, any mask, parts with and without."""
    found, x, shelf, kind = made
    random = np.random.default_rng(seed)
    query = (x[random.integers(len(x))] if near else unit(1, seed=seed)[0])[np.newaxis]
    mask = None if share is None else random.random(len(x)) < share
    executor = scan.Threads()
    indexes = shelf.get_all(found, kind, executor)
    assert len(indexes) == 2
    expected = exactly(scan.nearest(found, query, k, mask, executor))
    partial = Shortlist(found, indexes, mask, executor).nearest(query, k)
    assert partial is None or exactly(partial) == expected
    if k < 300:
        assert partial is not None


def test_pieces_of_a_part_are_searched_apart(
    made: tuple[list[parts.Part], np.ndarray, IndexFiles, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large part is cut into ranges for the threads; the answer stays."""
    found, _, shelf, kind = made
    query, executor = unit(1, seed=77), scan.Threads()
    indexes = shelf.get_all(found, kind, executor)
    expected = exactly(scan.nearest(found, query, 5, None, executor))
    monkeypatch.setattr(shortlist, "TASK_ROWS", 333)
    assert exactly(Shortlist(found, indexes, None, executor).nearest(query, 5)) == expected


def test_more_near_rows_than_the_limit_are_left_to_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many rows are equally near to tell, the answer is None, never a guess."""
    x = np.repeat(unit(1), 500, axis=0)
    part = part_of(tmp_path / "part-0.parquet", x)
    shelf = IndexFiles(tmp_path / "index")
    shelf.build(part, "fp16")
    executor = scan.Threads()
    indexes = shelf.get_all([part], "fp16", executor)
    assert len(exactly(Shortlist([part], indexes, None, executor).nearest(x[:1], 3))) == 500
    monkeypatch.setattr(shortlist, "WIDEST", 100)
    assert Shortlist([part], indexes, None, executor).nearest(x[:1], 3) is None


@pytest.mark.parametrize("kind", ["int8", "fp16"])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 300.0])
@pytest.mark.parametrize("dim", [3, DIM, 1100])
def test_the_bound_covers_every_score_of_the_index(tmp_path: Path, scale: float, dim: int, kind: str) -> None:
    """|index score - true score| and |index score - score| stay below `slack`, for tiny and long vectors too."""
    x = unit(1500 if dim < 1000 else 200, dim) * np.float32(scale)
    part = part_of(tmp_path / "part-0.parquet", x)
    shelf = IndexFiles(tmp_path / "index")
    found = shelf.build(part, kind)
    wide = x.astype(np.float64)
    unit_of = np.abs(wide).max() / 127
    kept = x.astype(np.float16).astype(np.float64) if kind == "fp16" else np.rint(wide / unit_of) * unit_of
    true_error = vectors.norms(wide - kept).max()
    assert true_error <= found.note.error <= true_error * 1.001
    for query in (unit(1, dim, 5), 40 * unit(1, dim, 6), np.abs(unit(1, dim, 7)), np.zeros((1, dim), np.float32)):
        asked = found.question(Asked.of(query, kind))
        rows, scores = found.nearest(asked, len(x), 0, len(x), None)
        assert sorted(rows) == list(range(len(x)))
        true = wide[rows] @ query[0].astype(np.float64)
        assert (np.abs(scores - true) <= asked.slack).all()
        assert (np.abs(scores - vectors.scores(query, x[rows])[0]) <= asked.slack).all()


def damage(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, note: damage(file, 3),  # header
        lambda file, note: damage(file, 5000),  # a code
        lambda file, note: damage(file, -1),  # the last byte
        lambda file, note: file.write_bytes(file.read_bytes()[:-10]),
        lambda file, note: file.write_bytes(file.read_bytes() + b"0"),
        lambda file, note: file.write_bytes(b""),
        lambda file, note: file.unlink(),
        lambda file, note: note.write_text("{"),
        lambda file, note: note.write_text("[]"),
        lambda file, note: note.write_text(json.dumps({**json.loads(note.read_text()), "rows": 7})),
        lambda file, note: note.write_text(json.dumps({**json.loads(note.read_text()), "format": 0})),
        lambda file, note: note.write_text(json.dumps({**json.loads(note.read_text()), "part_size": 1})),
        lambda file, note: note.write_text(json.dumps({**json.loads(note.read_text()), "part": "part-9.parquet"})),
    ],
)
def test_a_damaged_or_stale_index_is_not_used_and_is_made_again(tmp_path: Path, spoil: object) -> None:
    """Any bit, a cut, a wrong note: searches scan, with the same answers, and `index` builds the file anew."""
    x = unit(400)
    store = store_of(tmp_path / "s.store", x)
    expected = store.search(x[3], k=9)
    assert store.index().built == 1
    file, note = sorted((tmp_path / "s.store" / "index").glob("part-*"))
    spoil(file, note)  # type: ignore[operator]
    again = EmbedStore.open(tmp_path / "s.store")
    shelf = IndexFiles(tmp_path / "s.store" / "index")
    assert shelf.get_all(again.snapshot.parts, "int8", scan.Threads()) == {}
    found = again.search(x[3], k=9)
    assert found.id == expected.id
    assert found.score.tobytes() == expected.score.tobytes()
    report = again.index()
    assert (report.built, report.kept) == (1, 0)
    assert len(shelf.get_all(again.snapshot.parts, "int8", scan.Threads())) == 1


def test_bytes_that_change_places_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two pages swapped leave every sum as it was: the index is refused with one warning, and `check` names it."""
    x = unit(400)
    store = store_of(tmp_path / "s.store", x)
    expected = store.search(x[3], k=9)
    store.index()
    shelf, found = store.reader.index_files, store.snapshot.parts
    assert shelf.check(found) == []
    file = next((tmp_path / "s.store" / "index").glob("*.faiss"))
    content = bytearray(file.read_bytes())
    content[4096:8192], content[12288:16384] = content[12288:16384], content[4096:8192]
    file.write_bytes(content)
    assert len(shelf.check(found)) == 1
    assert file.name in shelf.check(found)[0]
    fresh = IndexFiles(file.parent)
    assert [fresh.get(found[0], "int8") for _ in range(3)] == [None] * 3
    assert [file.name in record.message for record in caplog.records] == [True]
    again = EmbedStore.open(store.path).search(x[3], k=9)
    assert (again.id, again.score.tobytes()) == (expected.id, expected.score.tobytes())


def test_every_flipped_bit_of_a_note_is_noticed(tmp_path: Path) -> None:
    """Also those that leave its numbers what they were, as an E for an e; and a note cut at any length."""
    x = unit(20)
    part = part_of(tmp_path / "part-0.parquet", x)
    shelf = IndexFiles(tmp_path / "index")
    shelf.build(part, "fp16")
    note = next((tmp_path / "index").glob("*.json"))
    sound = note.read_bytes()
    unnoticed = []
    for bit in range(8 * len(sound)):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        note.write_bytes(content)
        if len(shelf.check([part])) != 1:
            unnoticed.append(bit)
    assert unnoticed == []
    for length in range(len(sound)):
        note.write_bytes(sound[:length])
        assert len(shelf.check([part])) == 1
    note.write_bytes(sound)
    assert shelf.check([part]) == []


def test_an_index_of_an_earlier_format_is_made_anew_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first format's note had no checksum, the second's no scale; neither is damage."""
    x = unit(50)
    store = store_of(tmp_path / "s.store", x)
    store.index()
    note = next((tmp_path / "s.store" / "index").glob("part-*.json"))
    fields = json.loads(note.read_text())
    del fields["checksum"]
    del fields["scale"]
    earlier = [json.dumps({**fields, "format": 1}), json.dumps(files.sealed({**fields, "format": 2}))]
    for text in earlier:
        note.write_text(text)
        again = EmbedStore.open(store.path)
        assert again.reader.index_files.check(again.snapshot.parts) == []
        assert again.index().built == 1
    assert not caplog.records


def test_what_a_killed_build_left_is_deleted(tmp_path: Path) -> None:
    """A half-made file of a part that is still here goes with the next `index`."""
    store = store_of(tmp_path / "s.store", unit(50))
    store.index()
    file = next((tmp_path / "s.store" / "index").glob("*.faiss"))
    half = file.with_suffix(".4711.abcdef")
    half.write_bytes(b"half")
    assert store.index().deleted == [half.name]
    assert file.exists()


def test_two_files_that_change_places_are_told_apart(tmp_path: Path) -> None:
    """The index of one part is not taken for that of another of the same size."""
    x = unit(200)
    found = [part_of(tmp_path / f"part-{n}-y.parquet", x[100 * n : 100 * n + 100]) for n in range(2)]
    shelf = IndexFiles(tmp_path / "index")
    for part in found:
        shelf.build(part, "fp16")
    first, second = sorted((tmp_path / "index").glob("*.faiss"))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert IndexFiles(tmp_path / "index").get_all(found, "fp16", scan.Threads()) == {}


def test_only_new_parts_are_built_and_old_files_go(tmp_path: Path) -> None:
    """After an add one part is built; after a rewrite the files of the parts that are gone are deleted."""
    x = unit(900)
    store = store_of(tmp_path / "s.store", x[:300])
    first = store.index()
    assert (first.built, first.kept, first.deleted) == (1, 0, [])
    store.add(table_of(x[300:], 300), embedding_column="v", progress=False)
    before = store.search(x[3], k=7)  # one part indexed, one scanned
    second = store.index()
    assert (second.built, second.kept, second.parts) == (1, 1, 2)
    assert store.search(x[3], k=7).id == before.id
    store.compact()
    third = store.index()
    assert (third.built, third.kept, len(third.deleted)) == (1, 0, 4)
    assert store.search(x[3], k=7).id == before.id
    assert len(list((tmp_path / "s.store" / "index").glob("part-*"))) == 2
    assert "exact" in str(third)


@pytest.mark.parametrize("kind", ["int8", "fp16", "ivf", "rabitq"])
def test_who_makes_an_index_changes_no_byte(tmp_path: Path, kind: str) -> None:
    """With all cores for one part, or one core for each of many: the same files."""
    part = part_of(tmp_path / "part-0-x.parquet", unit(1_500))
    found = []
    for alone in (True, False):
        folder = tmp_path / f"index-{alone}"
        with contextlib.nullcontext() if alone else scan.one_blas_thread:
            made, size = index_build._ensured(index_build._ToIndex(part), IndexFiles(folder), kind, alone)
        found.append({file.name: file.read_bytes() for file in folder.iterdir()})
        assert made
        assert size == len(found[-1][f"part-0-x.{kind}.faiss"])
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_a_process_begins_to_use_an_index_when_that_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first searches scan; once they have read `PATIENCE` bytes the index is opened."""
    x = unit(300)
    store_of(tmp_path / "s.store", x).index()
    monkeypatch.setattr(index, "PATIENCE", 3 * 300 * DIM * 4)
    store = EmbedStore.open(tmp_path / "s.store")
    opened = []
    for number in range(4):
        store.search(x[number], k=3)
        opened.append(bool(store.reader.index_files._open))
    assert opened == [False, False, True, True]


@pytest.mark.parametrize("kind", ["ivf", "rabitq"])
def test_an_approximate_index_is_used_only_when_asked_for(tmp_path: Path, kind: str) -> None:
    """Its recall is measured, its scores are exact, and plain searches do without it."""
    x = unit(2000)
    store = store_of(tmp_path / "s.store", x)
    with pytest.raises(InputError, match=r"store\.index"):
        store.search(x[0], approximate=True)
    report = store.index(kind)
    assert set(report.recall) == {"rows of the store", "random texts"}
    assert all(0 <= share <= 1 for share in report.recall.values())
    assert "recall@20" in str(report)
    found = store.search(x[0], k=5, approximate=True)
    assert found.id[0] == "00000"
    positions = [int(identity) for identity in found.id]
    assert np.array_equal(found.score, np.vecdot(x[positions], x[0]))
    assert store.search(x[0], k=2000).id == EmbedStore.open(store.path).search(x[0], k=2000).id


def test_the_command_says_what_was_built(tmp_path: Path) -> None:
    """`embedstore index` prints the report, for people and as JSON; the second time nothing is left to do."""
    from click.testing import CliRunner

    from embedstore.cli import main

    store_of(tmp_path / "s.store", unit(50))
    first = CliRunner().invoke(main, ["index", str(tmp_path / "s.store")])
    assert first.exit_code == 0
    assert first.stdout.startswith("int8: 1 built, 0 in order")
    second = CliRunner().invoke(main, ["index", str(tmp_path / "s.store"), "--json"])
    report = json.loads(second.stdout)
    assert (report["built"], report["kept"]) == (0, 1)


def test_another_executor_searches_without_the_index(tmp_path: Path) -> None:
    """Mapped indexes stay in their process; the answers of other executors are the same."""

    class Elsewhere(scan.Executor):
        local = False

        def map(self, function, tasks):  # type: ignore[no-untyped-def]
            return [function(pickle.loads(pickle.dumps(task))) for task in tasks]

    x = unit(300)
    here = store_of(tmp_path / "s.store", x)
    here.index()
    there = EmbedStore.open(tmp_path / "s.store", executor=Elsewhere())
    there.index()
    assert there.search(x[7], k=9).id == here.search(x[7], k=9).id
    assert there.count(x[7], 0.1) == here.count(x[7], 0.1)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """The message names the kinds there are."""
    with pytest.raises(InputError, match="int8, fp16, ivf, rabitq"):
        store_of(tmp_path / "s.store", unit(3)).index("hnsw")


def test_an_empty_store_and_one_row_can_be_indexed(tmp_path: Path) -> None:
    """Nothing to index is nothing done; a single row is found."""
    empty = EmbedStore.create(tmp_path / "e.store", space="own", dim=DIM)
    assert empty.index().parts == 0
    assert len(empty.search(unit(1)[0])) == 0
    one = store_of(tmp_path / "o.store", unit(1))
    assert one.index().built == 1
    assert one.search(unit(1)[0], k=5).id == ["00000"]


def clustered() -> np.ndarray:
    """Forty tight clusters."""
    centres = np.repeat(unit(40, seed=3), 50, axis=0)
    return vectors.normalise((centres + 0.003 * unit(2000, seed=4)).astype(np.float32))


@pytest.mark.parametrize(
    "x",
    [clustered(), np.repeat(unit(10), 100, axis=0), np.repeat(unit(1), 300, axis=0), unit(1500), np.eye(DIM)[:7]],
    ids=["clustered", "duplicated", "constant", "random", "few"],
)
def test_every_kind_of_rows_and_query_has_the_answer_of_the_scan(tmp_path: Path, x: np.ndarray) -> None:
    """Near a row, between rows and far from all: where an index answers, its bits are the scan's."""
    x = x.astype(np.float32)
    part = part_of(tmp_path / "part-0.parquet", x)
    shelf, executor = IndexFiles(tmp_path / "index"), scan.Threads()
    random = np.random.default_rng(9)
    rows = x[random.integers(len(x), size=30)]
    near = (rows + 0.02 * unit(30, seed=5)).astype(np.float32)
    text_like = (0.1 * x.mean(axis=0) + 0.05 * rows + 0.3 * unit(30, seed=6)).astype(np.float32)
    answered = dict.fromkeys(("int8", "fp16"), 0)
    for kind in answered:
        shelf.build(part, kind)
        indexes = shelf.get_all([part], kind, executor)
        for query in np.concatenate([rows, near, text_like, unit(30, seed=7)])[:, np.newaxis]:
            partial = Shortlist([part], indexes, None, executor).nearest(query, 20)
            if partial is not None:
                answered[kind] += 1
                assert exactly(partial) == exactly(scan.nearest([part], query, 20, None, executor))
    assert answered == {"int8": 120, "fp16": 120}


def test_what_int8_cannot_prove_fp16_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as near to each other as whole numbers cannot tell: the finer index is asked, and only then the scan."""
    x = vectors.normalise((unit(1) + 0.02 * unit(600, seed=1)).astype(np.float32))
    store = store_of(tmp_path / "s.store", x)
    expected = EmbedStore.open(store.path).search(unit(1, seed=2)[0], k=3)
    store.index("int8")
    store.index("fp16")
    monkeypatch.setattr(shortlist, "WIDEST", 100)
    monkeypatch.setattr(index, "PATIENCE", 0)
    asked, nearest = [], Shortlist.nearest

    def watched(self: Shortlist, query: np.ndarray, k: int) -> scan.PartialScan | None:
        found = nearest(self, query, k)
        asked.append((next(iter(self.indexes.values())).note.kind, found is not None))
        return found

    monkeypatch.setattr(Shortlist, "nearest", watched)
    found = EmbedStore.open(store.path).search(unit(1, seed=2)[0], k=3)
    assert asked == [("int8", False), ("fp16", True)]
    assert (found.id, found.score.tobytes()) == (expected.id, expected.score.tobytes())


def test_int8_takes_a_byte_a_component(tmp_path: Path) -> None:
    """768 components and what stands around them: at most 800 bytes a row."""
    store = store_of(tmp_path / "s.store", unit(2000, 768))
    assert store.index().bytes <= 800 * 2000
