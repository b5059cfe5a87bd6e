"""The page in a notebook: an anywidget that runs the joined module, and answers its messages from a store.

Every message is a call of `session`, which answers as it does a server's; what the module shows is left to the module.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.label_files import split_value
from embedstore.errors import EmbedStoreError, InputError, MissingDependencyError, did_you_mean
from embedstore.measures.curves import as_threshold
from embedstore.page.joining import module_text, style_text
from embedstore.page.session import Session
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore

if TYPE_CHECKING:
    import anywidget

_log = logging.getLogger("embedstore")

AT_ONCE = 4
"""How many calls that only read are answered at a time."""
WRITING = frozenset({"label", "undo", "next", "save", "refresh", "calibrate"})
"""Calls that are answered one after the other, in the order in which they were made."""
MOST_ROWS = 350_000
"""A query over more rows than these makes a message that Jupyter's server drops, unless it is told otherwise: it lets
3 MB pass in 3 seconds, and a row takes 8 bytes."""


def view(
    store: EmbedStore,
    query: Any = None,
    *,
    threshold: float | None = None,
    where: str | None = None,
    labels: str | None = None,
) -> anywidget.AnyWidget:
    """Show a store in a notebook, as `embedstore serve` does in a browser: drag the threshold, look, label, keep.

    The panel needs the kernel for all but the slider. A message is read when no cell runs; it is then answered in a
    thread of its own, so that a call that takes long (a calibration, a first query of a model that has to be loaded)
    keeps neither cells nor pictures waiting. Labels, undo, next rounds, calibrations and saving are answered one after
    the other, in the order in which they were asked for. Labels and classifiers that are made in the panel are in the
    store at once: ``store.labels(...)``, ``store.classifier(...)``.

    Jupyter's server drops messages beyond 3 MB in 3 seconds; over more than 350,000 rows that is a query's scores.
    There, start it with ``--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e9``; a warning says so.

    Parameters
    ----------
    store : EmbedStore
    query : str, path, picture, Query or Classifier, optional
        What to show first, as `EmbedStore.search` takes it; or a classifier that the store has saved. No vector.
    threshold : float, optional
        Where the slider stands first; by default where the classifier, the labels or the scores propose.
    where : str, optional
        A SQL condition that keeps the rows to look at.
    labels : str, optional
        ``"COLUMN=VALUE"``: what is true, to measure by; by default the store's own labels of the query.

    Returns
    -------
    anywidget.AnyWidget
        The last line of a cell shows it. ``close()`` lets go of what it keeps in memory.

    Raises
    ------
    MissingDependencyError
        anywidget is not installed.
    QueryError
        A query that cannot be read.
    InputError
        A vector, a condition that is no text, labels of another form, a threshold that is no number, a classifier that
        the store has not saved.

    Examples
    --------
    >>> embedstore.view(store, "dog", labels="category=dog")   # doctest: +SKIP
    """
    widget_type = _widget_type()
    session = Session(store)
    start: dict[str, Any] = {}
    if query is not None:
        start["query"] = _query_json(session, store, query)
    if threshold is not None:
        start["threshold"] = as_threshold(threshold)
    if where is not None:
        if not isinstance(where, str):
            raise InputError(f"where is a SQL condition here, a text; found a {type(where).__name__}")
        start["where"] = where
    if labels is not None:
        start["labels"] = _labels_json(store, labels)
    if len(store) > MOST_ROWS:
        _log.warning(
            "the scores of %s rows make a message that Jupyter's server drops by default; start it with "
            "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e9",
            f"{len(store):,}",
        )
    widget: anywidget.AnyWidget = widget_type(session, start or None)
    return widget


@functools.cache
def _widget_type() -> Any:
    """Return the widget's class, which is made when anywidget is first needed."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise MissingDependencyError('a view needs anywidget: pip install "embedstore[notebook]"') from error

    class StoreView(anywidget.AnyWidget):
        """One panel."""

        _esm = traitlets.Unicode().tag(sync=True)
        _css = traitlets.Unicode().tag(sync=True)
        start = traitlets.Dict(allow_none=True).tag(sync=True)

        def __init__(self, session: Session, start: dict[str, Any] | None) -> None:
            self._session = session
            self._readers = ThreadPoolExecutor(AT_ONCE, "embedstore-view")
            self._writer = ThreadPoolExecutor(1, "embedstore-view-in-order")
            super().__init__(_esm=module_text(), _css=style_text(), start=start)
            self.on_msg(_answer_later)

        def close(self) -> None:
            """Close the panel; calls that are not begun are dropped."""
            for threads in (self._readers, self._writer):
                threads.shutdown(wait=False, cancel_futures=True)
            super().close()

    return StoreView


