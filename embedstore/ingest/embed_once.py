"""Pictures and texts as a caller has them -> their vectors, in order; each is embedded once.

A picture is known by its content hash. It is looked for in the memory of this process, in the rows of a store and
in that store's cache of queries; only what none of them has goes to the embedder, and is remembered there. Nothing
here adds rows to a store: that is `ingest`'s business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from embedstore import images
from embedstore.embedders import checked
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import make_embedder, space_of
from embedstore.errors import EmbedderError, ImageError, RejectedImagesError
from embedstore.ingest.incoming import reason
from embedstore.ingest.memory import MEMORY
from embedstore.machine import cores
from embedstore.searching.query_cache import QueryCache, image_key, text_key
from embedstore.space import Space
from embedstore.storage import manifest
from embedstore.store import EmbedStore
from embedstore.vectors import Vectors

_SLICE = 512
"""Pictures between two times that vectors are put away: so many are lost at most when the process is killed."""

Outcome = Vectors | EmbedderError | ImageError


class EmbedOnce:
    """Finds vectors of one space, and has those made that are not found.

    Parameters
    ----------
    space : Space
    embedder : callable
        Returns the embedder; called only when something is known nowhere.
    store : EmbedStore, optional
        Of the same space. Its rows are looked at, and its ``queries/`` keeps what is embedded.
    progress : bool, optional
        Show a bar on stderr while embedding; by default when that is a terminal.
    """

    def __init__(
        self,
        space: Space,
        embedder: Callable[[], Embedder],
        store: EmbedStore | None = None,
        progress: bool | None = None,
    ) -> None:
        self.space = space
        self._embedder = embedder
        self._store = store
        self._progress = progress
        self._cache = None if store is None else QueryCache(store.table("queries"), space)

    @classmethod
    def of(
        cls,
        model: str | Embedder | None = None,
        store: EmbedStore | str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> EmbedOnce:
        """Make one of a model, a store or both.

        Parameters
        ----------
        model : str or Embedder, optional
            By default the store's; without a store `embedders.registry.make_embedder` decides.
        store : EmbedStore or path, optional
        progress : bool, optional

        Raises
        ------
        SpaceMismatchError
            The model makes other vectors than the store holds.
        StoreNotFoundError, ModelNotFoundError, CredentialsError
        """
        opened = _open_store(store)
        if isinstance(model, Embedder):
            embedder, space = model, model.space
        elif opened is not None:
            space = opened.space if model is None else space_of(model)
        else:
            embedder = _shared_embedder(model)
            space = embedder.space
        if opened is None:
            return cls(space, lambda: embedder, None, progress)
        opened.space.require(space, "the model given")
        own = isinstance(model, Embedder)
        return cls(space, lambda: embedder if own else opened.embedder, opened, progress)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of queries, float32 of shape (n, dim); those not known are embedded in one call."""
        keys = [text_key(text) for text in texts]
        found = {key: self._known(key) for key in keys}
        new = list(dict.fromkeys(text for key, text in zip(keys, texts, strict=True) if found[key] is None))
        if new:
            made = checked.texts(self._embedder(), new)
            rows = [(text_key(text), "text", text) for text in new]
            self._keep(rows, made)
            found |= {key: vector for (key, _, _), vector in zip(rows, made, strict=True)}
        return self._stacked([found[key] for key in keys])

    def pictures(self, items: Sequence[Any]) -> Vectors:
        """Return unit vectors of pictures.

        Parameters
        ----------
        items : sequence
            Each a path (a ``str`` or path object), the bytes of a file, a Pillow image, an array of pixels, a
            dictionary with ``bytes`` or ``path`` (as of `datasets` without decoding), or the id of a record of
            the store.

        Returns
        -------
        ndarray of shape (n, dim), float32
            In the order given.

        Raises
        ------
        ImageError
            Pictures cannot be read, or are refused by the service; the message names their positions. The
            others are embedded and remembered all the same, unless the files cannot even be opened.
        EmbedderError
            The embedder failed. What was embedded before is remembered.
        """
        with ThreadPoolExecutor(cores(), thread_name_prefix="embedstore-read") as readers:
            looked_up = list(readers.map(self._look_up, items))
            self._refuse(items, {n: key for n, key in enumerate(looked_up) if isinstance(key, ImageError)})
            new: dict[str, int] = {}
            for position, key in enumerate(looked_up):
                if isinstance(key, str):
                    new.setdefault(key, position)
            made = self._embed({key: items[position] for key, position in new.items()}, readers)
        self._refuse(items, {new[key]: found for key, found in made.items() if isinstance(found, Exception)})
        return self._stacked([made[key] if isinstance(key, str) else key for key in looked_up])

    def _look_up(self, item: Any) -> Vectors | str | ImageError:
        """Return a picture's vector where it is known, else its content hash, or what is wrong with it."""
        rows = None if self._store is None else self._store.rows
        try:
            known = rows.vector_of_id(item) if rows is not None and isinstance(item, str) else None
            if known is None:
                content_hash = images.content_hash(_source(item))
                known = self._known(image_key(content_hash))
            if known is None and rows is not None:
                known = rows.vector_of_hash(content_hash)
        except (ImageError, OSError) as error:
            return _reason(error)
        return content_hash if known is None else known

    def _embed(self, new: Mapping[str, Any], readers: ThreadPoolExecutor) -> dict[str, Outcome]:
        """Embed pictures by content hash; what is wrong with single ones takes their vector's place."""
        if not new:
            return {}
        from tqdm import tqdm  # a bar is needed only where something is embedded

        embedder = self._embedder()
        hidden = (
            None if self._progress is None else not self._progress
        )  # None: off where stderr is no terminal
        made: dict[str, Outcome] = {}
        todo = list(new.items())
        with (
            ThreadPoolExecutor(embedder.workers, thread_name_prefix="embedstore-embed") as models,
            tqdm(total=len(todo), desc="embedded", unit=" images", disable=hidden, leave=False) as bar,
        ):
            for start in range(0, len(todo), _SLICE):
                pending = todo[start : start + _SLICE]
                prepared = [(key, readers.submit(_prepare, embedder, key, item)) for key, item in pending]
                size = max(1, embedder.batch_size)
                batches = [
                    models.submit(_embed_batch, embedder, prepared[first : first + size])
                    for first in range(0, len(prepared), size)
                ]
                made |= self._collect(batches, bar)
        return made

    def _collect(self, batches: Sequence[Future[dict[str, Outcome]]], bar: Any) -> dict[str, Outcome]:
        """Wait for batches and put their vectors away, also those that come back beside one that failed."""
        made: dict[str, Outcome] = {}
        failure: Exception | None = None
        for batch in batches:
            try:
                outcomes = batch.result()
            except Exception as error:  # noqa: BLE001  (the first is raised below, when all are back)
                failure = failure or error
                continue
            bar.update(len(outcomes))
            made |= outcomes
        good = {key: vector for key, vector in made.items() if isinstance(vector, np.ndarray)}
        self._keep([(image_key(key), "image", key) for key in good], self._stacked(list(good.values())))
        if failure is not None:
            raise failure
        return made

    def _known(self, key: str) -> Vectors | None:
        """Look a query's key up in the memory and in the store's cache."""
        found = MEMORY.get(f"{self.space.key} {key}")
        if found is None and self._cache is not None:
            found = self._cache.get(key)
        return found

    def _keep(self, rows: Sequence[tuple[str, str, str]], found: Vectors) -> None:
        """Remember vectors for (key, kind, text) rows, in the process and in the store."""
        for (key, _, _), vector in zip(rows, found, strict=True):
            MEMORY.put(f"{self.space.key} {key}", vector)
        if self._cache is not None and rows:
            self._cache.put(rows, found)

    def _stacked(self, found: Sequence[Any]) -> Vectors:
        return np.stack(found) if len(found) else np.empty((0, self.space.dim), np.float32)

    def _refuse(self, items: Sequence[Any], failed: Mapping[int, Exception]) -> None:
        """Raise one error that names the pictures that failed."""
        if not failed:
            return
        named = [f"image {n} ({_name(items[n])}): {failed[n]}" for n in sorted(failed)[:3]]
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise ImageError(
            f"{len(failed)} of {len(items)} images cannot be used: {'; '.join(named)}{more}. "
            "Leave them out, or repair them"
        )


