"""How many more labels a limit takes, on real photographs: in figures, in words, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import InputError, LabelError, UnreachableError
from embedstore.store import EmbedStore


def some(store: EmbedStore, n: int, value: str = "bird", seed: int = 1) -> dict[str, bool]:
    """Labels of `n` random rows by id; the same pictures in every store of them."""
    table = sorted(store.to_table(["id", "uri", "category"]).to_pylist(), key=lambda row: row["uri"])
    rows = np.random.default_rng(seed).permutation(len(store))[:n]
    return {table[row]["id"]: table[row]["category"] == value for row in rows.tolist()}


def test_a_plan_names_how_many_and_what_they_cost(photo_store: EmbedStore) -> None:
    """The number stands in the table with the chance that was asked for; the guarantee costs precision here."""
    plan = photo_store.plan_labels("bird", some(photo_store, 60), min_recall=0.8)
    assert plan.random
    assert plan.advice == plan.random
    assert plan.near == 0
    table = {row["random"]: row["chance"] for row in plan.table()}
    assert table[plan.random] >= 0.8
    assert max(size for size in table if size < plan.random) < plan.random
    assert (plan.n_labelled, plan.n_random, plan.n_open) == (60, 60, len(photo_store) - 60)
    kept, bare = plan.rehearsal.kept, plan.rehearsal.bare
    assert kept is not None
    assert bare is not None
    assert kept.matches > bare.matches
    assert kept.precision < bare.precision
    text = str(plan)
    assert text.startswith("bird: recall >= 0.8 (confidence 0.95)\n")
    assert f"{plan.random} more random labels have a chance of 80% to certify it" in text
    assert "guaranteed" in text
    assert json.loads(json.dumps(plan.to_dict()))["random"] == plan.random


def test_equal_seeds_give_equal_plans(photo_store: EmbedStore) -> None:
    """The same call prints the same; a query and a classifier of it have the same scores, so the same plan."""
    labels = some(photo_store, 100)
    plans = [photo_store.plan_labels(query, labels, min_recall=0.8, seed=3) for query in ("bird", "bird")]
    assert str(plans[0]) == str(plans[1])
    classifier = photo_store.calibrate("bird", "category=bird", name="bird")
    assert str(photo_store.plan_labels(classifier, labels, min_recall=0.8, seed=3)) == str(plans[0])


def test_the_labels_of_the_store_stand_in(photo_store: EmbedStore, tmp_path: Path) -> None:
    """Where none are given, a plan rests on what the store keeps of the class, or of the query's words."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    store = EmbedStore.open(tmp_path / "photos.store")
    labels = some(store, 60)
    store.add_labels(labels, "bird", picked="random")
    given = store.plan_labels("bird", labels, min_recall=0.8)
    own = store.plan_labels("bird", min_recall=0.8)
    assert own.table() == given.table()
    assert (own.n_random, own.notes) == (60, ())
    assert store.plan_labels("cat", min_recall=0.8).n_labelled == 0


def test_labels_that_certify_it_are_enough(photo_store: EmbedStore) -> None:
    """What `calibrate` certifies by these labels takes no more of them."""
    plan = photo_store.plan_labels("bird", "category=bird", min_precision=0.8)
    assert photo_store.calibrate("bird", "category=bird", objective="recall", min_precision=0.8).threshold > 0
    assert (plan.random, plan.advice, plan.n_open) == (0, 0, 0)
    assert "certified by the labels that there are" in str(plan)


def test_copies_certify_nothing(store: EmbedStore, pictures: Path) -> None:
    """Eight copies of each picture are no more evidence than one, as in a calibration."""
    for copy in range(7):
        shutil.copytree(pictures, pictures.parent / f"copy {copy}")
        store.add(pictures.parent / f"copy {copy}", label_from_folder=True, progress=False)
    assert len(store) == 96
    plan = store.plan_labels("cat", "label=cat", min_recall=0.8)
    assert (plan.random, plan.n_random, plan.n_pos) == (None, 96, 32)
    with pytest.raises(UnreachableError, match="what 4 positives can guarantee"):
        store.calibrate("cat", "label=cat", objective="precision", min_recall=0.8)


