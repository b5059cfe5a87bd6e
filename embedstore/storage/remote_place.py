"""A store in a bucket: its place there, and the two folders that it has on this machine.

`RemotePlace` turns a URL into the objects of a store, made in one step and deleted again, and into where this machine
keeps what must not be lost (paid rows, claims, labels: the home) and what can be fetched again (the cache). Its rows
are `table`'s business, by way of `mirror` and `part_cache`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from shlex import quote

import xxhash

from embedstore import files, settings
from embedstore.errors import StoreExistsError, spelt
from embedstore.storage import log_files
from embedstore.storage.arrow_columns import pa
from embedstore.storage.bucket import Bucket
from embedstore.storage.log_files import commit_name
from embedstore.storage.mirror import is_same, mark
from embedstore.storage.part_cache import PartCache
from embedstore.storage.table import DeltaFolder

MANIFEST = "store.json"
IMAGES = "images"
CLASSIFIERS = "classifiers"
_ENDED = b""
"""Stands in place of the first change of a store that is being deleted, so that nobody else makes one."""


class RemotePlace:
    """Where a store in a bucket lies.

    Parameters
    ----------
    url : str
    cache_dir : path, optional
        The folder below which it has its cache; `settings.cache_dir` unless told.
    cache_bytes : int or str, optional
        How much its parts may take there; see `settings.cache_bytes`.
    """

    def __init__(
        self, url: str, cache_dir: str | os.PathLike[str] | None = None, cache_bytes: int | str | None = None
    ) -> None:
        self.bucket = Bucket(url)
        self.url = self.bucket.url
        self._data_dir = settings.data_dir().absolute()
        self._cache_dir = (Path(cache_dir) if cache_dir is not None else settings.cache_dir()).absolute()
        self.limit = settings.cache_bytes(self._cache_dir, cache_bytes)

    def home(self, store_id: str) -> Path:
        """Return the folder of what must not be lost."""
        return self._data_dir / "stores" / self._name(store_id)

    def cache(self, store_id: str) -> Path:
        """Return the folder of what can be fetched or made again."""
        return self._cache_dir / "stores" / self._name(store_id)

    def _name(self, store_id: str) -> str:
        """Return a name of its own for each place: what was paid for in one copy of a store is no row of the other."""
        place = re.sub("^s3a:", "s3:", self.url)
        return f"{store_id}-{xxhash.xxh3_64_hexdigest(place.encode())[:8]}"

    def images(self, store_id: str) -> PartCache:
        """Return what of the parts is on this machine."""
        return PartCache(self.bucket / IMAGES, self.cache(store_id) / IMAGES, self.limit)

    def is_store(self) -> bool:
        """Tell whether there is a store."""
        try:
            return self.bucket.size(MANIFEST) > 0
        except FileNotFoundError:
            return False

    def has_parts(self) -> bool:
        """Tell whether there are parts, whose store may have lost its ``store.json``."""
        return any(listed.name.endswith(".parquet") for listed in self.bucket.list(IMAGES))

    def require_free(self) -> None:
        """Refuse to make a store over something else, with StoreExistsError; half a store that was begun is nothing."""
        names = [listed.name for listed in self.bucket.list()]
        if MANIFEST in names:
            raise StoreExistsError(
                f"{self.url} is a store already; "
                + spelt(f"EmbedStore.open({self.url!r}) opens it", "choose another place")
            )
        begun = f"{IMAGES}/{log_files.NAME}/{commit_name(0)}"
        if others := [name for name in names if name != begun]:
            raise StoreExistsError(
                f"{self.url} has other objects in it, such as {others[0]!r}; choose another place for the store, such "
                f"as {self.url}/cats.store"
            )

    def create(self, manifest: str, schema: pa.Schema, dim: int) -> None:
        """Make an empty store: its empty table, and then in one step ``store.json``; of two makers one is refused.

        Raises
        ------
        StoreExistsError
            There is one, or another maker was quicker.
        """
        self.require_free()
        with tempfile.TemporaryDirectory() as folder:
            table = DeltaFolder(Path(folder) / IMAGES, dim, Path(folder) / "note.json")
            table.create(schema)
            first = (table.path / log_files.NAME / commit_name(0)).read_bytes()
        log = self.bucket / IMAGES / log_files.NAME
        with suppress(FileExistsError):  # of a maker that was killed, or is at it: one empty table is like another
            log.create(commit_name(0), first)
        try:
            self.bucket.create(MANIFEST, manifest.encode())
        except FileExistsError as error:
            raise StoreExistsError(
                f"{self.url} is a store by now: another process was quicker; "
                + spelt(f"EmbedStore.open({self.url!r}) opens it", f"`embedstore info {quote(self.url)}` describes it")
            ) from error

    def discard(self, store_id: str) -> bool:
        """Delete a store that has no row, here and in the bucket, unless somebody adds the first; return whether."""
        first = f"{IMAGES}/{log_files.NAME}/{commit_name(1)}"
        try:
            self.bucket.create(first, _ENDED)
        except FileExistsError:
            return False
        self.bucket.delete([MANIFEST])
        for place in (IMAGES, CLASSIFIERS):  # what others have put beside these stays
            names = [f"{place}/{listed.name}" for listed in (self.bucket / place).list()]
            self.bucket.delete(name for name in names if name != first)
        self.bucket.delete([first])
        for folder in (self.home(store_id), self.cache(store_id)):
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def pull_classifiers(self, folder: Path) -> None:
        """Bring the saved classifiers down into a folder, as they are now."""
        folder.mkdir(parents=True, exist_ok=True)
        place = self.bucket / CLASSIFIERS
        listed = {one.name: one for one in place.list() if one.name.endswith(".json")}
        for file in folder.glob("*.json"):
            if file.name not in listed:
                file.unlink(missing_ok=True)
        for one in listed.values():
            if not is_same(folder / one.name, one):
                files.replace(folder / one.name, place.read(one.name), durable=False)
                mark(folder / one.name, one.modified)

    def publish_classifier(self, file: Path) -> None:
        """Put a saved classifier into the bucket, in place of one of its name."""
        (self.bucket / CLASSIFIERS).write(file.name, file.read_bytes())