def _source(item: Any) -> Any:
    """Return what `images` reads from what a caller has."""
    if type(item) is dict and (item.get("bytes") is not None or item.get("path") is not None):
        return item["bytes"] if item.get("bytes") is not None else Path(item["path"])
    if isinstance(item, str):
        return Path(item)
    return bytes(item) if isinstance(item, bytearray | memoryview) else item


def _name(item: Any) -> str:
    """Name a picture for people."""
    if type(item) is dict and item.get("path"):
        return repr(str(item["path"]))
    return repr(os.fspath(item)) if isinstance(item, str | os.PathLike) else type(item).__name__


def _reason(error: Exception) -> ImageError:
    """Return why a picture cannot be read, without the path that stands beside it."""
    if isinstance(error, ImageError):
        return error
    return ImageError(reason(error))


def _prepare(embedder: Embedder, content_hash: str, item: Any) -> Any:
    """Decode a picture and turn it into the model's input; an ImageError is returned, not raised."""
    try:
        picture = images.read(_source(item))
        if picture.content_hash != content_hash:
            return ImageError("the file was changed while it was read; try again")
        return embedder.prepare(picture.image)
    except (ImageError, OSError) as error:
        return _reason(error)


def _embed_batch(embedder: Embedder, batch: Sequence[tuple[str, Future[Any]]]) -> dict[str, Outcome]:
    """Embed the pictures of a batch as soon as they are prepared."""
    prepared = [(key, future.result()) for key, future in batch]
    made: dict[str, Outcome] = {key: item for key, item in prepared if isinstance(item, ImageError)}
    return made | _embed_prepared(embedder, [pair for pair in prepared if pair[0] not in made])


