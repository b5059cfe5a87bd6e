"""What may be asked: prompt templates, mixes of vectors, opponents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import InputError, QueryError
from embedstore.searching.queries import Concept, Query, combine, fill, opposed
from embedstore.store import EmbedStore
from embedstore.vectors import normalise


def test_a_template_takes_the_text_at_its_slot() -> None:
    """The text stands where ``{}`` was; no template leaves it alone."""
    assert fill("a photo of a {}", "dog") == ["a photo of a dog"]
    assert fill("{}, close up", "dog") == ["dog, close up"]
    assert [query.value for query in Concept.of("{}").queries] == ["{}"]


@given(before=st.text(), text=st.text(), after=st.text())
def test_a_template_changes_nothing_else(before: str, text: str, after: str) -> None:
    """Around the slot every character stands for itself, and braces in the text are not read."""
    template = before + "{}" + after
    if template.count("{}") == 1:
        assert fill(template, text) == [before + text + after]


@pytest.mark.parametrize("template", ["", "a photo", "a {} of a {}", "{0}", "{name}", "{ }"])
def test_a_template_without_one_slot_is_refused(template: str) -> None:
    """No slot, two slots or a slot with something in it is an error that quotes the template."""
    with pytest.raises(QueryError, match="exactly once") as caught:
        fill(template, "dog")
    assert repr(template) in str(caught.value)


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
    """Text goes into each of several templates, braces in the text stay; one template without {} is refused."""
    assert fill(["a photo of a {}", "a {}"], "dog {x}") == ["a photo of a dog {x}", "a dog {x}"]
    with pytest.raises(QueryError, match="exactly once"):
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


def test_prompts_are_combined_as_they_say(photo_store: EmbedStore) -> None:
    """Ensembles are means, weights weigh, opponents are taken off, each against NumPy."""
    vectors = photo_store.query_vectors(["bird", "a drawing of a bird", "plant"])
    rows = np.array(photo_store.to_table(["embedding"]).column("embedding").to_pylist(), np.float32)
    cases = [
        (Concept.of("bird", template=["{}", "a drawing of a {}"]), np.vecdot(rows, combine(vectors[:2]))),
        (
            Concept.of(["bird", "plant"], weights=[1, -0.5]),
            np.vecdot(rows, combine(vectors[[0, 2]], [1, -0.5])),
        ),
        (Concept.of("bird", opposing="plant"), np.vecdot(rows, vectors[0]) - np.vecdot(rows, vectors[2])),
        (Concept.of("bird"), np.vecdot(rows, vectors[0])),
    ]
    for concept, expected in cases:
        assert np.array_equal(photo_store.reader.concept_scores(concept), expected), concept.label
    mixed = Concept.of([Query.text("bird"), vectors[2]], weights=[2, 1])
    assert mixed.words["weights"] == (2, 1)
