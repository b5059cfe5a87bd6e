"""A place under a bucket: names -> objects read, made, listed and deleted there, by obstore.

`create` is the one step that two writers cannot both take: a conditional put. Keys come from the environment variables
that deltalake's object store reads too, and stay there: a `Bucket` pickles as its URL. Which variables, and what an
error means, is left to `bucket_access`; what the objects mean, to `table` and `log_files`; what of them is kept on
this machine, to `part_cache`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import BucketError, InputError, MissingDependencyError
from embedstore.settings import require_network
from embedstore.storage import bucket_access
from embedstore.storage.remote_file import RemoteFile

_RANGE = 8 * 2**20
_AT_ONCE = 4
_MULTIPART = 16 * 2**20
_CHUNK = 8 * 2**20
"""What is sent by one request must get through in the time of one: here by 2 Mbit/s, four side by side."""
_TRIES = 4
_runtime_of: int | None = None
"""The process whose threads obstore runs on; they do not come along into a forked one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object: its name relative to the place that was listed, its bytes, when it was made, since the epoch, and a
    text that other content does not have, if the service gives one."""

    name: str
    size: int
    modified: float
    tag: str = ""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path names a place in a bucket, also once `pathlib` has made one slash of its two.

    Examples
    --------
    >>> is_url("s3://photos/cats.store"), is_url(Path("s3://photos/cats.store")), is_url("photos/cats.store")
    (True, True, False)
    """
    return bucket_access.URL.match(os.fspath(path)) is not None


