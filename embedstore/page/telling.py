"""What the library knows -> what a page is told of it: plain values that JSON has, and buffers.

Made for whoever shows it: `session` answers with it over HTTP and in a notebook, `embedded` writes it into a report.
What it looks like is left to the scripts of the page.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from embedstore import __version__
from embedstore.deciding.classifier import Classifier
from embedstore.page.scored_query import ScoredQuery
from embedstore.result_files import to_dicts
from embedstore.searching.reader import Reader

Answer = tuple[dict[str, Any], list[Any]]
"""Plain values, and buffers."""
ABILITIES = ("query", "picture", "label", "calibrate", "save", "export", "commands", "refresh", "compare")
"""What a host may be able to do; the page shows no control of what it is not."""


def told_of_store(
    name: str,
    reader: Reader,
    abilities: Collection[str],
    classifiers: Sequence[dict[str, Any]],
    concepts: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return what a page says of a store, as `info` answers: `abilities` are those of `ABILITIES` that the host has."""
    fields = (reader.rows.snapshot.schema.field(column) for column in reader.rows.columns)
    return {
        "name": name,
        "n_rows": len(reader),
        "version": reader.version,
        "space": reader.space.to_dict(),
        "model": reader.space.model,
        "columns": [{"name": field.name, "type": str(field.type)} for field in fields],
        "classifiers": list(classifiers),
        "concepts": list(concepts),
        "capabilities": {ability: ability in abilities for ability in ABILITIES},
        "embedstore": __version__,
    }


def told_of_scored(query: ScoredQuery) -> Answer:
    """Return what a page says of a scored query, its scores, highest first, and their rows."""
    scores = query.descending
    threshold, why = query.start(scores)
    answer = {
        "query": query.label,
        "concept": query.concept,
        "classifier": told_of_classifier(query.asked) if isinstance(query.asked, Classifier) else None,
        "where": query.where or "",
        "version": query.reader.version,
        "n": len(scores),
        "n_rows": len(query.reader),
        "low": float(scores[-1]) if len(scores) else None,
        "high": float(scores[0]) if len(scores) else None,
        "start": {"threshold": threshold, "why": why},
        "doubts": query.doubts,
    }
    return answer, [scores.astype("<f4", copy=False), query.order.astype("<u4", copy=False)]


def told_of_classifier(classifier: Classifier) -> dict[str, Any]:
    """Return what a page says of a classifier."""
    classes = [
        {
            "label": target.label,
            "threshold": target.threshold,
            "queries": list(target.queries),
            "figures": dict(target.figures),
        }
        for target in classifier.targets
    ]
    return {
        "name": classifier.name,
        "mode": classifier.mode,
        "classes": classes,
        "created_at": classifier.created_at,
        "validation": classifier.validation,
    }


def told_of_rows(reader: Reader, rows: Sequence[int], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return all that is known of rows, each with its score."""
    if not rows:
        return []
    table = reader.rows.take(np.array(rows, np.int64))
    found = []
    for row, score, values in zip(rows, scores, to_dicts(table), strict=True):
        about = {"row": int(row), "id": values.get("id"), "uri": values.get("uri"), "score": float(score)}
        found.append({**about, "values": values})
    return found


def as_plain(value: Any) -> Any:
    """Return a value as JSON has it: times as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(name): as_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(one) for one in value]
    if isinstance(value, np.generic):
        return as_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def as_bytes(array: Any) -> bytes | memoryview:
    """Return what an array holds, without a copy."""
    if isinstance(array, bytes | memoryview):
        return array
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""
