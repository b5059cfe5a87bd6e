"""A classifier on the rows of another store: as it is, with another threshold, or by labels first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from scored_stores import QUERY, scored_store

from embedstore.deciding import thresholds
from embedstore.deciding.carrying import carry
from embedstore.deciding.classifier import Classifier
from embedstore.deciding.evaluation import advices
from embedstore.errors import ClassifierError
from embedstore.measures.score_summary import ScoreSummary
from embedstore.store import EmbedStore


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> EmbedStore:
    """A store with the classifier "it", of 2,000 labelled rows."""
    store = scored_store(tmp_path_factory.mktemp("home") / "home.store", seed=1)
    store.save_classifier(store.calibrate(QUERY, "kind=yes", name="it", label="it", resamples=0))
    return store


def test_where_nothing_differs_it_is_carried_as_it_is(home: EmbedStore, tmp_path: Path) -> None:
    """The same thresholds and figures, and nothing to label."""
    other = scored_store(tmp_path / "other.store", seed=2)
    carried = home.carry("it", other)
    assert carried.advice["it"].verdict == "none"
    assert carried.classifier is not None
    assert carried.classifier.to_dict() == home.classifier("it").to_dict()
    assert (carried.moved, carried.review) == ((), None)


def test_where_more_match_the_threshold_is_chosen_anew(home: EmbedStore, tmp_path: Path) -> None:
    """It does better on the truth there, says that nobody measured it, and is at home there: no shift is told again."""
    other = scored_store(tmp_path / "other.store", seed=3, prevalence=0.3)
    carried = home.carry("it", other)
    assert carried.advice["it"].verdict == "prevalence"
    assert carried.classifier is not None
    old = other.evaluate(home.classifier("it"), "kind=yes").metrics["it"]
    new = other.evaluate(carried.classifier, "kind=yes").metrics["it"]
    assert new.f1 > old.f1 + 0.02
    target = carried.classifier.target
    assert target.metrics["f1"] == pytest.approx(new.f1, abs=0.05)
    assert (target.intervals, carried.moved, carried.review) == ({}, ("it",), None)
    assert "was chosen without labels, for an estimated prevalence of" in carried.classifier.warnings[-1]
    other.save_classifier(carried.classifier)
    kept = other.classifier("it")
    assert not advices(other.reader, kept)["it"].shift.differs
    assert home.classifier("it").threshold != kept.threshold


def test_where_the_scores_moved_a_list_is_made(home: EmbedStore, tmp_path: Path) -> None:
    """40 rows, none of them labelled, and no classifier, whatever is taken for true of the prevalence."""
    other = scored_store(tmp_path / "other.store", seed=4, moved=0.5)
    for only_prevalence in (False, True):
        carried = home.carry("it", other, only_prevalence=only_prevalence)
        assert carried.advice["it"].verdict == "scores"
        assert carried.classifier is None
        assert carried.review is not None
        assert len(carried.review) == carried.advice["it"].to_label == 40
    assert json.loads(json.dumps(carried.to_dict()))["thresholds"] is None


def test_where_scores_cannot_tell_somebody_must(home: EmbedStore, tmp_path: Path) -> None:
    """Fewer that match: a list; with `only_prevalence` the threshold that does better, if that is so."""
    other = scored_store(tmp_path / "other.store", seed=5, n=6_000, prevalence=0.005)
    asked = home.carry("it", other)
    assert asked.advice["it"].verdict == "unclear"
    assert asked.classifier is None
    assert asked.review is not None
    assert str(asked).endswith("Label 40 of these rows and calibrate again.")
    told = home.carry("it", other, only_prevalence=True)
    assert told.classifier is not None
    assert told.review is None
    assert str(told).endswith("It is taken that only the share of positives changed.")
    assert "Label" not in str(told)
    f1 = [other.evaluate(one, "kind=yes").metrics["it"].f1 for one in (home.classifier("it"), told.classifier)]
    assert f1[1] > f1[0]


def test_a_condition_keeps_the_rows_there(home: EmbedStore, tmp_path: Path) -> None:
    """Advice and list are of those rows alone."""
    other = scored_store(tmp_path / "other.store", seed=6)
    carried = home.carry("it", other, where="kind = 'yes'")
    assert carried.advice["it"].shift.n_here == other.mask("kind = 'yes'").sum()
    assert carried.review is None or set(carried.review.table.column("id").to_pylist()) <= set(
        other.to_table(["id"], "kind = 'yes'").column("id").to_pylist()
    )


def test_several_classes_are_named(home: EmbedStore, tmp_path: Path) -> None:
    """Each has a line of its own; of those that compete no threshold moves alone, and none is listed."""
    other = scored_store(tmp_path / "other.store", seed=7, prevalence=0.3)
    target = home.classifier("it").target
    both = (target, dataclasses.replace(target, label="also"))
    for mode in ("multi-label", "argmax"):
        many = Classifier("many", home.space, both, mode, objective="f1", constraints="no constraint")
        carried = carry(other.reader, many)
        lines = str(carried).splitlines()
        assert [line.partition(": The scores differ")[0] for line in lines] == ["it", "also"]
        assert (carried.classifier is None) == (mode == "argmax")
        assert carried.review is None
        assert carried.advice["it"].shift.error == pytest.approx(0.025)
        report = other.evaluate(many, "kind")
        assert "\nalso: The scores differ" in str(report)


def test_without_known_scores_nothing_is_carried(home: EmbedStore, tmp_path: Path) -> None:
    """A threshold that no labels chose is refused, with what to do; one of an earlier version asks for labels."""
    other = scored_store(tmp_path / "other.store", seed=8, moved=1.0)
    it = home.classifier("it")
    given = dataclasses.replace(it, targets=(dataclasses.replace(it.target, summary=None),))
    with pytest.raises(ClassifierError, match="there is nothing to compare; calibrate it"):
        carry(other.reader, given)
    early = ScoreSummary.from_dict({"n": 2_000, "percentiles": [step / 100 for step in range(-50, 51)]}, 0.05)
    old = dataclasses.replace(it, targets=(dataclasses.replace(it.target, summary=early),))
    assert carry(other.reader, old).review is not None


def test_what_was_wished_for_is_wished_there(tmp_path: Path) -> None:
    """A limit on precision is kept as far as can be expected, without the guarantee."""
    home = scored_store(tmp_path / "home.store", seed=1)
    wishes = {"objective": "recall", "min_precision": 0.6}
    it = thresholds.calibrate(home.reader, QUERY, "kind=yes", name="it", label="it", resamples=0, **wishes)
    other = scored_store(tmp_path / "other.store", seed=3, prevalence=0.3)
    carried = carry(other.reader, it)
    assert carried.classifier is not None
    assert carried.classifier.target.metrics["precision"] == pytest.approx(0.6, abs=0.01)
    assert other.evaluate(carried.classifier, "kind=yes").metrics["it"].precision == pytest.approx(0.6, abs=0.1)
