"""The store: scores against brute force, and every way to ask."""

from __future__ import annotations

import inspect
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from html_pages import NASTY, Seen
from PIL import Image

from embedstore import files
from embedstore.errors import (
    DamagedStoreError,
    EmbedderError,
    FilterError,
    FormatVersionError,
    InputError,
    ModelNotFoundError,
    QueryError,
    SpaceMismatchError,
    StoreExistsError,
    StoreNotFoundError,
    VectorError,
)
from embedstore.ingest import adding
from embedstore.searching.queries import Query
from embedstore.space import Space
from embedstore.storage.where import parse_where
from embedstore.store import EmbedStore


def matrix(store: EmbedStore) -> np.ndarray:
    """All vectors, decoded by pyarrow, in row order."""
    return np.array(store.to_table(["embedding"]).column("embedding").to_pylist(), dtype=np.float32)


def brute_force(store: EmbedStore, query: np.ndarray) -> list[tuple[str, np.float32]]:
    """(id, score) of all rows, nearest first, equal scores by id."""
    scores = np.vecdot(matrix(store), query)
    ids = store.to_table(["id"]).column("id").to_pylist()
    return sorted(zip(ids, scores, strict=True), key=lambda row: (-row[1], row[0]))


def test_search_returns_what_brute_force_returns_to_the_bit(photo_store: EmbedStore) -> None:
    """Order, ids and scores are those of one dot product for each row."""
    for text in ("bird", "a red flower", "violin"):
        query = photo_store.query_vectors([text])[0]
        expected = brute_force(photo_store, query)
        found = photo_store.search(text, k=50)
        assert list(zip(found.id, found.score, strict=True)) == expected[:50]


def test_scores_stand_in_the_order_of_the_table(photo_store: EmbedStore) -> None:
    """`scores` of several queries is the plain matrix of dot products."""
    queries = photo_store.query_vectors(["bird", "tool"])
    expected = np.stack([np.vecdot(matrix(photo_store), query) for query in queries])
    assert np.array_equal(photo_store.scores(["bird", "tool"]), expected)
    assert np.allclose(expected, queries @ matrix(photo_store).T, atol=1e-6)


def test_classify_and_count_match_strictly_above(photo_store: EmbedStore) -> None:
    """A threshold equal to a score leaves that row out; all matches come, no k."""
    query = photo_store.query_vectors(["bird"])[0]
    expected = brute_force(photo_store, query)
    threshold = float(expected[40][1])
    above = [row for row in expected if float(row[1]) > threshold]
    found = photo_store.classify("bird", threshold)
    assert list(zip(found.id, found.score, strict=True)) == above
    assert photo_store.count("bird", threshold) == len(above) == 40
    assert photo_store.search("bird", k=500, threshold=threshold).id == found.id
    assert photo_store.count("bird", -2) == len(photo_store)
    assert len(photo_store.classify("bird", 2)) == 0


def test_equal_scores_are_ordered_by_id(tmp_path: Path) -> None:
    """With many equal vectors the k smallest ids come first, whatever their place in the store."""
    store = EmbedStore.create(tmp_path / "v.store", space="own", dim=2)
    import pyarrow as pa

    ids = [f"{n:03}" for n in np.random.default_rng(0).permutation(60)]
    lists = pa.array([[1.0, 0.0]] * 60, pa.list_(pa.float32()))
    store.add(pa.table({"id": ids, "v": lists}), embedding_column="v")
    assert store.search(np.array([1.0, 0.0]), k=7).id == sorted(ids)[:7]


def test_a_query_may_be_a_picture_a_path_an_id_or_a_vector(store: EmbedStore, pictures: Path) -> None:
    """Each finds the record itself first, and a known picture needs no embedding."""
    row = store.to_table().to_pylist()[3]
    vector = store.vectors([row["id"]])[0]
    path = Path(row["uri"])
    asked = [
        path,
        path.read_bytes(),
        bytearray(path.read_bytes()),
        Query.image(str(path)),
        Query.id(row["id"]),
        vector,
        7 * vector,
        Query.vector(list(map(float, vector))),
    ]
    for query in asked:
        best = store.search(query, k=1)
        assert best.id == [row["id"]]
        assert best.score[0] == pytest.approx(1, abs=1e-6)
    with Image.open(path) as image:
        assert store.search(image, k=1).id == [row["id"]]


