"""Records of an `add` -> hashes, prepared pictures and vectors, in a worker's process.

Each call names the records that it is about, so any worker can do it; what a worker has read and prepared it keeps for
the next call, within bounds, and reads again where that is gone. Nothing is decided or written here, and no key is
needed: to a service the driver sends. Which calls are made is `ray_ingest`'s business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
import platform
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from embedstore import __version__, images, settings
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import make_embedder, takes
from embedstore.errors import EmbedStoreError, ImageError
from embedstore.images import PictureSource
from embedstore.ingest import executor
from embedstore.sources import Failure, Record
from embedstore.storage.thumbnails import SIDE

DONE, FAILED, UNLIKE = "done", "failed", "unlike"
"""Kinds of answer: the result, an error of the library, the traits of another node."""
SETTINGS = (settings.OFFLINE, settings.PRIVATE_URLS, settings.URL_SECONDS)
"""The driver's settings that hold for what its workers do; none is a secret."""
FILE_BYTES, PREPARED_BYTES = 64 << 20, 256 << 20
"""What a worker keeps of files that it has hashed, and of pictures that it has prepared."""


@dataclass(frozen=True)
class Absent:
    """A file that cannot be read here; whether that is the file's fault or this node's is for the driver to say."""

    path: str
    failure: Failure


@dataclass(frozen=True)
class Wanted:
    """A picture that is wanted: of which record, None where it may be left to what is kept here; prepared or small."""

    record: Record | None
    content_hash: str
    prepared: bool = True
    thumbnail: bool = False


@dataclass(frozen=True)
class PictureInfo:
    """What there is to say of a picture that stays here prepared: its size; and its thumbnail where it was wanted."""

    width: int | None = None
    height: int | None = None
    thumbnail: bytes | None = None


