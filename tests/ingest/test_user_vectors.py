"""Vectors that are kept for a user without a store: found by every process, paid for by one, bounded, disposable."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import save_picture

from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.objects import ObjectsEmbedder
from embedstore.ingest import user_vectors
from embedstore.ingest.user_vectors import UserVectors
from embedstore.settings import CACHE_DIR, cache_dir
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

SPACE = ObjectsEmbedder.space
PREDICT = (
    "import os, sys; from embedstore import ImageClassifierFromTextQuery as C\n"
    "where = {'store': os.environ['STORE']} if os.environ.get('STORE') else {}\n"
    "print(C('a red car', 0.0, **where).predict(sys.argv[1:]))"
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserVectors:
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "cache"))
    return UserVectors(SPACE)


def some_vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, SPACE.dim)).astype(np.float32)


def predict(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREDICT, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_another_process_finds_what_one_has_kept(kept: UserVectors) -> None:
    """To the bit, by space, kind and text; what is not there is left out."""
    vectors = some_vectors(3)
    kept.cache.put("image", ["a", "b", "c"], vectors)
    found = UserVectors(SPACE).cache.get_many("image", ["c", "x", "a"])
    assert sorted(found) == ["a", "c"]
    assert np.array_equal(found["c"], vectors[2])
    assert UserVectors(SPACE).cache.get_many("text", ["a"]) == {}


def test_a_second_process_pays_nothing_and_says_where(server: NomicServer, tmp_path: Path) -> None:
    """Without a store: one line on stderr names the file; the second process asks for no picture and no text."""
    files = [save_picture(tmp_path / f"{seed}.png", seed) for seed in range(6)]
    first, second = predict(*files), predict(*files[::-1])
    assert (server.images, server.texts, set(server.image_counts.values())) == (6, 1, {1})
    place = Path(os.environ[CACHE_DIR]) / "vectors" / "vectors.sqlite"
    assert place.is_file()
    for done in (first, second):
        assert [str(place) in line for line in done.stderr.splitlines()] == [True]
    assert first.stdout.strip()[1:-1].split(", ")[::-1] == second.stdout.strip()[1:-1].split(", ")


def start(*files: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREDICT, *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("with_store", [False, True])
def test_two_processes_at_once_pay_once(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_store: bool
) -> None:
    """Both start with the same 60 pictures and a slow service: each picture, and the query, is delivered once.

    So it is with a store, whose rows stay as they are.
    """
    if with_store:
        monkeypatch.setenv("STORE", str(EmbedStore.create(tmp_path / "s.store", model="nomic").path))
    server.latency = 0.3
    files = [save_picture(tmp_path / f"{seed}.png", seed) for seed in range(60)]
    both = [start(*files) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert (server.images, server.texts) == (60, 1)
    assert set(server.image_counts.values()) == {1}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="killing is not to be had on this system")
def test_what_a_killed_process_has_paid_for_is_kept(server: NomicServer, tmp_path: Path) -> None:
    """The next one waits for nobody, and pays for what was not delivered, or was under way."""
    server.latency = 0.2
    files = [save_picture(tmp_path / f"{seed}.png", seed, (8, 8)) for seed in range(400)]
    first = start(*files)
    until = time.monotonic() + 60
    while server.images < 100 and time.monotonic() < until:
        time.sleep(0.005)
    first.kill()
    first.communicate()
    delivered = server.images
    assert 100 <= delivered < 400
    started = time.monotonic()
    done = predict(*files)
    assert done.stdout.count("True") + done.stdout.count("False") == 400
    assert "waiting" not in done.stderr
    assert time.monotonic() - started < 60
    assert set(server.image_counts.values()) <= {1, 2}
    under_way = NomicAPIEmbedder().workers * NomicAPIEmbedder().batch_size
    assert server.images <= 400 + min(under_way, delivered)
    assert len(server.image_counts) == 400


def test_what_a_dead_process_has_claimed_is_free(kept: UserVectors) -> None:
    """A living run's claims are waited for; those of one that has ended without a word are taken over."""
    with kept.claims.begun("image") as mine:
        assert mine.take(["a", "b"]) == ["a", "b"]
        with UserVectors(SPACE).claims.begun("image") as other:
            assert other.take(["b", "c"]) == ["c"]
            with UserVectors(SPACE).claims.begun("text") as third:
                assert third.take(["b"]) == ["b"]
    code = (
        "import os; from embedstore.embedders.objects import ObjectsEmbedder as E\n"
        "from embedstore.ingest.user_vectors import UserVectors\n"
        "run = UserVectors(E.space).claims.begun('image'); run.__enter__().take(['a', 'b']); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with kept.claims.begun("image") as mine:
        assert mine.take(["a", "b"]) == ["a", "b"]


def test_a_waiting_run_goes_on_when_the_other_ends(kept: UserVectors, caplog: pytest.LogCaptureFixture) -> None:
    """It says once that it waits, and for how many."""
    done = threading.Event()
    with kept.claims.begun("image") as mine:
        mine.take(["a", "b"])

        def wait() -> None:
            with UserVectors(SPACE).claims.begun("image") as other:
                other.wait_for(["a", "b"])
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not done.wait(0.7)
    assert done.wait(10)
    thread.join()
    assert [r.getMessage() for r in caplog.records if "waiting" in r.getMessage()] == [
        "2 vectors are being made by another process: waiting"
    ]


@pytest.mark.skipif(os.name != "posix", reason="rights are told otherwise there")
def test_only_the_user_may_open_the_folder(kept: UserVectors) -> None:
    """Texts of queries are in it."""
    assert kept.path.parent.stat().st_mode & 0o077 == 0


def test_a_damaged_vector_is_made_again(kept: UserVectors, caplog: pytest.LogCaptureFixture) -> None:
    """One that does not fit its checksum is not used."""
    kept.cache.put("image", ["a", "b"], some_vectors(2))
    with sqlite3.connect(kept.path) as db:
        db.execute("UPDATE queries SET vector = zeroblob(length(vector)) WHERE text = 'a'")
    db.close()
    assert list(UserVectors(SPACE).cache.get_many("image", ["a", "b"])) == ["b"]
    assert "is damaged; it is made again" in caplog.text


def test_the_number_of_vectors_is_bounded(kept: UserVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those kept longest ago go; the file does not grow any more."""
    monkeypatch.setattr(user_vectors, "MOST_VECTORS", 100)
    small = UserVectors(SPACE)
    sizes = []
    for start in range(0, 1000, 50):
        names = [str(n) for n in range(start, start + 50)]
        small.cache.put("image", names, some_vectors(50, start))
        sizes.append(small.path.stat().st_size)
    found = UserVectors(SPACE).cache.get_many("image", [str(n) for n in range(1000)])
    assert sorted(map(int, found)) == list(range(900, 1000))
    assert sizes[-1] == sizes[4]


def test_a_damaged_file_is_begun_anew(kept: UserVectors, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; and what is kept from then on is found."""
    kept.cache.put("image", ["a"], some_vectors(1))
    kept.path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    again = UserVectors(SPACE)
    assert "begun anew" in caplog.text
    assert again.cache.get_many("image", ["a"]) == {}
    again.cache.put("image", ["a"], some_vectors(1))
    assert list(UserVectors(SPACE).cache.get_many("image", ["a"])) == ["a"]


def test_a_file_in_the_way_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no folder can be made nothing is kept, one warning says so, and everything is answered."""
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "cache"))
    sealed = UserVectors(SPACE)
    with sealed.claims.begun("image") as claim:
        assert claim.take(["a", "b"]) == ["a", "b"]
    sealed.cache.put("image", ["a"], some_vectors(1))
    sealed.cache.put("image", ["b"], some_vectors(1))
    assert list(sealed.cache.get_many("image", ["a"])) == ["a"]  # this process remembers
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in said if text.startswith("vectors are not kept: ")] == said


def test_a_file_of_a_newer_embedstore_is_left_alone(kept: UserVectors, caplog: pytest.LogCaptureFixture) -> None:
    """It is not deleted; nothing is kept, with a warning."""
    kept.cache.put("image", ["a"], some_vectors(1))
    with sqlite3.connect(kept.path) as db:
        db.execute("UPDATE about SET value = '99' WHERE name = 'format'")
        db.execute("PRAGMA user_version = 99")
    db.close()
    content = kept.path.read_bytes()
    newer = UserVectors(SPACE)
    assert newer.cache.get_many("image", ["a"]) == {}
    newer.cache.put("image", ["b"], some_vectors(1))
    assert kept.path.read_bytes() == content
    assert "format version 99" in caplog.text


def test_no_test_reaches_the_vectors_of_the_person_who_runs_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The place where tests keep vectors lies in pytest's own folder."""
    assert tmp_path_factory.getbasetemp() in cache_dir().parents


def test_what_a_damaged_file_still_has_is_saved(kept: UserVectors, caplog: pytest.LogCaptureFixture) -> None:
    """Pages in the middle are lost, and are no reason to pay for everything at every run from then on."""
    vectors = some_vectors(400)
    names = [str(number) for number in range(400)]
    kept.cache.put("image", names, vectors)
    content = bytearray(kept.path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40_000] = bytes(range(256)) * 157
    kept.path.write_bytes(content[: len(content)])

    first = UserVectors(SPACE).cache.get_many("image", names)
    assert 100 < len(first) < 400
    for name, vector in first.items():
        np.testing.assert_array_equal(vector, vectors[int(name)])
    assert f"{len(first)} vectors of them could be saved" in caplog.text
    missing = [name for name in names if name not in first]
    UserVectors(SPACE).cache.put("image", missing, vectors[[int(name) for name in missing]])
    assert len(UserVectors(SPACE).cache.get_many("image", names)) == 400
    assert caplog.text.count("begun anew") == 1
    assert "not kept" not in caplog.text


@pytest.mark.parametrize("where", ["file", "folder"])
def test_where_nothing_can_be_kept_nobody_is_told_otherwise(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in a process says that vectors are not kept, however often they are asked for; none says where."""
    monkeypatch.setenv("EMBEDSTORE_CACHE_DIR", str(tmp_path / where))
    if where == "file":
        (tmp_path / where).write_text("in the way")
    else:
        (tmp_path / where / "vectors" / "vectors.sqlite").mkdir(parents=True)
    for _ in range(3):
        places = UserVectors(SPACE)
        places.cache.put("text", ["a"], some_vectors(1))
        places.cache.get_many("text", ["b"])
    assert [record.message.split(":")[0] for record in caplog.records] == ["vectors are not kept"]


def test_a_user_without_a_home_is_told_that_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And what is asked is answered."""

    def no_home(*given: object, **options: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv(CACHE_DIR, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    monkeypatch.setattr(user_vectors, "_failed", set())
    sealed = UserVectors(SPACE)
    sealed.cache.put("image", ["a"], some_vectors(1))
    assert list(sealed.cache.get_many("image", ["a"])) == ["a"]
    assert "vectors are not kept: [Errno 2] this user has no home folder" in caplog.text