def _embed_prepared(embedder: Embedder, prepared: Sequence[tuple[str, Any]]) -> dict[str, Outcome]:
    """Embed; when a batch is refused, halve it until the pictures that are to blame stand alone."""
    if not prepared:
        return {}
    try:
        found = checked.pictures(embedder, [item for _, item in prepared])
    except RejectedImagesError as error:
        if len(prepared) == 1:
            return {prepared[0][0]: error}
        middle = len(prepared) // 2
        return _embed_prepared(embedder, prepared[:middle]) | _embed_prepared(embedder, prepared[middle:])
    return {key: vector for (key, _), vector in zip(prepared, found, strict=True)}


def _open_store(store: EmbedStore | str | os.PathLike[str] | None) -> EmbedStore | None:
    """Return a store as it is now; a path is opened once in a process."""
    if store is None or isinstance(store, EmbedStore):
        return store
    path = Path(store).absolute()
    opened = _opened(path, manifest.read(path).store_id)
    opened.refresh()
    return opened


@functools.lru_cache(maxsize=8)
def _opened(path: Path, store_id: str) -> EmbedStore:
    """Open a store; one that was made anew at the same path has another id."""
    return EmbedStore.open(path)


_LOADED: dict[str, Embedder] = {}


def _shared_embedder(name: str | None) -> Embedder:
    """Return an embedder; one that runs here is kept for the process, as its weights take long to load."""
    made = make_embedder(name)
    return made if made.space.backend == "nomic-api" else _LOADED.setdefault(made.space.key, made)
