"""The cache of parts: right, bounded, shared, and not taken in by what did not arrive whole."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from s3_server import KEY, SECRET, S3Server

from embedstore.errors import BucketError, StoreError
from embedstore.storage import bucket as bucket_module
from embedstore.storage.bucket import Bucket
from embedstore.storage.part_cache import PartCache

SPAWN = multiprocessing.get_context("spawn")
SIZE = 200_000


def content(number: int) -> bytes:
    return np.random.default_rng(number).bytes(SIZE)


def name(number: int) -> str:
    return f"part-{number}.parquet"


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """Eight parts of 200 kB."""
    bucket = Bucket(f"{s3.bucket()}/cats.store/images")
    for number in range(8):
        bucket.write(name(number), content(number))
    s3.reset()
    return bucket


@pytest.fixture
def cache(bucket: Bucket, tmp_path: Path) -> PartCache:
    """A cache that may hold two of the parts."""
    return PartCache(bucket, tmp_path / "images", 2 * SIZE)


def files(cache: PartCache) -> list[str]:
    """What is in the folder but the lock."""
    found = [path for path in cache.folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(cache.folder).as_posix() for path in found if path.name != ".lock")


def read(cache: PartCache, number: int) -> bytes:
    with cache.fetched(name(number), SIZE) as file:
        return file.read()


def test_a_part_is_fetched_once(s3: S3Server, cache: PartCache) -> None:
    """The second reading asks nobody; the file is what lies in the bucket."""
    assert not cache.has(name(0), SIZE)
    assert read(cache, 0) == content(0)
    assert read(cache, 0) == content(0)
    assert cache.file(name(0), SIZE).read_bytes() == content(0)
    assert s3.counts() == {"get": 1}
    assert cache.has(name(0), SIZE)
    cache.drop([name(0), "never.parquet"])
    assert files(cache) == []


def test_what_was_used_longest_ago_goes_first(s3: S3Server, cache: PartCache) -> None:
    """Of five parts two fit: never more, and those that were used last."""
    for number in (0, 1, 2, 3, 4):
        read(cache, number)
        assert cache.used() <= cache.limit
    assert files(cache) == [name(3), name(4)]
    read(cache, 3)
    read(cache, 0)
    assert files(cache) == [name(0), name(3)]
    with cache.open(name(3), SIZE):
        pass  # reading a column is a use too
    read(cache, 1)
    assert files(cache) == [name(1), name(3)]
    assert s3.counts() == {"get": 7}


def test_an_evicted_file_is_there_for_whoever_reads_it(cache: PartCache) -> None:
    """Five parts are read at once, each from the file that it had, with room for two."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(cache.fetched(name(number), SIZE)) for number in range(5)]
        assert cache.used() <= cache.limit
        assert [file.read() for file in opened] == [content(number) for number in range(5)]


def test_a_part_that_is_not_here_is_read_by_ranges(s3: S3Server, cache: PartCache) -> None:
    """`open` fetches no part; where it is here already nobody is asked."""
    with cache.open(name(0), SIZE) as file:
        file.seek(1000)
        assert file.read(500) == content(0)[1000:1500]
    assert files(cache) == []
    assert sum(one.answered for one in s3.requests()) == 500
    read(cache, 0)
    s3.reset()
    with cache.open(name(0), SIZE) as file:
        file.seek(1000)
        assert file.read(500) == content(0)[1000:1500]
    assert s3.counts() == {}


def hammer(cache: PartCache, seed: int) -> list[int]:
    """Read parts in an order of one's own by three threads; return those whose bytes were wrong."""

    def read_all(thread: int) -> list[int]:
        order = np.random.default_rng((seed, thread)).integers(0, 8, 12)
        return [int(number) for number in order if read(cache, number) != content(number)]

    with ThreadPoolExecutor(3) as threads:
        return [number for wrong in threads.map(read_all, range(3)) for number in wrong]