def _answer_later(widget: Any, message: Any, buffers: Sequence[Any]) -> None:
    """Take a message of the module, and have it answered by a thread."""
    if not isinstance(message, Mapping) or "id" not in message:
        return  # of another front end: nobody waits for an answer
    threads = widget._writer if message.get("call") in WRITING else widget._readers
    threads.submit(_answer, widget, dict(message), [bytes(buffer) for buffer in buffers])


def _answer(widget: Any, message: dict[str, Any], buffers: list[bytes]) -> None:
    """Answer a message: a result with its buffers, or an error by type and in words."""
    sent: list[bytes] = []
    try:
        result, sent = widget._session.answer(message.get("call"), message.get("args") or {}, buffers)
        answer = {"id": message["id"], "ok": True, "result": result}
    except EmbedStoreError as error:
        told = {"type": type(error).__name__, "message": str(error)}
        answer = {"id": message["id"], "ok": False, "error": told}
    except Exception as error:  # noqa: BLE001  (a call without an answer leaves the panel waiting)
        _log.exception("the view could not answer %r", message.get("call"))
        told = {"type": type(error).__name__, "message": f"this went wrong in the kernel: {error}"}
        answer = {"id": message["id"], "ok": False, "error": told}
    widget.send(answer, sent)


def _query_json(session: Session, store: EmbedStore, query: Any) -> dict[str, Any]:
    """Return what was asked in the form in which the module asks it; pictures are handed to the session."""
    if isinstance(query, Classifier):
        if query.name not in store.classifiers() or store.classifier(query.name).to_dict() != query.to_dict():
            raise InputError(f"the store has not saved the classifier {query.name!r} as it is; save it first")
        return {"classifier": query.name, "class": query.labels[0] if len(query.labels) > 1 else None}
    asked = Query.of(query)
    terms = asked.value if asked.kind == "mix" else [(1.0, asked)]
    return {
        "terms": [{**_term(session, one), "weight": weight} for weight, one in terms],
        "against": [],
        "template": None,
    }


def _term(session: Session, query: Query) -> dict[str, Any]:
    if query.kind in ("text", "id"):
        return {query.kind: query.value}
    if query.kind == "image":
        kept, _ = session.answer("picture", {}, [_picture_bytes(query.value)])
        return {"picture": kept["picture"]}
    raise InputError(f"a view is asked by texts, pictures and ids, found {query.label}; use store.sweep for vectors")


def _picture_bytes(picture: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    if isinstance(picture, bytes):
        return picture
    import io

    from embedstore.images import read

    buffer = io.BytesIO()
    read(picture).image.save(buffer, "PNG")
    return buffer.getvalue()


def _labels_json(store: EmbedStore, labels: Any) -> dict[str, str]:
    column, value = split_value(labels) if isinstance(labels, str) else ("", None)
    if value is None:
        raise InputError(f"labels of a view are COLUMN=VALUE, such as 'category=bird'; found {labels!r}")
    if column not in store.columns:
        guess = did_you_mean(column, store.columns)
        known = f"the columns are {', '.join(store.columns)}"
        raise InputError(f"there is no column {column!r}; {known}" + (f".{guess}" if guess else ""))
    return {"column": column, "value": value}
