"""A classifier, its scored rows and labels -> what a report holds for the module: answers to its calls, and pictures.

Whoever reads the report has no store: what `session` would answer is worked out here once and written down, and read
by ``static/report_host.js``. The page around it is made by `report`.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.review import ScoredRows, boundary, errors_of, place_of
from embedstore.deciding.rounds import GIVEN, NEAR, RANDOM, SEARCH
from embedstore.images import thumbnail
from embedstore.measures.curves import Curve
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
_CODES = (GIVEN, RANDOM, NEAR, SEARCH)
"""How a row was picked, by the number that the module knows it by."""
_NAMES = {"float32": "Float32Array", "float64": "Float64Array", "uint32": "Uint32Array", "uint8": "Uint8Array"}


def data_of(
    reader: Reader, classifier: Classifier, classes: Sequence[tuple[ScoredRows, Curve]], shown: Iterable[int], most: int
) -> dict[str, Any]:
    """Return what a report holds, as plain values.

    Parameters
    ----------
    reader : Reader
    classifier : Classifier
    classes : sequence of (ScoredRows, Curve)
        One for each class that the report is about.
    shown : iterable of int
        Rows whose pictures the page shows anyhow: the module takes them from there.
    most : int
        Pictures for each class, at most.
    """
    chosen: dict[int, None] = {}
    for rows, _ in classes:
        chosen.update(dict.fromkeys(chosen_rows(rows, most).tolist()))
    known = np.array(sorted({*chosen, *shown}), dtype=np.int64)
    table = reader.rows.take(known, [name for name in reader.rows.columns if name != "embedding"]).to_pylist()
    missing = [place for place, row in enumerate(known.tolist()) if row not in set(shown)]
    files = pictures_of(reader, [str(table[place]["uri"]) for place in missing])
    pictures = {str(known[place]): encoded(files[uri]) for place in missing if (uri := table[place]["uri"]) in files}
    return {
        "info": _info(reader, classifier),
        "panels": [_panel(rows, curve) for rows, curve in classes],
        "rows": {str(row): _row(values) for row, values in zip(known.tolist(), table, strict=True)},
        "pictures": pictures,
        "most": most,
    }


def chosen_rows(rows: ScoredRows, most: int) -> Positions:
    """Return the rows that have a picture, at most `most`: around the threshold, the worst mistakes, a spread of all.

    Two fifths are of both sides of the threshold, a fifth false positives, a fifth false negatives, if there are so
    many; the others the highest scores, and then evenly spaced ones.
    """
    order = in_order(rows)
    near = order[np.sort(boundary(rows.scores[order], rows.threshold, most * 2 // 5))]
    labelled = rows.labelled
    found = errors_of(rows.scores[labelled.positions], labelled.values, rows.threshold)
    mistakes = [labelled.positions[some[: most // 5]] for some in found]
    chosen = dict.fromkeys(np.concatenate([near, *mistakes, order[:_FIRST]]).tolist())
    for row in order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(np.int64)].tolist():
        if len(chosen) >= most:
            break
        chosen[row] = None
    return np.array(list(chosen)[:most], dtype=np.int64)


def in_order(rows: ScoredRows) -> Positions:
    """Return the rows that are shown, highest score first."""
    places = np.arange(len(rows.scores)) if rows.kept is None else np.flatnonzero(rows.kept)
    return places[np.argsort(-rows.scores[places], kind="stable")]


def pictures_of(reader: Reader, uris: Iterable[str], side: int = SIDE) -> dict[str, bytes]:
    """Return small JPEGs of the pictures at `uris`, by uri; those that are not to be had are left out."""
    from embedstore.errors import ImageError

    small = {}
    for uri, source in pictures_at(uris, reader.rows.thumbnails_at).items():
        try:
            small[uri] = thumbnail(source, side, quality=QUALITY)
        except (ImageError, OSError):
            continue  # shown as missing, as one that is gone is
    return small


def encoded(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def as_json(data: Any) -> str:
    """Return JSON that may stand in a script of a page: no text in it can end the script, or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def stride_of(n: int) -> int:
    """Return of every how many rows one is told of."""
    return max(1, math.ceil(n / MOST_ROWS))


