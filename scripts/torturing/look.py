"""What a store answers, all of it, as plain values that two stores can be compared by.

`look` opens a store anew, verifies it deeply, and asks for everything: rows with their vectors, what waits in the
ledger, searches, classifiers and their decisions, queries asked before.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

QUERIES = ("a red thing", "something blue")
"""Texts whose vectors the templates keep."""


class DiffersError(Exception):
    """The store gives two answers to one question."""


def look(path: str) -> dict[str, Any]:
    """Return what the store at a path answers.

    ``problems`` and ``answers``, or ``error`` (one of embedstore's own) or ``crash`` (any other) where it cannot be
    opened or verified; ``none`` where there is no store. Each answer stands by itself: what cannot be given is a text
    that starts with "error: ", "crash: " or, where two ways to the same answer part, "differs: ".
    """
    store, seen = verified(path)
    return seen if store is None else {**seen, "answers": answers(store)}


def verified(path: str) -> tuple[Any, dict[str, Any]]:
    """Return an open store, None where it cannot be opened, and what `verify` says of it; see `look`."""
    from embedstore.errors import EmbedStoreError
    from embedstore.store import EmbedStore

    if not (Path(path) / "store.json").exists():
        return None, {"none": True}
    try:
        store = EmbedStore.open(path)
        return store, {"problems": store.verify(deep=True).problems}
    except EmbedStoreError as error:
        return None, {"error": str(error)}
    except Exception:  # noqa: BLE001  (any other is what is looked for)
        return None, {"crash": traceback.format_exc()}


def answers(store: Any, texts: Sequence[str] = QUERIES) -> dict[str, Any]:
    """Return every answer of an open store; the texts are those whose vectors it keeps."""
    asked: dict[str, Callable[[], Any]] = {
        "rows": lambda: rows(store),
        "twice": lambda: _twice(store),
        "pictures": lambda: sorted(filter(None, set(store.to_table(["content_hash"]).column(0).to_pylist()))),
        "paid": lambda: paid(store),
        "searches": lambda: searches(store),
        "classifiers": lambda: {name: _classifier(store, name) for name in store.classifiers()},
        "decisions": lambda: {name: _decisions(store, name) for name in store.classifiers()},
        "queries": lambda: [_digest(store.query_vectors([text])) for text in texts] if _asked_before(store) else [],
        "space": lambda: [str(store.space), store.id, store.created_at],
    }
    return {name: asking(answer) for name, answer in asked.items()}


def asking(answer: Callable[[], Any]) -> Any:
    """Return an answer, or how it failed."""
    from embedstore.errors import EmbedStoreError

    try:
        return answer()
    except EmbedStoreError as error:
        return f"error: {error}"
    except DiffersError as error:
        return f"differs: {error}"
    except Exception:  # noqa: BLE001  (any other is what is looked for)
        return f"crash: {traceback.format_exc()}"


def rows(store: Any) -> dict[str, str]:
    """Return a digest of each row, its vector and metadata to the bit, by id."""
    table = store.to_table([*(name for name in store.columns if name != "added_at"), "embedding"])
    vectors = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(table), store.space.dim)
    mapped = store.rows.vectors(np.arange(len(table)))
    if not np.array_equal(vectors.view(np.uint8), mapped.view(np.uint8)):
        raise DiffersError("decoded and mapped vectors differ")
    metadata = table.drop_columns(["embedding"]).to_pylist()
    return {
        row["id"]: _digest(vector, {name: value for name, value in sorted(row.items()) if value is not None})
        for row, vector in zip(metadata, vectors, strict=True)
    }


def paid(store: Any) -> list[str]:
    """Return the rows that wait in the ledger: the hash of their picture, their id, a digest of their vector."""
    found = []
    for batch in store.folder.ledger.paid():
        if batch.table is None:
            raise DiffersError("a batch in the ledger is damaged")
        found += [
            f"{row['content_hash']} {row['id']} {_digest(np.array(row['embedding'], np.float32))}"
            for row in batch.table.to_pylist()
        ]
    return sorted(found)


def searches(store: Any) -> list[Any]:
    """Return what some searches find, and whether it is what brute force finds."""
    table = store.to_table(["id", "embedding"])
    ids = table.column("id").to_pylist()
    vectors = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(ids), store.space.dim)
    found: list[Any] = []
    for seed in range(3):
        query = np.random.default_rng(seed).standard_normal(store.space.dim).astype(np.float32)
        query /= np.linalg.norm(query)
        matches = store.search(query, k=5)
        own = store.query_vectors([query])[0]
        best = brute_force(ids, vectors, own, 5)
        got = list(zip(matches.id, [float(score) for score in matches.score], strict=True))
        if got != best:
            raise DiffersError(f"search found {got}, brute force {best}")
        found.append([[name, score] for name, score in got])
    return found


def brute_force(ids: list[str], vectors: Any, query: Any, k: int) -> list[tuple[str, float]]:
    """Return the nearest rows by the plain formula: score descending, id ascending."""
    scores = np.vecdot(vectors, query) if len(ids) else np.empty(0, np.float32)
    order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
    return [(ids[row], float(scores[row])) for row in order]


def _classifier(store: Any, name: str) -> str:
    fields = store.classifier(name).to_dict()
    return _digest({key: value for key, value in fields.items() if key not in ("created_at", "store_version")})


def _decisions(store: Any, name: str) -> str:
    matches = store.classify(store.classifier(name))
    return _digest(matches.id, matches.score)


def _asked_before(store: Any) -> bool:
    return len(store.reader.queries) > 0


def _twice(store: Any) -> list[str]:
    """Return what stands in several rows and must not: ids and uris."""
    table = store.to_table(["id", "uri"])
    return [
        f"{name} {value}"
        for name in ("id", "uri")
        for value, count in Counter(table.column(name).to_pylist()).items()
        if count > 1
    ]


def _digest(*values: Any) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()[:20]
