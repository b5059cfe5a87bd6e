"""Pictures and texts as a caller has them -> their vectors, in order; each is embedded once.

A picture is known by its content hash. It is looked for in the memory of this process, in the rows of a store and
in that store's kept queries; only what none of them has goes to the embedder, and is remembered there. Nothing
here adds rows to a store: that is `adding`'s business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedstore import images
from embedstore.embedders.batches import Outcome, embed, embed_texts
from embedstore.embedders.protocol import Embedder
from embedstore.errors import ImageError
from embedstore.images import turns
from embedstore.ingest.pipeline import CHANGED, ahead, bar, reason
from embedstore.searching.query_vectors import QueryCache
from embedstore.settings import cores
from embedstore.space import Space
from embedstore.storage.rows import Rows
from embedstore.vectors import ArrayCache, Vectors
from embedstore.wording import counted

MEMORY_BYTES = 256 * 2**20
"""Vectors that the process remembers: 83,000 of 768 components. A store has no such limit."""
MEMORY: ArrayCache[Vectors] = ArrayCache(MEMORY_BYTES)
"""What this process has embedded, by space, kind of query, and text or content hash."""


class CachedEmbedder:
    """Finds vectors of one space, and has those made that are not found.

    `embedder` is called only when something is known nowhere. `rows` are those of a store of the same space, whose
    pictures are not embedded again; `cache` is that store's, and keeps what is embedded. `progress` shows a bar on
    stderr while embedding; by default when that is a terminal.
    """

    def __init__(
        self,
        space: Space,
        embedder: Callable[[], Embedder],
        rows: Rows | None = None,
        cache: QueryCache | None = None,
        progress: bool | None = None,
    ) -> None:
        self.space, self._embedder = space, embedder
        self._rows, self._cache, self._progress = rows, cache, progress

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of queries, float32 of shape (n, dim); those not known are embedded together."""
        found = {text: self._known("text", text) for text in texts}
        new = [text for text, vector in found.items() if vector is None]

        def keep(some: Sequence[str], vectors: Vectors) -> None:
            found.update(zip(some, vectors, strict=True))
            self._keep("text", some, vectors)

        if new:
            embed_texts(self._embedder(), new, keep)
        return self._stacked([found[text] for text in texts])

    def pictures(self, items: Sequence[Any]) -> Vectors:
        """Return unit vectors of pictures, float32 of shape (n, dim), in the order given.

        Each is what `images.as_source` takes, or the id of a record of the store.

        Raises ImageError, which names the positions, where pictures cannot be read, or are refused by the service: the
        others are embedded and remembered all the same, unless the files cannot even be opened. Raises EmbedderError
        where the embedder failed: what was embedded before is remembered.
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
        rows = self._rows
        try:
            known = rows.vector_where("id", item) if rows is not None and isinstance(item, str) else None
            if known is None:
                with turns.holding():
                    content_hash = images.content_hash(images.as_source(item))
                known = self._known("image", content_hash)
            if known is None and rows is not None:
                known = rows.vector_where("content_hash", content_hash)
        except (ImageError, OSError) as error:
            return _reason(error)
        return content_hash if known is None else known

    def _embed(self, new: Mapping[str, Any], readers: ThreadPoolExecutor) -> dict[str, Outcome]:
        """Embed pictures by content hash; what is wrong with single ones takes their vector's place."""
        if not new:
            return {}
        embedder = self._embedder()
        done: dict[str, Outcome] = {}

        def ready() -> Iterator[tuple[str, Any] | None]:
            shown = bar(new.items(), len(new), "embedded", self._progress)
            window = 4 * cores() + 2 * embedder.batch_size
            for (key, _), prepared in ahead(readers, functools.partial(_prepare, embedder), shown, window):
                if isinstance(prepared, ImageError):
                    done[key] = prepared
                yield None if key in done else (key, prepared)

        def keep(outcomes: list[tuple[str, Outcome]]) -> None:
            done.update(outcomes)
            good = {key: vector for key, vector in outcomes if isinstance(vector, np.ndarray)}
            self._keep("image", list(good), self._stacked(list(good.values())))

        embed(ready(), lambda: embedder, keep)
        return done

    def _known(self, kind: str, text: str) -> Vectors | None:
        """Look a query's vector up in the memory and in the store's cache."""
        found = MEMORY.get((self.space.key, kind, text))
        return self._cache.get(kind, text) if found is None and self._cache is not None else found

    def _keep(self, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember a vector for each text, in the process and in the store."""
        for text, vector in zip(texts, vectors, strict=True):
            MEMORY.put((self.space.key, kind, text), vector.copy())
        if self._cache is not None and texts:
            self._cache.put(kind, texts, vectors)

    def _stacked(self, found: Sequence[Any]) -> Vectors:
        return np.stack(found) if len(found) else np.empty((0, self.space.dim), np.float32)

    def _refuse(self, items: Sequence[Any], failed: Mapping[int, Exception]) -> None:
        """Raise one error that names the pictures that failed."""
        if not failed:
            return
        named = [f"image {n} ({_name(items[n])}): {failed[n]}" for n in sorted(failed)[:3]]
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise ImageError(
            f"{len(failed)} of {counted(len(items), 'image')} cannot be used: {'; '.join(named)}{more}. "
            "Leave them out, or repair them"
        )


def _name(item: Any) -> str:
    """Name a picture for people."""
    if type(item) is dict and item.get("path"):
        return repr(str(item["path"]))
    return repr(os.fspath(item)) if isinstance(item, str | os.PathLike) else type(item).__name__


def _reason(error: Exception) -> ImageError:
    """Return why a picture cannot be read, without the path that stands beside it."""
    return error if isinstance(error, ImageError) else ImageError(reason(error))


def _prepare(embedder: Embedder, item: tuple[str, Any]) -> Any:
    """Decode a picture of a known hash and turn it into the model's input; an ImageError is returned, not raised."""
    content_hash, source = item
    try:
        with turns.holding():
            picture = images.read(images.as_source(source))
            if picture.content_hash != content_hash:
                return ImageError(CHANGED)
            return embedder.prepare(picture.image)
    except (ImageError, OSError) as error:
        return _reason(error)
