"""Pictures and texts as a caller has them -> their vectors, in order; each is embedded once.

A picture is known by its content hash. It is looked for in the memory of this process, in the rows of a store and
in the kept vectors of that store or of the user (`user_vectors`); only what none of them has goes to the embedder, and
is kept there. Nothing here adds rows to a store: that is `adding`'s business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedstore import images
from embedstore.embedders.batches import Outcome, embed, embed_texts
from embedstore.embedders.protocol import Embedder
from embedstore.embedders.registry import default_model, make_embedder, space_of
from embedstore.errors import ImageError, OfflineError
from embedstore.images import turns
from embedstore.ingest.executor import CHANGED, ahead, reason
from embedstore.ingest.pipeline import bar
from embedstore.ingest.user_vectors import Claims, UserVectors
from embedstore.searching.query_vectors import QueryCache
from embedstore.settings import MODEL, cores
from embedstore.sources.web import download, is_url, without_password
from embedstore.space import Space
from embedstore.storage.rows import Rows
from embedstore.vectors import ArrayCache, Vectors
from embedstore.wording import counted

MEMORY_BYTES = 256 * 2**20
"""Vectors that the process remembers: 83,000 of 768 components. A store has no such limit."""
MEMORY: ArrayCache[Vectors] = ArrayCache(MEMORY_BYTES)
"""What this process has embedded, by space, kind of query, and text or content hash."""

_LOADED: dict[str, Embedder] = {}


class CachedEmbedder:
    """Finds vectors of one space, and has those made that are not found.

    `embedder` is called only when something is known nowhere. `rows` are those of a store of the same space, whose
    pictures are not embedded again; `cache` is that store's, or the user's, and keeps what is embedded. With `claims`
    other processes that have the same claims wait for what this one is embedding, and it for theirs. `progress` shows
    a bar on stderr while embedding; by default when that is a terminal.
    """

    def __init__(
        self,
        space: Space,
        embedder: Callable[[], Embedder],
        rows: Rows | None = None,
        cache: QueryCache | None = None,
        claims: Claims | None = None,
        progress: bool | None = None,
    ) -> None:
        self.space, self._embedder = space, embedder
        self._rows, self._cache, self._claims, self._progress = rows, cache, claims, progress

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of queries, float32 of shape (n, dim); those not known are embedded together."""
        found: dict[str, Outcome] = dict(self._known("text", dict.fromkeys(texts)))

        def make(new: Sequence[str]) -> dict[str, Outcome]:
            made: dict[str, Outcome] = {}

            def keep(some: Sequence[str], vectors: Vectors) -> None:
                made.update(zip(some, vectors, strict=True))
                self._keep("text", some, vectors)

            embed_texts(self._embedder(), new, keep)
            return made

        found |= self._paid_once("text", [text for text in dict.fromkeys(texts) if text not in found], make)
        return self._stacked([found[text] for text in texts])

    def pictures(self, items: Sequence[Any]) -> Vectors:
        """Return unit vectors of pictures, float32 of shape (n, dim), in the order given.

        Each is what `images.as_source` takes, a URL, which is downloaded, or the id of a record of the store. An item
        that is embedded is taken twice from the sequence, which need not hold them all in memory.

        Raises ImageError, which names the positions, where pictures cannot be read, or are refused by the service: the
        others are embedded and remembered all the same, unless the files cannot even be opened. Raises EmbedderError
        where the embedder failed: what was embedded before is remembered.
        """
        with ThreadPoolExecutor(cores(), thread_name_prefix="embedstore-read") as readers:
            seen = [found for _, found in ahead(readers, self._look_up, items, 8 * cores())]
            self._refuse(items, {n: key for n, key in enumerate(seen) if isinstance(key, ImageError)})
            places: dict[str, int] = {}
            downloads: dict[str, bytes] = {}
            for position, found in enumerate(seen):
                if isinstance(found, tuple):
                    seen[position], downloads[found[0]] = found
                if isinstance(key := seen[position], str):
                    places.setdefault(key, position)
            known: dict[str, Outcome] = dict(self._known("image", places))

            def make(new: Sequence[str]) -> dict[str, Outcome]:
                pairs = ((key, downloads[key] if key in downloads else items[places[key]]) for key in new)
                return self._embed(pairs, len(new), readers)

            known |= self._paid_once("image", [key for key in places if key not in known], make)
        self._refuse(items, {places[key]: found for key, found in known.items() if isinstance(found, Exception)})
        return self._stacked([known[key] if isinstance(key, str) else key for key in seen])

    def _look_up(self, item: Any) -> Vectors | str | tuple[str, bytes] | ImageError:
        """Return a picture's vector where the store has it, else its content hash, or what is wrong with it.

        Of a URL the bytes come too.
        """
        rows = self._rows
        try:
            known = rows.vector_where("id", item) if rows is not None and isinstance(item, str) else None
            if known is not None:
                return known
            with turns.holding():
                source = download(item) if _is_url(item) else images.as_source(item)
                content_hash = images.content_hash(source)
            known = rows.vector_where("content_hash", content_hash) if rows is not None else None
        except OfflineError:  # no picture of these can be had
            raise
        except (ImageError, OSError) as error:
            return _reason(error)
        if known is not None:
            return known
        return (content_hash, source) if _is_url(item) and isinstance(source, bytes) else content_hash

    def _paid_once(
        self, kind: str, keys: Sequence[str], make: Callable[[Sequence[str]], dict[str, Outcome]]
    ) -> dict[str, Outcome]:
        """Have `make` embed what is known nowhere, and wait for what other processes are embedding.

        What another has given up, or could not embed, is tried here.
        """
        if not keys or self._claims is None:
            return make(keys) if keys else {}
        done: dict[str, Outcome] = {}
        open_keys = list(keys)
        while open_keys:
            with self._claims.begun(kind) as claim:
                mine = claim.take(open_keys)
                done |= self._known(kind, mine)  # kept by another between the look-up and the claim
                if new := [key for key in mine if key not in done]:
                    done |= make(new)
            open_keys = [key for key in open_keys if key not in done]
            if open_keys:
                claim.wait_for(open_keys)
        return done

    def _embed(self, new: Iterable[tuple[str, Any]], count: int, readers: ThreadPoolExecutor) -> dict[str, Outcome]:
        """Embed pictures by content hash; what is wrong with single ones takes their vector's place."""
        embedder = self._embedder()
        done: dict[str, Outcome] = {}

        def ready() -> Iterator[tuple[str, Any] | None]:
            shown = bar(new, count, "embedded", self._progress)
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

    def _known(self, kind: str, texts: Iterable[str]) -> dict[str, Vectors]:
        """Look vectors up in the memory and among those that are kept."""
        found: dict[str, Vectors] = {}
        unseen = []
        for text in texts:
            vector = MEMORY.get((self.space.key, kind, text))
            if vector is None:
                unseen.append(text)
            else:
                found[text] = vector
        return found | self._cache.get_many(kind, unseen) if unseen and self._cache is not None else found

    def _keep(self, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember a vector for each text, in the process and where vectors are kept."""
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


def without_store(
    model: str | Embedder | None = None, *, keep: bool = True, progress: bool | None = None
) -> CachedEmbedder:
    """Return what embeds with a model, by default the one that `make_embedder` would take, and without a store.

    With `keep` the vectors are the user's, see `UserVectors`; else they are forgotten with the process. Raises
    ModelNotFoundError where no model is named and none is ready.
    """
    chosen = (os.environ.get(MODEL) or default_model()) if model is None else model
    if isinstance(chosen, str):
        space, made = space_of(chosen), functools.partial(_shared_embedder, chosen)
    else:
        space, made = chosen.space, functools.partial(_itself, chosen)
    if not keep:
        return CachedEmbedder(space, made, progress=progress)
    kept = UserVectors(space)
    return CachedEmbedder(space, made, cache=kept.cache, claims=kept.claims, progress=progress)


def _itself(embedder: Embedder) -> Embedder:
    return embedder


def _shared_embedder(name: str) -> Embedder:
    """Return an embedder; one that runs here is kept for the process, as its weights take long to load."""
    made = make_embedder(name)
    return made if made.space.backend == "nomic-api" else _LOADED.setdefault(made.space.key, made)


def _is_url(item: Any) -> bool:
    return isinstance(item, str) and is_url(item)


def _name(item: Any) -> str:
    """Name a picture for people."""
    if type(item) is dict and item.get("path"):
        return repr(str(item["path"]))
    if _is_url(item):
        return repr(without_password(item))
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
