"""Query vectors and scores in, better queries out: ensembles, weighted mixes, opposing prompts, rankings.

Turning texts into vectors is left to the embedders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import InputError, QueryError
from embedstore.measures.curves import curves
from embedstore.vectors import Vectors, as_vectors, normalise


def combine(vectors: ArrayLike, weights: ArrayLike | None = None) -> Vectors:
    """Return the direction of a weighted sum of unit vectors.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        Query vectors of texts or images, in one space. Each is scaled to unit length first.
    weights : array-like of shape (n,), optional
        How much each counts; negative ones push away. None: all the same, which is a prompt ensemble.

    Returns
    -------
    ndarray of shape (dim,), float32
        Unit length.

    Raises
    ------
    QueryError
        Another number of weights, weights that are not finite, or vectors that cancel out.

    Examples
    --------
    >>> combine([[1, 0], [0, 1]]).tolist()
    [0.7071067690849304, 0.7071067690849304]
    """
    rows = normalise(as_vectors(vectors, what="query vectors"), what="query vectors")
    factors = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if factors.shape != (len(rows),) or not np.isfinite(factors).all():
        raise QueryError(f"expected one finite weight for each of {len(rows)} vectors, found {weights!r}")
    total = factors @ rows.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length <= 1e-6 * np.abs(factors).sum():
        raise QueryError("the weighted vectors cancel out, which leaves no direction; change the weights")
    return (total / length).astype(np.float32)


def fill(templates: str | Sequence[str], text: str) -> list[str]:
    """Return `text` set into each template at ``{}``; a template without it is refused with QueryError.

    Examples
    --------
    >>> fill(["a photo of a {}", "a drawing of a {}"], "dog")
    ['a photo of a dog', 'a drawing of a dog']
    """
    listed = [templates] if isinstance(templates, str) else list(templates)
    for template in listed:
        if "{}" not in template:
            raise QueryError(f"a prompt template needs {{}} where the text goes, found {template!r}")
    return [template.replace("{}", text) for template in listed]


def opposed(positive: ArrayLike, negatives: ArrayLike) -> NDArray[np.float32]:
    """Return the score of a query minus that of its best opponent, row by row.

    Parameters
    ----------
    positive : array-like of shape (n_rows,)
    negatives : array-like of shape (n_negatives, n_rows), or (n_rows,) for one

    Returns
    -------
    ndarray of shape (n_rows,), float32
        Larger than 0 where the query beats all its opponents; the natural threshold is 0.
    """
    ours = np.asarray(positive, dtype=np.float32)
    theirs = np.atleast_2d(np.asarray(negatives, dtype=np.float32))
    if ours.ndim != 1 or theirs.ndim != 2 or theirs.shape[1:] != ours.shape or len(theirs) == 0:
        raise InputError(
            f"expected negatives of shape (n_negatives, {len(ours) if ours.ndim else 1}), found {theirs.shape}"
        )
    best: NDArray[np.float32] = theirs.max(axis=0)
    return ours - best


def rank_prompts(
    scores: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Rank queries by how well they sort labelled rows.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_rows)
    labels : array-like of shape (n_rows,), bool
    names : sequence of str, optional
        The queries' texts; their positions otherwise.

    Returns
    -------
    list of dict
        ``query``, ``position`` in the input, ``average_precision``, ``roc_auc`` and ``best_f1``; the best
        average precision first, ties in the order given. `best_f1` is measured on the rows it is chosen on.
    """
    found = curves(scores, labels)
    texts = [str(position) for position in range(len(found))] if names is None else list(names)
    if len(texts) != len(found):
        raise InputError(f"{len(texts)} names for {len(found)} rows of scores; give one for each")
    ranked = [
        {
            "query": text,
            "position": position,
            "average_precision": curve.average_precision,
            "roc_auc": curve.roc_auc,
            "best_f1": float(curve.f1.max()),
        }
        for position, (text, curve) in enumerate(zip(texts, found, strict=True))
    ]
    return sorted(ranked, key=lambda row: -float(row["average_precision"]))