def _array(values: NDArray[Any]) -> dict[str, str]:
    """Return an array by its name in JavaScript and its bytes, little-endian."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return {"type": _NAMES[values.dtype.name], "base64": encoded(np.ascontiguousarray(little).tobytes())}


def _info(reader: Reader, classifier: Classifier) -> dict[str, Any]:
    from embedstore import __version__

    space = reader.space
    able = ("query", "picture", "label", "calibrate", "save", "export", "commands", "refresh", "compare")
    return {
        "name": place_of(reader),
        "n_rows": len(reader),
        "version": reader.version,
        "space": space.to_dict(),
        "model": space.model,
        "columns": [{"name": field.name, "type": str(field.type)} for field in reader.rows.snapshot.schema],
        "classifiers": [_classifier(classifier)],
        "concepts": [],
        "capabilities": dict.fromkeys(able, False),
        "embedstore": __version__,
    }


def _classifier(classifier: Classifier) -> dict[str, Any]:
    classes = [
        {
            "label": target.label,
            "threshold": target.threshold,
            "queries": list(target.queries),
            "figures": {name: value for name, value in target.figures.items() if math.isfinite(value)},
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


def _panel(rows: ScoredRows, curve: Curve) -> dict[str, Any]:
    """Return the answers about one class."""
    label, order = rows.classifier.target.label, in_order(rows)
    stride = stride_of(len(order))
    told = order[::stride]
    scores = rows.scores[told]
    query = {"classifier": rows.classifier.name, "class": None if label == rows.name else label}
    part = [f"of {len(order):,} rows every {stride}th by score is in this page, and counted"] if stride > 1 else []
    score = {
        "scored": 0,
        "query": rows.name,
        "concept": label,
        "classifier": _classifier(rows.classifier),
        "where": rows.where,
        "version": rows.reader.version,
        "n": len(told),
        "n_rows": len(rows.reader),
        "low": float(scores[-1]) if len(scores) else 0.0,
        "high": float(scores[0]) if len(scores) else 0.0,
        "start": {"threshold": rows.threshold, "why": f"that of the classifier {rows.name!r}"},
        "doubts": part,
    }
    measure, cuts = _measured(rows, curve)
    labels, answers = _labels(rows)
    return {
        "label": label,
        "query": query,
        "threshold": rows.threshold,
        "score": {"result": score, "arrays": [_array(scores), _array(told.astype(np.uint32))]},
        "measure": {"result": measure, "arrays": cuts},
        "labels": {"result": labels, "arrays": answers},
    }


def _measured(rows: ScoredRows, curve: Curve) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return figures and counts at every cut, or at evenly spaced ones where there are very many."""
    labelled, measured = rows.labelled, rows.labelled.to_measure()
    best = curve.at_cut(curve.best_cut)
    result = {
        "measured": True,
        "why": "",
        "source": measured.described,
        "weighted": measured.weights is not None,
        "n": float(curve.n),
        "n_pos": float(curve.n_pos),
        "n_labelled": len(labelled),
        "n_yes": int(labelled.values.sum()),
        "average_precision": curve.average_precision,
        "best": {**best.to_dict(), "matches": float(best.tp + best.fp)},
        "doubts": list(labelled.doubts),
        "warnings": list(curve.warnings),
    }
    stride = stride_of(len(curve.scores))
    cuts = np.append(np.arange(0, len(curve.scores), stride), len(curve.scores))
    counts = np.uint32 if curve.tp.dtype.kind == "i" else np.float64
    arrays = (curve.scores[cuts[:-1]], curve.tp[cuts].astype(counts), curve.fp[cuts].astype(counts))
    return result, [_array(array) for array in arrays]


def _labels(rows: ScoredRows) -> tuple[dict[str, Any], list[dict[str, str]]]:
    labelled = rows.labelled
    picked: NDArray[Any] = np.full(len(labelled), GIVEN, dtype=object) if labelled.picked is None else labelled.picked
    codes = np.array([_CODES.index(one) for one in picked.tolist()], dtype=np.uint8)
    result = {
        "concept": rows.classifier.target.label,
        "yes": int(labelled.values.sum()),
        "no": int((~labelled.values.astype(np.bool_)).sum()),
        "unsure": 0,
        "open": 0,
        "picked": {name: int((codes == place).sum()) for place, name in enumerate(_CODES)},
    }
    arrays = (labelled.positions.astype(np.uint32), labelled.values.astype(np.uint8), codes)
    return result, [_array(array) for array in arrays]


def _row(values: dict[str, Any]) -> dict[str, Any]:
    return {"id": values["id"], "uri": values["uri"], "values": _plain(values)}


def _plain(value: Any) -> Any:
    """Return a value of a column as JSON has it; what it has no form for, as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return str(value)
