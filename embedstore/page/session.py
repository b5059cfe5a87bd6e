"""A store and a call by name -> its answer, plain values and buffers. The one dispatcher of page, notebook and report.

Each call reads its arguments (`asked`), makes one call of the library, and makes what that returns plain (`telling`).
A scored query keeps the version that it was scored on. Threads may share a session: what is kept is guarded, a reader
never changes; writing takes turns, and so does what goes over all labelled rows, for its memory. How answers travel is
left to the hosts.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore import images
from embedstore.deciding import label_log
from embedstore.deciding.classifier import Classifier
from embedstore.errors import ClassifierError, ClassifierExistsError, ImageError, InputError, told_to_page
from embedstore.page import commands, label_calls, measuring
from embedstore.page.asked import Arguments, Saved, query_of, truth_of
from embedstore.page.pictures import SmallPictures
from embedstore.page.scored_query import KeptQueries, ScoredGone, ScoredQuery
from embedstore.page.telling import (
    ABILITIES,
    Answer,
    as_bytes,
    as_plain,
    told_of_classifier,
    told_of_rows,
    told_of_scored,
    told_of_store,
)
from embedstore.result_files import write_rows
from embedstore.searching.matches import Matches
from embedstore.searching.queries import Concept, Query
from embedstore.searching.reader import Reader
from embedstore.store import EmbedStore
from embedstore.vectors import ArrayCache, Vectors

MOST_ROWS = 500
"""So many rows are told of at once."""
MOST_PIXELS = 100_000_000
"""Of a picture that is sent to be asked with."""
_PICTURES_BYTES = 4 << 20
_CALIBRATED = 32
_EXPORTS = {"csv": "text/csv", "jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
_LABELS = ("labels",)
_WISHES = ("objective", "cost", "min_precision", "min_recall")

CALLS: dict[str, tuple[str, ...]] = {
    "info": (),
    "score": ("query", "where"),
    "suggest": ("scored",),
    "rows": ("scored", "rows"),
    "thumbnail": ("scored", "row"),
    "picture": (),
    "measure": ("scored", *_LABELS),
    "interval": ("scored", *_LABELS, "threshold"),
    "labels": ("scored", *_LABELS),
    "label": ("scored", "row", "answer"),
    "undo": ("scored",),
    "next": ("scored", "threshold", "near", "random"),
    "plan": ("scored", *_LABELS, "min_precision", "min_recall"),
    "calibrate": ("scored", *_LABELS, *_WISHES, "guarantee"),
    "save": ("calibrated", "scored", "threshold", "name", "replace"),
    "classifiers": (),
    "search": ("query", "k", "threshold", "where"),
    "classify": ("query", "threshold", "where", "limit"),
    "export": ("scored", "threshold", "format"),
    "commands": ("scored", "threshold", *_LABELS, *_WISHES, "guarantee", "name"),
    "refresh": (),
}
"""The calls, each with the names of its arguments."""


class Session:
    """A store that a page asks.

    Parameters
    ----------
    store : EmbedStore
    pictures : SmallPictures, optional
        Where small pictures come from; by default they are kept in the user's cache.
    """

    def __init__(self, store: EmbedStore, pictures: SmallPictures | None = None) -> None:
        self.store = store
        self._small = pictures or SmallPictures()
        self._scored = KeptQueries()
        self._pictures: ArrayCache[Vectors] = ArrayCache(_PICTURES_BYTES)
        self._calibrated: dict[int, Classifier] = {}
        self._last = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._measuring = threading.Lock()

    def answer(self, name: str, args: Any = None, buffers: Sequence[Any] = ()) -> Answer:
        """Answer a call.

        Parameters
        ----------
        name : str
            One of `CALLS`.
        args : mapping, optional
            Its arguments, plain values.
        buffers : sequence of bytes-like
            For ``picture`` the bytes of a picture's file.

        Returns
        -------
        dict, list of bytes or memoryview
            Plain JSON values without NaN, and buffers.

        Raises
        ------
        InputError
            There is no such call, or an argument is not as it should be.
        ScoredGone
            The scored query is kept no more.
        EmbedStoreError
            What the library raises.
        """
        if name not in CALLS:
            raise InputError(f"there is no call {str(name)[:40]!r}; there are {', '.join(CALLS)}")
        given = Arguments(name, {} if args is None else args, CALLS[name])
        call: Callable[..., Any] = getattr(self, f"_{name}")
        with told_to_page():
            found = call(given, buffers) if name == "picture" else call(given)
        result, arrays = found if isinstance(found, tuple) else (found, [])
        return as_plain(result), [as_bytes(array) for array in arrays]

    def _info(self, args: Arguments) -> dict[str, Any]:
        reader = self.store.reader
        without = {
            "picture": reader.space.backend == "given",
            "refresh": self.store.folder.pinned is not None,
            **dict.fromkeys(("label", "save"), not os.access(self.store.path, os.W_OK)),
        }
        abilities = [ability for ability in ABILITIES if not without.get(ability)]
        name = self.store.folder.name
        return told_of_store(name, reader, abilities, self._summaries(), self._concepts(reader))

    def _score(self, args: Arguments) -> Answer:
        asked, reader = args.get("query"), self.store.reader
        query = ScoredQuery.of(reader, self._query(asked, reader), args.text("where", ""), asked)
        number = self._scored.keep(query)
        answer, arrays = told_of_scored(query)
        return {"scored": number, **answer}, arrays

    def _suggest(self, args: Arguments) -> dict[str, Any]:
        return measuring.suggest(self._of(args))

    def _rows(self, args: Arguments) -> dict[str, Any]:
        query = self._of(args)
        rows = [query.row(row) for row in args.wholes("rows", MOST_ROWS)]
        return {"rows": told_of_rows(query.reader, rows, query.found.scores[rows].tolist())}

    def _thumbnail(self, args: Arguments) -> Answer:
        query = self._of(args)
        row = query.row(args.whole("row"))

        def neighbours() -> list[int]:
            places = np.flatnonzero(query.order == row)
            first = max(0, int(places[0]) - 8) if len(places) else 0
            return [int(one) for one in query.order[first : first + 256]]

        found = self._small.get(query.reader.rows, row, neighbours)
        return {"missing": found.jpeg is None, "why": found.why}, [] if found.jpeg is None else [found.jpeg]

    def _picture(self, args: Arguments, buffers: Sequence[Any]) -> dict[str, Any]:
        if len(buffers) != 1:
            raise InputError(f"picture needs the bytes of one picture, found {len(buffers)} buffers")
        content = bytes(buffers[0])
        if not content:
            raise ImageError("there is no picture: 0 bytes came")
        read = images.read(content, max_pixels=MOST_PIXELS)
        digest, width, height = read.content_hash, read.width, read.height
        del read  # its pixels, of which the next line makes as many again
        vector = self.store.reader.query_vectors([Query("image", content, "the picture")])[0]
        self._pictures.put(digest, vector)
        return {"picture": digest, "width": width, "height": height}

    def _measure(self, args: Arguments) -> Answer:
        with self._measuring:
            return measuring.measure(self._of(args), args)

    def _interval(self, args: Arguments) -> dict[str, Any]:
        with self._measuring:
            return measuring.interval(self._of(args), args)

    def _plan(self, args: Arguments) -> dict[str, Any]:
        return measuring.plan(self._of(args), args)

    def _labels(self, args: Arguments) -> Answer:
        with self._measuring:
            return label_calls.labels(self._of(args), args)

    def _label(self, args: Arguments) -> dict[str, Any]:
        query = self._of(args)
        with self._writing:
            return label_calls.label(query, args)

    def _undo(self, args: Arguments) -> dict[str, Any]:
        query = self._of(args)
        with self._writing:
            return label_calls.undo(query)

    def _next(self, args: Arguments) -> dict[str, Any]:
        query = self._of(args)
        with self._writing:
            return label_calls.following(query, args)

    def _calibrate(self, args: Arguments) -> dict[str, Any]:
        made = measuring.calibrate(self._of(args), args)
        with self._lock:
            self._last += 1
            number = self._last
            self._calibrated[number] = made
            while len(self._calibrated) > _CALIBRATED:
                del self._calibrated[next(iter(self._calibrated))]
        return {"calibrated": number, **measuring.in_words(made)}

    def _save(self, args: Arguments) -> dict[str, Any]:
        name, replace = args.text("name"), args.flag("replace", False)
        classifier = self._to_save(args)
        named = dataclasses.replace(classifier, name=name)
        with self._writing:
            if not replace and name in self.store.classifiers():
                raise ClassifierExistsError(
                    f"the store keeps a classifier {name!r} already; choose another name, or replace it"
                )
            self.store.save_classifier(named)
        return {"name": name, "threshold": named.threshold, "measured": bool(named.n)}

    def _classifiers(self, args: Arguments) -> dict[str, Any]:
        return {"classifiers": self._summaries()}

    def _search(self, args: Arguments) -> dict[str, Any]:
        reader = self.store.reader
        asked, where = self._query(args.get("query"), reader), args.text("where", "").strip() or None
        k, threshold = args.whole("k", 24, least=1, most=MOST_ROWS), args.number("threshold", None)
        if isinstance(asked, Concept):
            found = reader.search_many([asked], k, threshold, where)[0]
        else:
            limit = -math.inf if threshold is None else threshold
            found = reader.exceeding(asked.scores_in(reader)[0], limit, asked.name, where)[:k]
        return {"rows": _of_matches(reader, found)}

    def _classify(self, args: Arguments) -> dict[str, Any]:
        reader = self.store.reader
        asked, where = self._query(args.get("query"), reader), args.text("where", "").strip() or None
        limit = args.whole("limit", MOST_ROWS, most=MOST_ROWS)
        if isinstance(asked, Concept):
            found = reader.classify(asked, args.threshold(), where)
        else:
            threshold = args.number("threshold", asked.threshold)
            assert threshold is not None
            found = reader.exceeding(asked.scores_in(reader)[0], threshold, asked.name, where)
        return {"n": len(found), "rows": _of_matches(reader, found[:limit])}

    def _export(self, args: Arguments) -> Answer:
        query, form = self._of(args), args.one_of("format", tuple(_EXPORTS), "csv")
        matches = query.reader.exceeding(query.found.scores, args.threshold(), query.label, query.where)
        words = "".join(letter if letter.isalnum() else "-" for letter in query.concept).strip("-") or "matches"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"matches.{form}"
            write_rows(matches.batches(), file)
            content = _mapped(file)
        pa.default_memory_pool().release_unused()
        return {"name": f"{words[:60]}.{form}", "type": _EXPORTS[form], "n": len(matches)}, [content]

    def _commands(self, args: Arguments) -> dict[str, Any]:
        query = self._of(args)
        return commands.written(
            self.store.location,
            query,
            args.threshold(),
            truth_of(args.get("labels")),
            measuring.wishes(query, args),
            args.text("name", ""),
        )

    def _refresh(self, args: Arguments) -> dict[str, Any]:
        self.store.refresh()
        return self._info(args)

    def _of(self, args: Arguments) -> ScoredQuery:
        """Return the scored query that a call is about."""
        return self._scored.get(args.whole("scored"))

    def _query(self, asked: Any, reader: Reader) -> Concept | Classifier:
        """Read a query, or find a classifier of one class."""
        found = query_of(asked, self._pictures.get)
        if not isinstance(found, Saved):
            return found
        classifier = self.store.classifier(found.name)
        if found.label is not None:
            classifier = classifier.of_class(found.label)
        classifier.require_space(reader.space)
        assert classifier.target is not None  # ClassifierError where there are several
        return classifier

    def _to_save(self, args: Arguments) -> Classifier:
        """Return the calibrated classifier that is to be saved, or one of a threshold that nobody has measured."""
        if args.get("calibrated") is not None:
            number = args.whole("calibrated")
            with self._lock:
                found = self._calibrated.get(number)
            if found is None:
                raise ScoredGone(f"the calibration {number} is not kept any more; calibrate again")
            return found
        query, threshold = self._of(args), args.threshold()
        if threshold == query.found.threshold and isinstance(query.asked, Classifier):
            return query.asked
        bare = query.found.classifier
        target = dataclasses.replace(
            bare.target, threshold=threshold, metrics={}, intervals={}, prediction_intervals={}, summary=None
        )
        return Classifier(bare.name, bare.space, (target,), store_id=query.reader.store_id)

    def _summaries(self) -> list[dict[str, Any]]:
        """Describe the classifiers that the store keeps; of one that cannot be read the name and why."""
        found = []
        for name in self.store.classifiers():
            try:
                found.append(told_of_classifier(self.store.classifier(name)))
            except ClassifierError as error:
                nothing: dict[str, Any] = {"mode": "", "classes": [], "created_at": "", "validation": ""}
                found.append({"name": name, **nothing, "error": str(error)})
        return found

    def _concepts(self, reader: Reader) -> list[dict[str, Any]]:
        """Count the labels of each concept."""
        return [
            {"concept": history.concept, **label_calls.counts(reader.rows, history)}
            for history in label_log.histories(reader.ledger, None, reader.rows)
        ]


def _of_matches(reader: Reader, matches: Matches) -> list[dict[str, Any]]:
    rows = reader.rows.lookup("id").first_of_each(matches.id).tolist() if len(matches) else []
    return told_of_rows(reader, rows, matches.score.tolist())


def _mapped(file: Path) -> bytes | memoryview:
    """Return the bytes of a file that is deleted next: by its pages, which are not this process's own memory."""
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return b""
        if os.name == "nt":  # where a mapped file cannot be deleted
            return opened.read()
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