def test_a_text_asked_again_needs_no_model(store: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query's vector is kept on the disk, so a new process answers without loading anything."""
    first = store.search("dog", k=3)
    reopened = EmbedStore.open(store.path)
    monkeypatch.setattr(EmbedStore, "embedder", property(lambda self: pytest.fail("the model was asked for")))
    assert reopened.search("dog", k=3).table == first.table
    assert reopened.search("  dog ", k=3).id == first.id
    assert reopened.info()["cached_queries"] == 1


def test_where_filters_before_the_nearest_are_taken(photo_store: EmbedStore) -> None:
    """k rows come back if so many pass the filter, however far they are."""
    found = photo_store.search("bird", k=10, where="category == 'flower'")
    query = photo_store.query_vectors(["bird"])[0]
    categories = dict(zip(*photo_store.to_table(["id", "category"]).to_pydict().values(), strict=True))
    expected = [row for row in brute_force(photo_store, query) if categories[row[0]] == "flower"]
    assert list(zip(found.id, found.score, strict=True)) == expected[:10]
    flowers = photo_store.scores("bird", where="category == 'flower'")[0]
    ids = photo_store.to_table(["id"], where="category == 'flower'").column("id").to_pylist()
    assert dict(zip(ids, flowers, strict=True)) == dict(expected)


def test_an_old_version_answers_as_it_did(store: EmbedStore) -> None:
    """Opened at an older version, removed rows are found again; writing there is refused."""
    before = store.search("cat", k=12)
    version = store.version
    assert store.remove(where="label == 'cat'") == 4
    assert len(store) == 8
    assert set(store.search("cat", k=12).table.column("label").to_pylist()) == {"dog"}
    old = EmbedStore.open(store.path, version=version)
    assert old.search("cat", k=12).table == before.table
    with pytest.raises(InputError, match="opened to read version"):
        old.remove(where="label == 'dog'")


def test_results_show_themselves(store: EmbedStore) -> None:
    """Matches turn into pandas, Polars, dictionaries, text and a page of thumbnails."""
    found = store.search("dog", k=3)
    assert found.to_pandas()["id"].tolist() == found.id
    assert found.to_polars()["score"].to_list() == [float(score) for score in found.score]
    assert [row["uri"] for row in found] == found.uri
    assert repr(found).startswith("3 matches for 'dog'\n")
    assert found._repr_html_().count("data:image/jpeg;base64,") == 3


def test_a_store_shows_itself(store: EmbedStore, tmp_path: Path) -> None:
    """As a frame, and in a notebook with its first pictures; an empty one too."""
    assert store.to_pandas(["id", "label"], where="label = 'cat'")["label"].tolist() == ["cat"] * 4
    assert store.to_pandas().to_dict("list") == store.to_table().to_pydict()
    seen = Seen(store._repr_html_())
    assert seen.open == []
    assert str(store.path) in seen.text
    assert "12 images" in seen.text
    assert seen.tags.count("img") == 8
    empty = EmbedStore.create(tmp_path / "<i>.store", space=NASTY, dim=3)
    seen = Seen(empty._repr_html_())
    assert NASTY in seen.text
    assert "<i>.store" in seen.text
    assert {"script", "i"} & set(seen.tags) == set()


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda s: s.search(""), QueryError, "the query is empty"),
        (lambda s: s.search("dog", k=0), InputError, "at least 1; found 0"),
        (lambda s: s.search("dog", k=2.5), InputError, "found 2.5"),
        (lambda s: s.search("dog", threshold=float("nan")), InputError, "found NaN"),
        (lambda s: s.count("dog", "high"), InputError, "found 'high'"),
        (lambda s: s.count("dog", [0.1, 0.2]), InputError, "expected one threshold, found 2"),
        (lambda s: s.search("dog", where="lable == 'cat'"), FilterError, "lable"),
        (lambda s: s.search(np.ones(3)), VectorError, r"expected shape \(\d+,\), .*found \(3,\)"),
        (lambda s: s.search(np.full(s.space.dim, np.nan)), VectorError, "NaN"),
        (lambda s: s.search(np.zeros(s.space.dim)), VectorError, "length zero"),
        (lambda s: s.search(Query.id("nobody")), QueryError, "no record with the id 'nobody'"),
        (lambda s: s.search(Path("nowhere.jpg")), QueryError, "nowhere.jpg"),
        (lambda s: s.search(object()), QueryError, "cannot search for a object"),
        (lambda s: s.vectors(["nobody"]), InputError, "'nobody'"),
        (lambda s: s.remove(), InputError, "either by ids or by where"),
        (lambda s: s.remove(["nobody"]), InputError, "'nobody'"),
        (lambda s: s.to_table(["colour"]), InputError, "no column 'colour'; the columns are id"),
        (lambda s: EmbedStore.open(s.path, version=99), InputError, "no version 99"),
    ],
)
def test_a_wrong_question_says_what_is_wrong(store: EmbedStore, ask, error, says: str) -> None:
    """Found, expected, what to do: one clear error each, and the store is unharmed."""
    with pytest.raises(error, match=says):
        ask(store)
    assert store.verify().ok


