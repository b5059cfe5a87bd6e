"""A classifier, its scored rows and labels -> what a report holds for the module: answers to its calls, and pictures.

Whoever reads the report has no store: what `session` would answer is worked out here once, written down, and read by
``static/report_host.js``. The page around it is made by `report`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.labels import Labelled
from embedstore.deciding.review import boundary, errors_of, place_of
from embedstore.errors import ImageError
from embedstore.files import holder_of
from embedstore.images import thumbnail
from embedstore.measures.curves import Curve
from embedstore.page.label_calls import told_of_labelled
from embedstore.page.measuring import told_of_curve
from embedstore.page.pictures import as_embedded
from embedstore.page.scored_query import ScoredQuery
from embedstore.page.telling import (
    Answer,
    as_plain,
    told_of_classifier,
    told_of_rows,
    told_of_scored,
    told_of_store,
)
from embedstore.searching.reader import Reader
from embedstore.sources import pictures_at
from embedstore.vectors import Positions

MOST_ROWS = 1_000_000
"""Of more scored rows every second one is told of, or every third, and so on."""
SIDE = 160
"""The longer side of a picture, in pixels."""
QUALITY = 80
_FIRST = 24
"""So many of the highest scores have pictures: what the module shows at first."""
_NAMES = {"f4": "Float32Array", "f8": "Float64Array", "u4": "Uint32Array", "u1": "Uint8Array"}


def data_of(
    classifier: Classifier,
    classes: Sequence[tuple[ScoredQuery, Labelled, Curve]],
    shown: Collection[int],
    most: int,
) -> dict[str, Any]:
    """Return what a report holds, as plain values.

    Parameters
    ----------
    classifier : Classifier
    classes : sequence of (ScoredQuery, Labelled, Curve)
        One for each class that the report is about, with the labels that its curve rests on.
    shown : collection of int
        Rows whose pictures the page shows anyhow: the module takes them from there.
    most : int
        Pictures for each class, at most.
    """
    reader = classes[0][0].reader
    chosen = [chosen_rows(query, most) for query, _, _ in classes]
    known = np.unique(np.concatenate([*chosen, np.array([*shown], np.int64)])).astype(np.int64)
    told = told_of_rows(reader, known.tolist(), [0.0] * len(known))
    small = small_pictures(reader, [row["uri"] for row in told if row["row"] not in shown])
    return {
        "info": as_plain(told_of_store(place_of(reader), reader, (), [told_of_classifier(classifier)], [])),
        "panels": [_panel(*one) for one in classes],
        "rows": {row["row"]: as_plain({name: row[name] for name in ("id", "uri", "values")}) for row in told},
        "pictures": {row["row"]: as_base64(small[row["uri"]]) for row in told if row["uri"] in small},
    }


def chosen_rows(query: ScoredQuery, most: int) -> Positions:
    """Return the rows that have a picture, at most `most`: around the threshold, the worst mistakes, a spread of all.

    Two fifths are of both sides of the threshold, a fifth false positives, a fifth false negatives, if there are so
    many; the others the highest scores, and then evenly spaced ones.
    """
    found, order = query.found, query.order.astype(np.int64)
    near = order[np.sort(boundary(found.scores[order], found.threshold, most * 2 // 5))]
    labelled = found.labelled
    errors = errors_of(found.scores[labelled.positions], labelled.values, found.threshold)
    mistakes = [labelled.positions[some[: most // 5]] for some in errors]
    chosen = dict.fromkeys(np.concatenate([near, *mistakes, order[:_FIRST]]).tolist())
    others = order[~np.isin(order, list(chosen))]
    spare = min(most - len(chosen), len(others))
    if spare > 0:
        chosen.update(dict.fromkeys(others[np.linspace(0, len(others) - 1, spare).astype(np.int64)].tolist()))
    return np.array(list(chosen)[:most], dtype=np.int64)


def small_pictures(reader: Reader, uris: Iterable[str], side: int = SIDE) -> dict[str, bytes]:
    """Return small JPEGs of the pictures at `uris`, by uri; those that are not to be had are left out.

    So are files that are not what was embedded: a report is passed on, and a row must not bring any file into it.
    """
    wanted = list(uris)
    rows = reader.rows.take(reader.rows.lookup("uri").first_of_each(wanted), ["content_hash"])
    digests = dict(zip(wanted, rows.column("content_hash").to_pylist(), strict=True))
    small = {}
    for uri, source in pictures_at(wanted, reader.rows.thumbnails_at).items():
        try:
            original = as_embedded(source, digests[uri] or "") if holder_of(uri) is not None else (source, "")
            if original is not None:
                small[uri] = thumbnail(original[0], side, quality=QUALITY)
        except (ImageError, OSError):
            continue  # shown as missing, as one that is gone is
    return small


def as_base64(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode("ascii")


def as_json(data: Any) -> str:
    """Return JSON that may stand in a script of a page: no text in it can end the script, or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _panel(query: ScoredQuery, rests: Labelled, curve: Curve) -> dict[str, Any]:
    """Return the answers about one class."""
    name, label = query.found.classifier.name, query.concept
    return {
        "label": label,
        "query": query.shown,
        "name": name,
        "threshold": query.found.threshold,
        "score": _written(_scored(query)),
        "measure": _written(_measured(query.found.labelled, rests, curve)),
        "labels": _written(told_of_labelled(label, query.found.labelled)),
    }


def _scored(query: ScoredQuery) -> Answer:
    """Return scores and rows: of very many, evenly spaced ones, which is said."""
    answer, arrays = told_of_scored(query)
    stride = _stride(len(query.order))
    if stride > 1:
        arrays = [array[::stride] for array in arrays]
        said = f"of {len(query.order):,} rows one in {stride} is in this page, evenly spaced by score, and counted"
        answer = {**answer, "n": len(arrays[0]), "doubts": [*answer["doubts"], said]}
    return {"scored": 0, **answer}, arrays


def _measured(labelled: Labelled, rests: Labelled, curve: Curve) -> Answer:
    """Return figures and counts at every cut, or at evenly spaced ones where there are very many."""
    cuts = np.append(np.arange(0, len(curve.scores), _stride(len(curve.scores))), len(curve.scores))
    counts = "<u4" if curve.tp.dtype.kind == "i" else "<f8"
    arrays = [curve.scores[cuts[:-1]], curve.tp[cuts].astype(counts), curve.fp[cuts].astype(counts)]
    return told_of_curve(labelled, rests, curve), arrays


def _written(answer: Answer) -> dict[str, Any]:
    """Return an answer with its arrays by their names in JavaScript and their bytes, little-endian."""
    result, arrays = answer
    return {"result": as_plain(result), "arrays": [_array(array) for array in arrays]}


def _array(values: NDArray[Any]) -> dict[str, str]:
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return {"type": _NAMES[little.dtype.str[1:]], "base64": as_base64(little.tobytes())}


def _stride(n: int) -> int:
    """Return of how many rows one is told of."""
    return max(1, math.ceil(n / MOST_ROWS))