@contextlib.contextmanager
def measured(folder: Path) -> Iterator[list[int]]:
    """Measure again and again what the files in a folder take together, also half fetched ones.

    Under the lock, or one that goes while it is measured would be counted beside the one that comes.
    """
    most, done = [0], threading.Event()
    folder.mkdir(exist_ok=True)

    def measure() -> None:
        while not done.wait(0.002):
            with FileLock(folder / ".lock"):
                most[0] = max(most[0], sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

    watcher = threading.Thread(target=measure)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def test_the_bound_holds_for_threads_and_processes(s3: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """Two processes of three threads and this one's three read eight parts where three fit: right, and never more."""
    cache = PartCache(bucket, tmp_path / "images", 3 * SIZE)
    with measured(cache.folder) as most, ProcessPoolExecutor(2, mp_context=SPAWN) as processes:
        others = [processes.submit(hammer, cache, seed) for seed in (1, 2)]
        assert hammer(cache, 3) == []
        assert [other.result() for other in others] == [[], []]
    assert SIZE <= most[0] <= cache.limit
    assert all(file.endswith(".parquet") and "/" not in file for file in files(cache))


def test_what_another_fetches_is_not_fetched_again(s3: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """Six threads that want one part at once, each with a cache of its own, ask for it once."""
    s3.fail("hold-before", "get")
    caches = [PartCache(bucket, tmp_path / "images", 2 * SIZE) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        found = [threads.submit(read, cache, 0) for cache in caches]
        s3.wait_held()
        s3.release()
        assert all(one.result() == content(0) for one in found)
    assert s3.counts() == {"get": 1}


def test_a_fetch_waits_for_room_that_others_are_filling(s3: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """With room for one part, the second fetch begins when the first has ended, and the bound holds."""
    cache = PartCache(bucket, tmp_path / "images", SIZE + SIZE // 2)
    s3.fail("hold-before", "get", name(0))
    with measured(cache.folder) as most, ThreadPoolExecutor(2) as threads:
        first = threads.submit(read, cache, 0)
        s3.wait_held()
        second = threads.submit(read, cache, 1)
        assert not second.done()
        s3.release()
        assert (first.result(), second.result()) == (content(0), content(1))
    assert most[0] <= cache.limit
    assert files(cache) == [name(1)]


def test_bytes_of_a_wrong_size_are_not_believed(s3: S3Server, cache: PartCache) -> None:
    """A file that was cut, or grew, is fetched again."""
    for length in (SIZE - 1, SIZE + 1, 0):
        path = cache.file(name(0), SIZE)
        path.chmod(0o600)
        path.write_bytes(content(0)[:length] + b"x" * (length - SIZE))
        assert not cache.has(name(0), SIZE)
        assert read(cache, 0) == content(0)
    assert s3.counts() == {"get": 4}


def test_a_fetch_that_breaks_off_leaves_nothing(
    s3: S3Server, cache: PartCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four ranges fails for good, or the object is short, or not there: no file, and an error."""
    monkeypatch.setattr(bucket_module, "_RANGE", SIZE // 4)
    s3.fail("status", "get", nth=3, times=100, status="403 AccessDenied")
    with pytest.raises(BucketError, match="refused"):
        read(cache, 0)
    s3.reset()
    cache.bucket.write(name(1), content(1)[:-5])
    with pytest.raises(OSError, match=f"it has {SIZE - 5} bytes, where {SIZE} were expected"):
        read(cache, 1)
    with pytest.raises(FileNotFoundError, match=r"s3://.*/images/part-99.parquet"):
        read(cache, 99)
    assert files(cache) == []
    assert read(cache, 0) == content(0)


def fetch_with_small_ranges(cache: PartCache) -> None:
    bucket_module._RANGE = SIZE // 4
    read(cache, 0)


def test_a_killed_fetch_leaves_nothing_that_is_believed(s3: S3Server, cache: PartCache) -> None:
    """A process is killed while some ranges are here and one is not: the part is fetched again, what is left goes."""
    s3.fail("hold", "get", nth=3)
    process = SPAWN.Process(target=fetch_with_small_ranges, args=(cache,))
    process.start()
    s3.wait_held()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    s3.reset()
    assert [file for file in files(cache) if not file.startswith(".fetching/")] == []
    assert (cache.folder / ".fetching" / name(0)).stat().st_size == SIZE  # all of it, with a hole
    assert not cache.has(name(0), SIZE)
    assert read(cache, 1) == content(1)
    assert files(cache) == [name(1)]
    assert read(cache, 0) == content(0)
    assert files(cache) == [name(0), name(1)]


def test_a_part_that_was_written_here_is_uploaded_before_it_may_go(s3: S3Server, cache: PartCache) -> None:
    """Until then no other part drives it out, and a failed upload leaves it; then it is one of the cached."""
    new = cache.folder / "part-new.parquet"
    read(cache, 0)
    new.write_bytes(content(50))
    for number in (1, 2, 3):
        read(cache, number)
    assert files(cache) == [name(3), new.name]
    s3.fail("status", "put", status="403 AccessDenied")
    with pytest.raises(BucketError):
        cache.adopt(new)
    read(cache, 4)
    assert files(cache) == [name(4), new.name]
    cache.adopt(new)
    assert cache.bucket.read(new.name) == content(50)
    s3.reset()
    with cache.fetched(new.name, SIZE) as file:
        assert file.read() == content(50)
    assert s3.counts() == {}
    for number in (5, 6):
        read(cache, number)
    assert files(cache) == [name(5), name(6)]


def test_a_part_larger_than_the_bound_is_read_and_said(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It alone is kept then; the log says once which setting is too small."""
    cache = PartCache(bucket, tmp_path / "images", 1000)
    with caplog.at_level(logging.WARNING):
        assert [read(cache, number) for number in range(3)] == [content(number) for number in range(3)]
    assert files(cache) == [name(2)]
    assert len(caplog.records) == 1
    assert f"{SIZE} bytes" in caplog.text
    assert "where 1000 are allowed (--cache-size" in caplog.text


def test_a_full_disk_says_which_folder_and_what_to_do(cache: PartCache) -> None:
    """The system refuses a file of that size: no damage of the store, and no file left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, before[1]))
    try:
        with pytest.raises(StoreError, match=r"images cannot hold parts of s3://.*free some space.*--cache-dir"):
            read(cache, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(cache) == []
    assert read(cache, 0) == content(0)


def test_names_of_partitions_have_folders(cache: PartCache) -> None:
    """Another engine's part lies in a folder of its own, there and here, and is evicted like any."""
    cache.bucket.write("label=a b/part-x.parquet", content(9))
    with cache.fetched("label=a b/part-x.parquet", SIZE) as file:
        assert file.read() == content(9)
    assert files(cache) == ["label=a b/part-x.parquet"]
    for number in (0, 1):
        read(cache, number)
    assert files(cache) == [name(0), name(1)]


def test_it_travels_without_a_key(cache: PartCache) -> None:
    """To a new process as a URL, a folder and a bound."""
    packed = pickle.dumps(cache)
    assert KEY.encode() not in packed
    assert SECRET.encode() not in packed
    again = pickle.loads(packed)
    assert (again.bucket, again.folder, again.limit) == (cache.bucket, cache.folder, cache.limit)
    with ProcessPoolExecutor(1, mp_context=SPAWN) as processes:
        assert processes.submit(read, cache, 0).result() == content(0)
    assert files(cache) == [name(0)]