def test_a_query_of_5000_words_works(store: EmbedStore) -> None:
    """A long text is a text."""
    assert len(store.search("dog " * 5000, k=2)) == 2


def test_an_empty_store_answers_with_nothing(tmp_path: Path) -> None:
    """No rows, no matches, no error."""
    store = EmbedStore.create(tmp_path / "e.store", model="objects")
    assert len(store) == 0
    assert len(store.search("dog")) == 0
    assert store.count("dog", 0.1) == 0
    assert store.scores(["dog"]).shape == (1, 0)
    assert store.to_table().num_rows == 0
    assert store.verify().ok
    assert store.info()["images"] == 0


def test_a_folder_that_is_no_store_says_so(tmp_path: Path, store: EmbedStore) -> None:
    """Missing, a file, an empty folder, a newer format, a broken manifest: each has its own sentence."""
    with pytest.raises(StoreNotFoundError, match="does not exist"):
        EmbedStore.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreNotFoundError, match="is a file"):
        EmbedStore.open(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"without store\.json"):
        EmbedStore.open(tmp_path)
    with pytest.raises(StoreExistsError, match="is a store already"):
        EmbedStore.create(store.path, model="objects")
    with pytest.raises(StoreExistsError, match="is a folder with other files in it"):
        EmbedStore.create(tmp_path, model="objects")
    manifest = store.path / "store.json"
    good = manifest.read_text()
    manifest.write_text(json.dumps(files.sealed({**json.loads(good), "format_version": 2})))
    with pytest.raises(FormatVersionError, match="format version 2; this embedstore reads up to 1"):
        EmbedStore.open(store.path)
    manifest.write_text(good[:40])
    with pytest.raises(DamagedStoreError, match="cannot be read"):
        EmbedStore.open(store.path)


def test_two_spaces_do_not_mix(store: EmbedStore, tmp_path: Path) -> None:
    """An embedder of another space is refused with both names."""
    other = EmbedStore.create(tmp_path / "o.store", space="my-clip", dim=store.space.dim)
    with pytest.raises(SpaceMismatchError, match=r"objects .*my-clip"):
        EmbedStore.open(other.path, embedder=store.embedder)
    with pytest.raises(SpaceMismatchError, match="reuse"):
        store.add(store.path.parent / "pictures", reuse=[other])


def test_foreign_vectors_are_searched_by_vector_and_say_what_text_needs(tmp_path: Path) -> None:
    """A named space has no model of ours: vectors and ids work, a text says that it needs an embedder."""
    import pyarrow as pa

    store = EmbedStore.create(tmp_path / "v.store", space="my-clip", dim=3)
    vectors = np.eye(3, dtype=np.float32)
    column = pa.array(vectors.tolist(), pa.list_(pa.float64()))
    report = store.add(pa.table({"id": [1, 2, 3], "v": column, "n": [5, 6, 7]}), embedding_column="v")
    assert (report.found, len(store)) == (3, 3)
    assert store.search(vectors[1], k=1).to_pylist()[0]["n"] == 6
    assert store.search(Query.id("3"), k=1).id == ["3"]
    with pytest.raises(ModelNotFoundError, match="my-clip"):
        store.search("a dog")


