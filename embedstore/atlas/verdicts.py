"""A saved classifier's scores and matches -> columns beside a store's own."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from embedstore.deciding import decide
from embedstore.errors import ClassifierError
from embedstore.measures.classifier import Classifier
from embedstore.storage.rows import Rows
from embedstore.store import EmbedStore


def with_verdicts(store: EmbedStore, rows: Rows, classifier: Classifier | str | None) -> pa.Table:
    """Return all columns of all rows but the vectors, with a classifier's own after them.

    Parameters
    ----------
    store : EmbedStore
    rows : Rows
        Of the store.
    classifier : Classifier or str, optional
        A name means one that is saved in the store.

    Returns
    -------
    pyarrow.Table
        With ``NAME_score`` (float32) and ``NAME_match`` (bool); with several classes ``NAME_CLASS_score`` and
        ``NAME_CLASS_match`` of each.

    Raises
    ------
    ClassifierError
        There is no such classifier, it is of another space, or a column has its name already.
    """
    table = rows.metadata(rows.columns)
    if classifier is None:
        return table
    if isinstance(classifier, str):
        classifier = decide.load(store, classifier)
    scores, matches = decide.apply(store, classifier)
    for number, label in enumerate(classifier.labels):
        name = classifier.name if len(classifier.labels) == 1 else f"{classifier.name}_{label}"
        columns: dict[str, Any] = {
            f"{name}_score": pa.array(scores[number], pa.float32()),
            f"{name}_match": pa.array(matches[number]),
        }
        for column, values in columns.items():
            if column in table.column_names:
                raise ClassifierError(f"the store has a column {column!r} already; rename the classifier")
            table = table.append_column(column, values)
    return table