@functools.cache
def traits() -> dict[str, str]:
    """Return what driver and workers must agree on, by name: of these depends what a picture is, and its vector.

    Processors may differ: a vector's last bits do then too, as they do between machines that add by themselves.
    """
    found = {"embedstore": __version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    for package in ("numpy", "pillow", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def answer(payload: bytes, shared: Sequence[Any]) -> tuple[str, Any]:
    """Do a call, the pickled name of a function below and its arguments; return the kind of the answer, and it.

    `shared` holds the user's own embedder, pickled, where there is one.
    """
    name, *arguments = pickle.loads(payload)
    try:
        return _CALLS[name](*arguments, *shared)
    except EmbedStoreError as error:
        return FAILED, error


def hello(expected: dict[str, str], environment: dict[str, str | None]) -> tuple[str, Any]:
    """Compare traits, and take over the driver's settings."""
    if expected != traits():
        return UNLIKE, traits()
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return DONE, None


def hash_records(records: Sequence[Record]) -> tuple[str, Any]:
    """Load and hash records; the answer is a hash for each, or what is wrong with it."""
    return DONE, [_hashed(record) for record in records]


def prepare(name: str, wanted: Sequence[Wanted], *own: bytes) -> tuple[str, Any]:
    """Decode and prepare pictures, which stay here; the answer is a `PictureInfo` for each, or what is wrong."""
    return DONE, [_made(item, name, own) for item in wanted]


def embed(name: str, wanted: Sequence[Wanted], *own: bytes) -> tuple[str, Any]:
    """Embed pictures: the answer is the vectors as the embedder has them; or what `_all_prepared` lacks."""
    items, lacking = _all_prepared(name, wanted, own)
    if lacking:
        return DONE, lacking
    vectors = np.asarray(_embedder(name, *own).embed_prepared(items))
    _prepared.drop(item.content_hash for item in wanted)
    return DONE, vectors


def fetch(name: str, wanted: Sequence[Wanted], *own: bytes) -> tuple[str, Any]:
    """Hand pictures out as they are prepared, to be sent elsewhere; or what `_all_prepared` lacks."""
    items, lacking = _all_prepared(name, wanted, own)
    if not lacking:
        _prepared.drop(item.content_hash for item in wanted)
    return DONE, lacking or items


_CALLS: dict[str, Callable[..., tuple[str, Any]]] = {
    "hello": hello,
    "hash_records": hash_records,
    "prepare": prepare,
    "embed": embed,
    "fetch": fetch,
}


class _BoundedCache:
    """What is kept of pictures by content hash, the newest, within a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._lock = threading.Lock()
        self._items: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def put(self, content_hash: str, item: Any, size: int) -> None:
        with self._lock:
            self._remove(content_hash)
            self._items[content_hash] = item, size
            self._bytes += size
            while self._bytes > self._most:
                self._remove(next(iter(self._items)))

    def get(self, content_hash: str) -> Any:
        with self._lock:
            return self._items.get(content_hash, (None, 0))[0]

    def drop(self, content_hashes: Any) -> None:
        with self._lock:
            for content_hash in content_hashes:
                self._remove(content_hash)

    def _remove(self, content_hash: str) -> None:
        self._bytes -= self._items.pop(content_hash, (None, 0))[1]


_files, _prepared = _BoundedCache(FILE_BYTES), _BoundedCache(PREPARED_BYTES)


def _hashed(record: Record) -> str | Failure | Absent:
    def keep(content_hash: str, data: PictureSource) -> None:
        if isinstance(data, bytes | np.ndarray):
            _files.put(content_hash, data, len(data) if isinstance(data, bytes) else data.nbytes)

    found = executor.examined(record, keep)
    return _judged(record, found) if isinstance(found, Failure) else found[0]


def _made(item: Wanted, name: str, own: Sequence[bytes]) -> PictureInfo | Failure | Absent:
    """Make what is wanted of a picture, from its file where that is kept here."""
    record, data = item.record, _files.get(item.content_hash)
    assert record is not None
    if data is not None:
        record = dataclasses.replace(record, load=functools.partial(images.as_source, data))

    def make(content_hash: str, data: PictureSource) -> PictureInfo:
        if not item.prepared:
            return PictureInfo(thumbnail=_thumbnail(data) if item.thumbnail else None)
        picture = executor.decoded(item.content_hash, data)
        prepared = _embedder(name, *own).prepare(picture.image)
        size = len(prepared) if isinstance(prepared, bytes) else int(getattr(prepared, "nbytes", 1 << 20))
        _prepared.put(content_hash, prepared, size)
        return PictureInfo(picture.width, picture.height, _thumbnail(picture.image) if item.thumbnail else None)

    found = executor.examined(record, make)
    _files.drop([item.content_hash])
    return _judged(record, found) if isinstance(found, Failure) else found[1]


def _thumbnail(picture: PictureSource) -> bytes | None:
    """Return a small copy; one that cannot be made is done without."""
    with contextlib.suppress(ImageError):
        return images.thumbnail(picture, SIDE)
    return None


def _all_prepared(name: str, wanted: Sequence[Wanted], own: Sequence[bytes]) -> tuple[list[Any], dict[int, Any]]:
    """Return the prepared pictures, made anew where they are gone; and by position what is wrong with those not had.

    None stands for one whose record would have to be sent along.
    """
    items: list[Any] = []
    lacking: dict[int, Failure | Absent | None] = {}
    for position, item in enumerate(wanted):
        found = _prepared.get(item.content_hash)
        if found is None and item.record is None:
            lacking[position] = None
        elif found is None:
            made = _made(dataclasses.replace(item, thumbnail=False), name, own)
            if isinstance(made, PictureInfo):
                found = _prepared.get(item.content_hash)
            else:
                lacking[position] = made
        items.append(found)
    return items, lacking


def _judged(record: Record, failure: Failure) -> Failure | Absent:
    """Tell a file that cannot be read on this node from others that are wrong."""
    load = record.load
    path = load.args[0] if isinstance(load, functools.partial) and load.args else None
    if isinstance(path, str) and "://" not in path and not os.access(path, os.R_OK):
        return Absent(path, failure)
    return failure


_loading = threading.Lock()
_loaded: dict[tuple[Any, ...], Embedder] = {}


def _embedder(name: str, *own: bytes) -> Embedder:
    """Return the embedder of this name, or the user's own, made once; it keeps to the one core that a worker has."""
    with _loading:
        if (name, *own) not in _loaded:
            one = {"threads": 1} if not own and takes(name, "threads") else {}
            _loaded[name, *own] = pickle.loads(own[0]) if own else make_embedder(name, **one)
        return _loaded[name, *own]
