"""Better queries: ensembles, mixes, opponents, rankings."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from embedstore.errors import InputError, QueryError
from embedstore.measures.prompts import combine, fill, opposed, rank_prompts
from embedstore.vectors import normalise


def unit(seed, n, dim=8):
    return normalise(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def test_ensemble_is_the_mean_direction():
    """Without weights the result is the mean of the unit vectors, of unit length; scale of the input is nothing."""
    vectors = unit(0, 5)
    mean = vectors.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(combine(vectors), mean / np.linalg.norm(mean), atol=1e-7)
    np.testing.assert_allclose(combine(vectors * 7), combine(vectors), atol=1e-7)
    assert combine(vectors).dtype == np.float32
    np.testing.assert_allclose(combine(vectors[:1]), vectors[0], atol=1e-7)


def test_negative_weights_push_away():
    """A negative weight lowers the score with its vector; the weighted sum is the plain one."""
    vectors = unit(1, 3)
    weights = np.array([1.0, 0.5, -0.8])
    total = weights @ vectors.astype(np.float64)
    np.testing.assert_allclose(combine(vectors, weights), total / np.linalg.norm(total), atol=1e-7)
    assert combine(vectors, weights) @ vectors[2] < combine(vectors, [1, 0.5, 0]) @ vectors[2]


def test_mixes_without_direction_are_refused():
    """Vectors that cancel, and weights of another number or not finite, are errors."""
    vectors = unit(2, 2)
    with pytest.raises(QueryError, match="cancel out"):
        combine([vectors[0], -vectors[0]])
    for weights in ([1.0], [1.0, np.nan], [[1.0, 1.0]]):
        with pytest.raises(QueryError, match="one finite weight for each of 2"):
            combine(vectors, weights)


def test_templates_are_filled():
    """Text goes where {} stands, braces in the text stay; a template without {} is refused."""
    assert fill("a photo of a {}, a {}", "dog {x}") == ["a photo of a dog {x}, a dog {x}"]
    with pytest.raises(QueryError, match=r"needs \{\} where"):
        fill(["{}", "a photo"], "dog")


def test_opposed_is_positive_minus_best_negative():
    """The score is the query's minus the largest of its opponents', row by row, in float32."""
    rng = np.random.default_rng(3)
    positive, negatives = rng.normal(size=20).astype(np.float32), rng.normal(size=(3, 20)).astype(np.float32)
    expected = [ours - max(column) for ours, column in zip(positive, negatives.T, strict=True)]
    assert opposed(positive, negatives).tolist() == expected
    assert (opposed(positive, negatives[0]) == positive - negatives[0]).all()
    for wrong in (negatives[:, :5], np.empty((0, 20))):
        with pytest.raises(InputError, match="expected negatives of shape"):
            opposed(positive, wrong)


def test_prompts_are_ranked_by_average_precision():
    """Prompts come in the order of scikit-learn's average precision, each with its figures."""
    rng = np.random.default_rng(4)
    labels = rng.random(200) < 0.4
    matrix = np.stack([rng.normal(labels * distance, 1) for distance in (0.2, 3.0, 1.0)]).astype(np.float32)
    ranked = rank_prompts(matrix, labels, ["vague", "sharp", "fair"])
    assert [row["query"] for row in ranked] == ["sharp", "fair", "vague"]
    for row in ranked:
        scores = matrix[row["position"]]
        assert row["average_precision"] == pytest.approx(
            sk.average_precision_score(labels, scores), abs=1e-12
        )
        assert row["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
        tried = [sk.f1_score(labels, scores > value, zero_division=0) for value in scores]
        assert row["best_f1"] >= max(tried) - 1e-12
    with pytest.raises(InputError, match="1 names for 3"):
        rank_prompts(matrix, labels, ["one"])
