"""A sweep at thresholds that are named: the numbers of the full sweep, without its scores."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from scored_stores import QUERY, scored_store

from embedstore.deciding.counted_sweep import CountedSweep
from embedstore.errors import InputError
from embedstore.searching import scan
from embedstore.searching.queries import Concept, Query
from embedstore.store import EmbedStore

THRESHOLDS = [0.3, -1.0, 0.05, 0.05, 2.0, -np.inf, np.inf]


@pytest.fixture(scope="module")
def swept_store(tmp_path_factory: pytest.TempPathFactory) -> EmbedStore:
    return scored_store(tmp_path_factory.mktemp("swept") / "s.store", seed=4)


@pytest.mark.parametrize("labels", [None, "kind=yes"])
@pytest.mark.parametrize("where", [None, "id like '%7%'"])
@pytest.mark.parametrize("opposing", [(), Query.vector([0.0, 1.0])])
def test_counts_and_figures_are_those_of_the_full_sweep(
    swept_store: EmbedStore, labels: Any, where: Any, opposing: Any
) -> None:
    """At each threshold asked for, in their order, also at a score of a row itself and beyond all."""
    words = {"where": where, "opposing": opposing}
    whole = swept_store.sweep(QUERY, labels, **words)
    thresholds = [*THRESHOLDS, *whole.distribution.scores[[0, 7, -1]].astype(float).tolist()]
    counts = swept_store.sweep(QUERY, labels, thresholds=thresholds, **words)
    assert isinstance(counts, CountedSweep)
    for asked in (thresholds, 0.3):
        near, far = counts.columns(asked), whole.columns(asked)
        assert list(near) == list(far)
        assert all(np.array_equal(near[name], far[name]) for name in far)
    assert counts.columns()["threshold"].tolist() == sorted(set(thresholds))
    assert [counts.mark(one) for one in thresholds] == [
        "best F1" if "best F1" in whole.mark(one) else "" for one in thresholds
    ]
    assert f"of all {len(whole.distribution):,} rows" in counts.about
    assert ("labelled ones" in counts.about) == (labels is not None)


def test_a_number_of_thresholds_lies_where_labels_leave_a_choice(swept_store: EmbedStore) -> None:
    """Those of the full sweep; without labels there is none."""
    near = swept_store.sweep(QUERY, "kind=yes", thresholds=12).columns()
    far = swept_store.sweep(QUERY, "kind=yes").columns(n=12)
    assert all(np.array_equal(near[name], far[name]) for name in far)
    with pytest.raises(InputError, match="without labels nothing says where 12 thresholds should lie"):
        swept_store.sweep(QUERY, thresholds=12)


@pytest.mark.parametrize("number", [0, -3, True])
def test_a_number_that_is_no_number_of_thresholds_is_refused(number: int, swept_store: EmbedStore) -> None:
    """Whatever labels there are."""
    with pytest.raises(InputError, match=f"expected thresholds, or how many, found {number}"):
        swept_store.sweep(QUERY, "kind=yes", thresholds=number)


def test_what_was_not_counted_is_not_told(swept_store: EmbedStore) -> None:
    """A threshold between two that were counted is refused; so are no thresholds, no rows, and NaN."""
    counts = swept_store.sweep(QUERY, thresholds=[0.1, 0.2])
    for between in (0.15, 0.3, np.nextafter(0.1, 1)):
        with pytest.raises(InputError, match="was not counted"):
            counts.columns([0.1, between])
    with pytest.raises(InputError, match="at least one threshold"):
        swept_store.sweep(QUERY, thresholds=[])
    with pytest.raises(InputError, match="there are no rows"):
        swept_store.sweep(QUERY, thresholds=[0.1], where="id = 'none'")
    with pytest.raises(InputError, match="NaN"):
        swept_store.sweep(QUERY, thresholds=[float("nan")])


class Measured(scan.Executor):
    """Runs tasks here, and notes how many bytes each result would be on its way."""

    local = False

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        """Apply `function` to each task."""
        results = [function(task) for task in tasks]
        self.bytes += [len(pickle.dumps(result)) for result in results]
        return results


@pytest.mark.parametrize("rows", [1_000, 9_000])
def test_what_leaves_a_task_does_not_grow_with_its_rows(tmp_path: Path, rows: int) -> None:
    """A number for each threshold, whatever the rows; and no scores are kept."""
    scored_store(tmp_path / "s.store", seed=1, n=rows)
    executor = Measured()
    store = EmbedStore.open(tmp_path / "s.store", executor=executor)
    for _ in range(2):
        store.sweep(QUERY, thresholds=np.linspace(-1, 1, 50))
    assert len(executor.bytes) >= 2
    assert max(executor.bytes) < 50 * 8 + 300
    assert len(store.reader._kept) == 0


def test_a_fold_in_any_grouping_counts_the_same(swept_store: EmbedStore) -> None:
    """Counts of tasks of any size add up."""
    parts, query = swept_store.snapshot.parts, swept_store.query_vectors([QUERY])
    limits = np.array([-0.1, 0.0, 0.2])
    (scores,) = swept_store.scores(QUERY)
    for rows in (1, 97, 5_000):
        tasks = [scan.Task(*piece, query, 0, np.empty(0, np.float32)) for piece in scan.strips(parts, rows)]
        found = functools.reduce(np.add, (scan.counts_in(task, limits) for task in tasks))
        assert found.tolist() == [int((scores > limit).sum()) for limit in limits]


def test_the_command_says_which_figure_is_of_what(swept_store: EmbedStore) -> None:
    """The table of the full sweep, and a line on stderr."""
    words = ("sweep", swept_store.path, "--id", "4-7", "--thresholds", "0.1:0.3:0.1", "--label", "kind=yes")
    told = run(*words)
    assert told.exit_code == 0
    assert "matches and percentile are of all 2,000 rows; precision, recall and F1 of the" in told.stderr
    rows = swept_store.sweep(Concept.of(Query.id("4-7")), "kind=yes").table([0.1, 0.2, 0.3])
    assert [line.split()[:2] for line in told.stdout.splitlines()[1:]] == [
        [f"{row['threshold']:.4f}", f"{row['matches']:,}"] for row in rows
    ]