class Bucket:
    """One place under a bucket; names are relative to it.

    After a `BucketError` of a change that is `unsettled` it may have been made: nothing that it needs may be deleted.

    Parameters
    ----------
    url : str
        ``s3://bucket/place``, or what else obstore takes: ``gs://``, ``az://``, ``abfs://``.

    Raises
    ------
    InputError
        It is no such URL, or holds a password, a query or a fragment.
    MissingDependencyError
        obstore is not installed.
    BucketError
        The environment has no key, or no usable address.
    """

    def __init__(self, url: str) -> None:
        self._lie_at(bucket_access.plain_url(url))
        _connected(self._root)  # what the environment lacks is said at once

    def _lie_at(self, url: str) -> None:
        self.url = url
        scheme, _, rest = url.partition("://")
        root, _, prefix = rest.partition("/")
        self._root = f"{scheme}://{root}"
        self._prefix = f"{prefix}/" if prefix else ""

    @functools.cached_property
    def _store(self) -> Any:
        return _connected(self._root)

    def __truediv__(self, prefix: str) -> Bucket:
        """Return the place under a name of this one."""
        below = object.__new__(Bucket)
        below.__dict__.update(self.__dict__, url=f"{self.url}/{prefix}", _prefix=f"{self._prefix}{prefix}/")
        return below

    def __repr__(self) -> str:
        return f"Bucket({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a URL: another process has keys of its own, or says that it has none once it asks."""
        return (_arrived, (self.url,))

    def read(self, name: str) -> bytes:
        """Return the bytes of an object. Raises FileNotFoundError, BucketError."""
        return bytes(self._ask("reading", name, lambda obstore, key: obstore.get(self._store, key).bytes()))

    def size(self, name: str) -> int:
        """Return how many bytes an object has. Raises FileNotFoundError, BucketError."""
        return int(self._ask("looking for", name, lambda obstore, key: obstore.head(self._store, key))["size"])

    def now(self) -> float:
        """Return what time it is by the clock that dates the objects, since the epoch; it is read off one of a moment.

        Machines whose clocks differ agree on the age of an object by it.
        """
        name = f".now-{uuid.uuid4().hex}"
        self.write(name, b"")
        try:
            made = self._ask("looking for", name, lambda obstore, key: obstore.head(self._store, key))
            return float(made["last_modified"].timestamp())
        finally:
            self.delete([name])

    def create(self, name: str, data: bytes) -> None:
        """Make an object where there is none, in one step of which only one writer is capable.

        A put that was carried out while its answer was lost is recognised by its bytes.

        Raises
        ------
        FileExistsError
            There is one, with other bytes.
        BucketError
            Whether it was made is not known.
        """
        for tried in range(_TRIES):
            failed: BucketError | None = None
            try:
                self._ask("making", name, lambda obstore, key: obstore.put(self._store, key, data, mode="create"))
                return
            except FileExistsError:
                pass
            except BucketError as error:
                if not error.unsettled:
                    raise
                failed = error
            try:
                there = self.read(name)
            except FileNotFoundError:
                if failed is not None:
                    raise failed from None
                time.sleep(random.uniform(0.05, 0.2) * 2**tried)  # the service would not decide between two writers
                continue
            if there != data:
                raise FileExistsError(errno.EEXIST, "somebody else has made it", self._full(name))
            return
        raise BucketError(f"{self._full(name)} could not be made: it was said to be there, and is not; try again")

    def write(self, name: str, data: bytes) -> None:
        """Put bytes, in place of what is there."""
        self._ask("writing", name, lambda obstore, key: obstore.put(self._store, key, data, use_multipart=False))

    def upload(self, name: str, path: Path) -> None:
        """Put a file, under a name that is not taken, and make sure that all of it has arrived.

        Above 16 MB it goes in pieces, which become an object at once when the last has arrived. Raises OSError where
        the file cannot be read.
        """
        size = path.stat().st_size
        large = {"use_multipart": size > _MULTIPART, "chunk_size": _CHUNK, "max_concurrency": _AT_ONCE}
        failed: BucketError | None = None
        try:
            self._ask("writing", name, lambda obstore, key: obstore.put(self._store, key, path, **large))
        except BucketError as error:
            if not error.unsettled:
                raise
            failed = error
        try:
            arrived = self.size(name)
        except FileNotFoundError:
            arrived = -1
        if arrived != size:
            raise failed or BucketError(f"{self._full(name)} has {arrived} bytes after {size} were sent; try again")

    def download(self, name: str, path: Path, size: int) -> None:
        """Fetch an object of `size` bytes by ranges, several at once, beside `path`, and rename it there.

        Raises
        ------
        FileNotFoundError
            There is no such object.
        OSError
            It has another size, or the file cannot be written.
        BucketError
        """
        beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
        try:
            beside.touch(exist_ok=False)
            self.fetch(name, beside, size)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def fetch(self, name: str, path: Path, size: int) -> None:
        """Fetch an object of `size` bytes into a file that is there. Raises as `download`, and leaves it half done."""
        os.truncate(path, size)
        ranges = [(start, min(start + _RANGE, size)) for start in range(0, max(size, 1), _RANGE)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            jobs = [pool.submit(self._fetch_range, name, path, start, end, size) for start, end in ranges]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is fine."""
        keys = [self._prefix + name for name in names]
        if keys:
            with contextlib.suppress(FileNotFoundError):
                self._ask("deleting", "", lambda obstore, _: obstore.delete(self._store, keys))

    def list(self, prefix: str = "", after: str = "") -> list[Listed]:
        """Return the objects whose names begin with a folder, `prefix`, ascending by name; those behind `after`."""
        offset = self._prefix + after if after else None
        found = self._ask(
            "listing", prefix, lambda obstore, key: obstore.list(self._store, key or None, offset=offset).collect()
        )
        cut = len(self._prefix)
        listed = [
            Listed(one["path"][cut:], one["size"], one["last_modified"].timestamp(), one["e_tag"] or "")
            for one in found
        ]
        return sorted((one for one in listed if one.name), key=lambda one: one.name)  # a console may mark the place

    def open(self, name: str, size: int) -> RemoteFile:
        """Return an object of `size` bytes as a file that is read by ranges; the end of it, which tells most, once."""
        return RemoteFile(self, name, size)

    def range(self, name: str, start: int, end: int, size: int) -> bytes:
        """Return bytes `start` to `end` of an object of `size` bytes. Raises as `download`."""

        def get(obstore: Any, key: str) -> tuple[Any, int]:
            try:
                found = obstore.get(self._store, key, options={"range": (start, end)} if end > start else None)
                return found.bytes(), found.meta["size"]
            except obstore.exceptions.GenericError as error:
                if not bucket_access.is_beyond_end(error):
                    raise
            return b"", obstore.head(self._store, key)["size"]

        data, there = self._ask("reading", name, get)
        if there != size or len(data) != end - start:
            said = f"it has {there} bytes, where {size} were expected" if there != size else "an answer was cut short"
            raise OSError(errno.EIO, said, self._full(name))
        return bytes(data)

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Sequence[bytes]:
        """Return several ranges of bytes, given by start and end, asked for side by side. Raises as `download`."""
        if not ranges:
            return []
        starts, ends = map(list, zip(*ranges, strict=True))
        found = self._ask(
            "reading",
            name,
            lambda obstore, key: obstore.get_ranges(self._store, key, starts=starts, ends=ends, coalesce=0),
        )
        if [len(data) for data in found] != [end - start for start, end in ranges]:
            raise OSError(errno.EIO, "it is shorter than was expected", self._full(name))
        return [bytes(data) for data in found]

    def _fetch_range(self, name: str, path: Path, start: int, end: int, size: int) -> None:
        data = self.range(name, start, end, size)
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)

    def _full(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _ask(self, doing: str, name: str, ask: Callable[[Any, str], Any]) -> Any:
        """Let obstore ask, and turn its errors into ours.

        They are raised outside the handler: obstore's hold all that the service answered, which quotes the key's name.
        """
        global _runtime_of
        require_network(f"{doing} {self._full(name)}")
        if _runtime_of not in (None, os.getpid()):
            raise BucketError(
                f"{self.url} was used before this process was forked, and cannot be used in both; start processes by "
                "multiprocessing.get_context('spawn')"
            )
        _runtime_of = os.getpid()
        obstore = _library()
        try:
            try:
                return _interruptibly(ask, obstore, self._prefix + name)
            except obstore.exceptions.GenericError as error:
                if not bucket_access.is_broken_list(error):
                    raise
            return _interruptibly(ask, obstore, self._prefix + name)
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket</Code>" not in str(error):
                failed: Exception = FileNotFoundError(errno.ENOENT, "there is no such object", self._full(name))
            else:
                failed = bucket_access.request_error(error, doing, self._full(name), self._root)
        except obstore.exceptions.AlreadyExistsError:
            failed = FileExistsError(errno.EEXIST, "it is there already", self._full(name))
        except obstore.exceptions.BaseError as error:
            failed = bucket_access.request_error(error, doing, self._full(name), self._root)
        except ValueError as error:
            failed = InputError(f"{self._full(name)} cannot be the name of an object: {error}")
        raise failed


def _arrived(url: str) -> Bucket:
    bucket = object.__new__(Bucket)
    bucket._lie_at(url)
    return bucket


def _interruptibly(ask: Callable[[Any, str], Any], obstore: Any, key: str) -> Any:
    """Ask so that Ctrl-C need not wait for the answer, as it would in obstore; what was asked for may still be done."""
    if threading.current_thread() is not threading.main_thread():
        return ask(obstore, key)
    answer: Future[Any] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask(obstore, key))
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return answer.result()


def _library() -> Any:
    try:
        import obstore  # late: most stores are folders
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingDependencyError('a store in a bucket needs obstore: pip install "embedstore[s3]"') from error
    return obstore


def _connected(root: str) -> Any:
    """Return obstore's store of a whole bucket, with its connections; nothing is asked of it yet."""
    _library()
    bucket_access.require_access(root)
    return _connected_as(root, bucket_access.environment(root))


@functools.lru_cache(maxsize=8)
def _connected_as(root: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """Return the store of a bucket for these variables; each task on a cluster asks for it again."""
    obstore = _library()
    options = bucket_access.client_options(root.partition(":")[0])
    try:
        return obstore.store.from_url(root, retry_config=bucket_access.RETRIES, client_options=options)
    except (obstore.exceptions.BaseError, ValueError) as error:
        failed = bucket_access.setup_error(root, error)
    raise failed