def test_verify_finds_what_is_wrong(store: EmbedStore) -> None:
    """A flipped bit in a vector, a cut part and a doubled row are each reported."""
    assert store.verify(deep=True).ok
    part = store.snapshot.parts[0]
    data = bytearray(part.path.read_bytes())
    offset = part.blocks[0].offset
    data[offset + 3] ^= 0x7F
    part.path.write_bytes(data)
    report = EmbedStore.open(store.path).verify()
    assert "not of unit length" in report.problems[0]
    assert "damaged" in str(report)
    part.path.write_bytes(data[:-100])
    with pytest.raises(DamagedStoreError, match="the file was cut short"):
        EmbedStore.open(store.path)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (np.full((1, 3), np.nan), VectorError, "NaN"),
        (np.zeros((1, 3)), VectorError, "length zero"),
        (np.ones((2, 3)), EmbedderError, r"shape \(2, 3\) for 1 texts of 3 components"),
        (np.ones((1, 4)), EmbedderError, r"shape \(1, 4\) for 1 texts of 3 components"),
    ],
)
def test_a_wrong_answer_to_a_query_is_not_kept(tmp_path: Path, answer, error, says: str) -> None:
    """What an embedder of the caller's own gets wrong is an error, and the next question asks it again."""

    class Embedder:
        space = Space.given("mine", 3)
        batch_size = workers = 1

        def __init__(self) -> None:
            self.answers = [answer, np.array([[3.0, 0, 4]])]

        def prepare(self, image):
            return image

        def embed_prepared(self, prepared):
            raise AssertionError("no picture is asked for here")

        def embed_texts(self, texts):
            return self.answers.pop(0)

    store = EmbedStore.create(tmp_path / "m.store", embedder=Embedder())
    with pytest.raises(error, match=says):
        store.query_vectors(["dog"])
    assert store.info()["cached_queries"] == 0
    assert np.allclose(store.query_vectors(["dog"]), [[0.6, 0, 0.8]])


def test_threads_that_share_a_store_see_one_version_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread rewrites the rows and another refreshes, each answer is that of one committed version: its
    ids, scores, counts and filters fit each other, also where the versions have equally many rows."""
    versions = []
    for seed in (0, 1):
        rows = np.random.default_rng(seed).standard_normal((200 + 40 * seed, 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        side = ["even" if (number + seed) % 2 == 0 else "odd" for number in range(len(rows))]
        versions.append((rows, [f"{number:03}" for number in range(len(rows))], side))
    query = np.ones(8, np.float32) / np.float32(np.sqrt(8))

    def table(version: int, count: int) -> pa.Table:
        rows, ids, side = versions[version]
        return pa.table({"id": ids[:count], "side": side[:count], "v": list(rows[:count])})

    def expected(version: int, count: int) -> tuple[Any, ...]:
        rows, ids, side = versions[version]
        scores = np.vecdot(rows[:count], query)
        kept = [n for n in np.argsort(-scores).tolist() if side[n] == "even"]
        return [ids[n] for n in kept[:5]], int((scores > 0.2).sum()), count

    store = EmbedStore.create(tmp_path / "s.store", space="own", dim=8)
    store.add(table(0, 200), embedding_column="v", progress=False)
    allowed = [expected(0, 200), expected(1, 200), expected(1, 240)]
    writer = EmbedStore.open(store.path)
    done, wrong = threading.Event(), []

    def write() -> None:
        for turn in range(24):
            writer.add(table(turn % 2, 200 + 40 * (turn % 3 == 0) * (turn % 2)), embedding_column="v", progress=False)
            if len(writer) > 200:
                writer.remove([f"{number:03}" for number in range(200, 240)])
            time.sleep(0.005)  # so that some searches meet each version
        done.set()

    def ask(number: int) -> None:
        try:
            while not done.is_set():
                if number == 0:
                    store.refresh()
                    continue
                found = store.search(query, k=5, where="side == 'even'")
                reader = store.reader
                answer = (found.id, reader.count(query, 0.2), len(reader))
                top = [row["side"] for row in found]
                if (
                    top != ["even"] * 5
                    or answer[1:] not in [a[1:] for a in allowed]
                    or answer[0] not in [a[0] for a in allowed]
                ):
                    wrong.append(answer)
        except Exception as error:  # noqa: BLE001  (an IndexError is what was seen)
            wrong.append(repr(error))

    def parse_slowly(condition: Any, schema: pa.Schema) -> Any:
        time.sleep(0.002)  # the moment between two looks at the rows, made longer
        return parse_where(condition, schema)

    monkeypatch.setattr("embedstore.storage.where.parse_where", parse_slowly)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    write()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["add", "plan_add"])
def test_the_options_of_add_are_spelled_out(name: str) -> None:
    """For completion: the same names and defaults as `adding` has, in the same order."""

    def options(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {each.name: each.default for each in parameters if each.kind == each.KEYWORD_ONLY}

    assert list(options(getattr(EmbedStore, name)).items()) == list(options(getattr(adding, name)).items())
    assert len(options(getattr(EmbedStore, name))) >= 7