def test_what_cannot_be_reached_is_said_with_the_best(photo_store: EmbedStore) -> None:
    """With 100 labels, 2 of them yes, a precision of .9 is out of reach: the sentence says how near one comes."""
    plan = photo_store.plan_labels("person", some(photo_store, 100, "person"), min_precision=0.9)
    assert (plan.random, plan.advice) == (None, None)
    assert plan.rehearsal.possible < 0.2
    assert "cannot be reached, as far as 100 labels tell: the best precision expected is 0." in str(plan)
    assert f"{plan.rehearsal.best_precision:.4f} (of thresholds with 29 matches or more" in str(plan)


def test_without_labels_the_guess_is_stated(photo_store: EmbedStore) -> None:
    """The plan says on which prior it rests, and that 100 random labels come first."""
    plan = photo_store.plan_labels("bird", min_precision=0.8)
    assert plan.n_labelled == 0
    assert plan.advice == (plan.random or 100)
    assert "0 labels tell little: the plan rests on a guess" in plan.notes[0]


def test_few_rows_left_are_all_that_can_be_asked_for(photo_store: EmbedStore) -> None:
    """Where all rows together may not certify it, the chance of all of them is printed; `most` makes it fewer."""
    labels = some(photo_store, 100)
    plan = photo_store.plan_labels("bird", labels, min_precision=0.8)
    if plan.random is None:
        assert f"even labels on all {plan.n_open} others have a chance of" in str(plan)
    fewer = photo_store.plan_labels("bird", labels, min_precision=0.8, most=20)
    assert fewer.most == 20
    assert "even 20 more random labels have a chance of" in str(fewer)


def test_where_all_rows_are_labelled_no_more_are_spoken_of(photo_store: EmbedStore) -> None:
    """Of labels that do not certify it, on all rows of the store, the plan says that none is left to label."""
    plan = photo_store.plan_labels("bird", "category=bird", min_precision=0.9)
    assert (plan.n_open, plan.random) == (0, None)
    assert "the labels that there are do not certify it, and no image is left to label; the best precision" in str(plan)
    assert "others" not in str(plan)


def test_the_answer_of_each_case(photo_store: EmbedStore) -> None:
    """Undecided is told from out of reach: by how much of what the labels leave open allows it."""
    plan = photo_store.plan_labels("bird", some(photo_store, 100), min_precision=0.8, most=20)
    undecided = dataclasses.replace(plan, rehearsal=dataclasses.replace(plan.rehearsal, possible=0.6))
    assert "cannot be told yet: 60% of what the labels leave open allow it" in str(undecided)
    lost = dataclasses.replace(plan, rehearsal=dataclasses.replace(plan.rehearsal, possible=0.1))
    assert "cannot be reached, as far as 100 labels tell" in str(lost)
    young = dataclasses.replace(lost, n_labelled=3)
    assert "cannot be told yet" in str(young)
    assert young.advice == 20


def test_a_condition_is_kept(photo_store: EmbedStore) -> None:
    """Rows and labels that it leaves out are no part of the plan."""
    plan = photo_store.plan_labels("bird", some(photo_store, 100), min_recall=0.7, where="content_hash < '8'")
    kept = photo_store.mask("content_hash < '8'")
    assert kept is not None
    assert plan.n_rows == kept.sum()
    assert plan.n_labelled + plan.n_open == plan.n_rows
    assert plan.n_labelled < 100


def test_what_means_nothing_is_refused(photo_store: EmbedStore) -> None:
    """No limit, a precision of 1, a chance of 1, no label to try, rows that are none."""
    with pytest.raises(InputError, match=r"say what is to be certified: min_precision=0\.9 or min_recall=0\.9"):
        photo_store.plan_labels("bird")
    with pytest.raises(InputError, match="no number of labelled rows can guarantee"):
        photo_store.plan_labels("bird", min_precision=1.0)
    with pytest.raises(InputError, match="chance must lie between"):
        photo_store.plan_labels("bird", min_precision=0.9, chance=1.0)
    with pytest.raises(InputError, match="at least 1"):
        photo_store.plan_labels("bird", min_precision=0.9, most=0)
    with pytest.raises(LabelError, match="no row to label"):
        photo_store.plan_labels("bird", min_precision=0.9, where="width < 0")
