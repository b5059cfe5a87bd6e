"""What may be asked: prompt templates, mixes of vectors, opponents."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import save_picture
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


def test_a_mix_is_the_direction_of_the_weighted_sum(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2:a + b - c with a picture among them is the sum of the unit vectors times their weights, at unit length."""
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "my pool.jpg", 3)
    texts = photo_store.query_vectors(["golden retriever", "fruit"]).astype(np.float64)
    picture = photo_store.query_vectors([Path("my pool.jpg")])[0].astype(np.float64)
    rows = np.array(photo_store.to_table(["embedding"]).column("embedding").to_pylist(), np.float32)
    total = 2 * texts[0] + 1 * picture - 0.5 * texts[1]
    expected = rows @ (total / np.linalg.norm(total))
    mix = Query.parse("2:golden retriever + ./my pool.jpg - .5:fruit")
    retriever, fruit = (Query.text(text).label for text in mix.texts)
    assert mix.label == f"2:{retriever} + my pool.jpg - 0.5:{fruit}"
    assert mix.texts == ["golden retriever", "fruit"]
    scores = photo_store.scores(mix)[0]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    for same in (
        Query.parse(["2:golden", "retriever", "+", "./my pool.jpg", "-", ".5:fruit"]),
        Query.parse('"2:golden retriever" + "my pool.jpg" - .5:fruit'),
        Concept.of(["golden retriever", Path("my pool.jpg"), "fruit"], weights=[2, 1, -0.5]),
    ):
        assert photo_store.search(same, k=3).score.tolist() == photo_store.search(mix, k=3).score.tolist()
    away = photo_store.scores(Query.parse("- fruit"))[0]
    np.testing.assert_allclose(away, rows @ -texts[1], atol=1e-6)


def test_a_mix_takes_templates_and_further_queries(photo_store: EmbedStore) -> None:
    """Each template makes a mix of its own; with further queries the mixes are averaged as any query is."""
    vectors = photo_store.query_vectors(["dog", "snow", "a drawing of a dog", "a drawing of a snow", "cat"])
    dog, snow, drawn_dog, drawn_snow, cat = vectors.astype(np.float64)

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / np.linalg.norm(vector)

    mix = Query.parse("dog - 2:snow")
    filled = Concept.of(mix, template=["{}", "a drawing of a {}"])
    found, opponents = photo_store.reader.concept_vectors([filled])[0]
    np.testing.assert_allclose(found, unit(unit(dog - 2 * snow) + unit(drawn_dog - 2 * drawn_snow)), atol=1e-6)
    assert len(opponents) == 0
    several = Concept.of([mix, "cat"], opposing=[Query.parse("cat + snow")])
    found, opponents = photo_store.reader.concept_vectors([several])[0]
    np.testing.assert_allclose(found, unit(unit(dog - 2 * snow) + cat), atol=1e-6)
    np.testing.assert_allclose(opponents, [unit(cat + snow)], atol=1e-6)
    assert several.label == f"({mix.label}) + {Query.text('cat').label} against {several.opposing[0].label}"


@pytest.mark.parametrize(
    "text",
    ["a black-and-white cat", "C++", "a 16:9 photograph", "-5 degrees", "rock+roll", "a dog's toy", "1.5:1", '5" disk'],
)
def test_only_a_sign_that_is_a_word_takes_a_text_apart(text: str) -> None:
    """Plus, hyphen and colon within words stay, in one text and as a word of the shell."""
    for query in (Query.parse(text), Query.parse([text]), Query.of(text)):
        assert (query.kind, query.value) == ("text", text)


def test_signs_in_quotes_stay(caplog: pytest.LogCaptureFixture) -> None:
    """A word with signs in it is one text: in quotes in a text, or from a shell, where that is said."""
    mix = Query.parse('"T-shirt - red" + 2:cat')
    assert mix.texts == ["T-shirt - red", "cat"]
    assert not caplog.messages
    assert Query.parse(["T-shirt - red"]).value == "T-shirt - red"
    assert "one text" in caplog.text
    assert Query.of("T-shirt - red").value == "T-shirt - red"


@pytest.mark.parametrize("words", ["dog +", "+", "dog + - cat", "-", ["-", "+", "cat"]])
def test_a_sign_with_nothing_after_it_is_refused(words: str | list[str]) -> None:
    """Whatever stands before."""
    with pytest.raises(QueryError, match="nothing stands after the"):
        Query.parse(words)


def test_a_path_is_a_picture_and_a_word_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with an ending or a folder in its path is a picture, and that is said; files named like a word are not."""
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "x" / "a dog.jpg", 1)
    os.rename(save_picture(tmp_path / "cat.png", 2), tmp_path / "cat")
    for text, label in (
        ("x/a dog.jpg", "x/a dog.jpg"),
        ("./cat", "cat"),
        (str(tmp_path / "cat"), str(tmp_path / "cat")),
    ):
        caplog.clear()
        query = Query.of(text)
        assert (query.kind, query.label) == ("image", label)
        assert f"{text!r} is a picture here" in caplog.text
        assert "Query.text takes it" in caplog.text
        assert (Query.text(text).kind, Query.text(text).value) == ("text", text)
    caplog.clear()
    assert Query.of(Path("cat")).kind == "image"
    for text in ("cat", "x", "a dog.", "and/or", "Mr. T", "x\0.jpg!"):
        assert Query.of(text).kind == "text"
    assert not caplog.messages
    for text, says in (
        ("x/no.jpg", "there is no picture 'x/no.jpg'"),
        ("a photo of no.PNG", "there is no picture"),
        ("./x", "is a folder"),
        ("https://host/cat.jpg", "is an address"),
    ):
        with pytest.raises(QueryError, match=f"{says}.*Query.text takes it"):
            Query.of(text)
        assert Query.text(text).value == text
    for words in (["x/a dog.jpg", "cat.png"], "a dog cat.txt + x"):
        (tmp_path / "cat.txt").touch()
        with pytest.raises(QueryError, match="stands beside other words"):
            Query.parse(words)
