"""The file of a part, on this machine or in a bucket: opened, and its errors told apart.

A part in a bucket is fetched whole for its vectors, and read by ranges for its footer and its other columns, unless it
is on this machine already. A file that is not there is damage, or belongs to a version that is past: the log knows.
What the bytes mean is left to `parts`; how long a fetched file stays, to `part_cache`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from embedstore.errors import DamagedStoreError, StoreError, VersionGoneError, spelt
from embedstore.storage import log_files
from embedstore.storage.arrow_columns import pa
from embedstore.storage.log_files import History, Log
from embedstore.storage.remote_file import RemoteFile

if TYPE_CHECKING:
    from embedstore.storage.part_cache import PartCache


@dataclass(frozen=True, slots=True)
class PartFile:
    """Where the bytes of a part are.

    Attributes
    ----------
    path : Path
        Where it lies; of a part in a bucket, where it would lie on this machine.
    known_size : int or None
        Its bytes, for a part in a bucket.
    cache : PartCache or None
        For a part in a bucket: what fetches it.
    """

    path: Path
    known_size: int | None = None
    cache: PartCache | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        if self.known_size is not None:
            return self.known_size
        return self.path.stat().st_size if self.cache is None else self.cache.bucket.size(self._name)

    def exists(self) -> bool:
        """Tell whether the file is there: on this machine, or in the bucket."""
        if self.cache is None:
            return self.path.exists()
        try:
            return self.cache.has(self._name, self.size) or self.cache.bucket.size(self._name) == self.size
        except FileNotFoundError:
            return False

    def drop(self) -> None:
        """Forget what is on this machine of a part in a bucket."""
        if self.cache is not None:
            self.cache.drop([self._name])

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """Give the file on this machine, fetched when needed, open for reading.

        Raises
        ------
        DamagedStoreError
            It is not there, has another size, or cannot be read.
        VersionGoneError
            It is not there because newer versions have no use for it.
        """
        cache = self.cache
        with self.reading(), self.path.open("rb") if cache is None else cache.fetched(self._name, self.size) as file:
            yield file

    @contextmanager
    def pieces(self) -> Iterator[Any]:
        """Give the file to be read here and there, where it lies. Raises as `whole`."""
        cache = self.cache
        with self.reading(), pa.OSFile(str(self.path)) if cache is None else cache.open(self._name, self.size) as file:
            yield file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn the errors of a file that is not there, or is not what it should be, into ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._missing() from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedStoreError(
                f"part {self.path.name} cannot be read: {error}; run `embedstore verify STORE --deep`, "
                "or restore the file from a copy"
            ) from error

    @property
    def _name(self) -> str:
        return self.path.name if self.cache is None else self.cache.name_of(self.path)

    def _missing(self) -> StoreError:
        """Return what it means that a part is not there: damage, or that the reader's version is past."""
        try:
            local = Log(self.path.parent / log_files.NAME)
            history = local.history() if self.cache is None else _history_there(self.cache)
        except OSError:
            history = None
        if history is not None and not history.unreadable and self._name not in history.live:
            return VersionGoneError(
                f"the version of the store that is being read is gone: compact and vacuum have replaced its part "
                f"{self.path.name}. Go on from the newest version: {spelt('store.refresh()', 'run the command again')}"
            )
        where = "on the disk" if self.cache is None else f"at {self.cache.bucket.url}"
        return DamagedStoreError(
            f"part {self.path.name} is in the table's log but not {where}; restore it, or open an older version"
        )


def as_parquet(file: Any) -> Any:
    """Return an open file as Parquet."""
    import pyarrow.parquet as pq  # slow to import, and not needed to search

    return pq.ParquetFile(file)


def parquet_reader(file: Any) -> Any:
    """Return the reader that pyarrow's ParquetFile has inside, of an open file.

    `pyarrow.parquet` itself imports file systems, and SSL with them, for longer than the rows of an answer take.
    """
    try:
        from pyarrow._parquet import ParquetReader
    except ImportError:  # it has no public name, and may move
        return as_parquet(file).reader
    reader = ParquetReader()
    reader.open(file)
    return reader


def fetch_columns(file: Any, metadata: Any, columns: Sequence[str] | None, groups: Iterable[int] | None = None) -> None:
    """Fetch columns of row groups (default: all) of a file in a bucket at once, before they are read one by one."""
    if not isinstance(file, RemoteFile):
        return
    ranges = []
    for group in range(metadata.num_row_groups) if groups is None else groups:
        about = metadata.row_group(group)
        for chunk in map(about.column, range(about.num_columns)):
            if columns is None or chunk.path_in_schema.partition(".")[0] in columns:
                start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
                ranges.append((start, start + chunk.total_compressed_size))
    file.fetch_ahead(ranges)


def _history_there(cache: PartCache) -> History:
    """Read the log as it is in the bucket: the one on this machine may be older than what has replaced a part."""
    with tempfile.TemporaryDirectory() as folder:
        for one in cache.bucket.list(log_files.NAME):
            path = Path(folder) / one.name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(cache.bucket.read(one.name))
        return Log(Path(folder) / log_files.NAME).history()
