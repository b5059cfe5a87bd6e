"""Queries and labels -> thresholds: every one at once (`sweep`), or the one that is chosen and measured (`calibrate`).

The rows are scored once; the figures are made by `curves`, `distribution` and `calibration`, labels are read by
`labels`. Deciding by what was chosen is left to `evaluation`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.deciding import label_log
from embedstore.deciding.classifier import Classifier, Mode, free_name
from embedstore.deciding.counted_sweep import Swept
from embedstore.deciding.labels import Labelled, classes_for, labels_for
from embedstore.deciding.same_pictures import COPY_COSINE, PictureSet, copies, pictures_of
from embedstore.deciding.target import Target
from embedstore.errors import EmbedderError, InputError, LabelError, MissingDependencyError, QueryError, option
from embedstore.measures.calibration import Calibration, calibrate_scores
from embedstore.measures.competition import Competition, compete, swallowing
from embedstore.measures.curves import as_threshold, curves, precision_recall
from embedstore.measures.distribution import Gap, ScoreDistribution
from embedstore.measures.ranking import rank_scores
from embedstore.measures.rates import Ints, name_in_words
from embedstore.searching.queries import Concept
from embedstore.searching.reader import Reader
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.deciding.plots import Display

MOST_OF_NAME = 60
"""So many letters of a query are the name of its classifier, and that under which its labels are kept."""
_SHOWN = 10
_FEW_COPIES = 0.05
NONSENSE = ("flurble", "qwxz", "the of and", "zzz", "lorem ipsum dolor", "blorptastic", "a b c", "vnrk")
"""Texts that mean nothing: what they score is the noise that a real match must exceed."""
NOISE_SHARE = 0.01
"""Of the rows that each of them exceeds the floor of the noise on, at most."""


@dataclass(frozen=True, eq=False)
class Sweep(Swept):
    """Every threshold of one query, which is told in words."""

    distribution: ScoreDistribution
    """Of all rows that were swept: matches and percentile at any threshold, gap."""
    scores: NDArray[np.float32]
    """Shape (n_rows,), in the order of the store's rows; of all rows, also where a condition kept some."""
    noise: Callable[[], float | None] | None = field(default=None, repr=False)
    """Finds `floor`, when that is first looked at."""

    @cached_property
    def floor(self) -> float | None:
        """The threshold that queries which mean nothing exceed on at most 1 % of the rows; None where not known."""
        return None if self.noise is None else self.noise()

    @cached_property
    def gap(self) -> Gap | None:
        """The gap that stands out near the top, above the floor of the noise where that is known; None for none."""
        found = self.distribution.gap()
        return None if found is None or (self.floor is not None and found.threshold < self.floor) else found

    @property
    def suggestion(self) -> str:
        """Where to look first when nothing is labelled, in words; that nothing stands out, where nothing does.

        The floor of the noise leads, where it is known: the share of the rows above it is compared with the 1 % that
        queries which mean nothing reach. A gap above it comes second.
        """
        n, floor, gap = len(self.distribution), self.floor, self.gap
        found = ""
        if gap is not None:
            found = (
                f"{counted(gap.matches, 'image stands', 'images stand')} out, score > {gap.threshold:.4f} (the gap "
                f"below is {gap.prominence:.0f} times as wide as usual, chance makes one of {gap.limit:.0f})"
            )
        if floor is None:
            return found or "nothing here stands out: no gap near the top is wider than chance makes one"
        above = self.distribution.matches(floor)
        noise = f"{above:,} of {n:,} images score above {floor:.4f}, queries that mean nothing do on at most 1%"
        if above <= int(NOISE_SHARE * n) and not found:
            return f"nothing here stands out: {noise}"
        return f"{noise}; {found or 'no gap shows where the matches end'}"

    def __repr__(self) -> str:
        head, rows, best = self._cells()
        widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
        lines = ["  ".join(map(str.rjust, cells, widths)) for cells in (head, *rows)]
        if best is not None:
            lines[best + 1] += "  best F1"
        return "\n".join([f"Sweep of {self.query!r}: {self._about()}", *self._measured(), *lines])

    def _repr_html_(self) -> str:
        """Show the curve and some thresholds in a notebook."""
        from embedstore import markup  # only a notebook needs these
        from embedstore.deciding.plots import ScoreHistogramDisplay, ThresholdDisplay

        curve: Display
        if self.curve is None or self.best is None:
            curve = ScoreHistogramDisplay.from_scores(self.scores, name=f"Scores of {len(self.scores):,} rows")
        else:
            curve = ThresholdDisplay.from_curve(self.curve, self.best.threshold)
        try:
            drawn = curve.svg(5.6, 3.4)
        except MissingDependencyError as error:
            drawn = markup.warning(str(error))
        about = "; ".join([self._about(), *self._measured()])
        return markup.heading(f"Sweep of {self.query!r}", about) + drawn + markup.table(*self._cells(), texts=0)

    def _about(self) -> str:
        """Return what there is to say in a line."""
        scores = self.distribution.scores
        said = f"{len(scores):,} rows"
        if len(scores):
            said += f" with scores from {scores[0]:.4f} to {scores[-1]:.4f}"
        return said + (", no labels" if self.curve is None else "")

    def _measured(self) -> list[str]:
        """Return what the labels say, in a line; without labels where to look first."""
        if self.curve is None:
            return [self.suggestion] if len(self.distribution) else []
        best, labelled = self.best, self.labelled
        assert best is not None
        assert labelled is not None
        weighted = "" if labelled.weights is None else ", weighted by how they were picked"
        return [
            f"{len(labelled):,} labelled, {int(labelled.values.sum()):,} of them yes{weighted}: average precision "
            f"{self.curve.average_precision:.4f}, best F1 {best.f1:.4f} at score > {best.threshold:.4f}"
        ]

    def _cells(self) -> tuple[list[str], list[list[str]], int | None]:
        """Return some thresholds as a head and lines of text, and the line of the best F1 where there are labels."""
        columns = self.columns(n=_SHOWN)
        best = None if self.best is None else int(columns["threshold"].searchsorted(self.best.threshold))
        forms = {
            "threshold": ".4f",
            "matches": ",",
            "percentile": ".2f",
            "precision": ".4f",
            "recall": ".4f",
            "f1": ".4f",
        }
        head = [name for name in forms if name in columns]
        rows = zip(*(columns[name].tolist() for name in head), strict=True)
        texts = [[format(value, forms[name]) for name, value in zip(head, row, strict=True)] for row in rows]
        return [name_in_words(name) for name in head], texts, best

    def mark(self, threshold: float) -> str:
        """Say in words what is special of a threshold: that of the best F1, the gap, the noise; or ""."""
        marks = [best] if (best := super().mark(threshold)) else []
        if self.curve is None and self.gap is not None and threshold == self.gap.threshold:
            marks.append("a gap")
        if self.floor is not None and threshold == self.floor:
            marks.append("floor of the noise")
        return ", ".join(marks)

    def _telling(self, n: int) -> NDArray[np.float64]:
        """Return about `n` thresholds where there is something to choose, ascending."""
        if self.curve is not None:
            return self.curve.thresholds[self.curve.telling(n)]
        special = [self.gap.threshold] if self.gap is not None else []
        special += [self.floor] if self.floor is not None else []
        tail = np.geomspace(len(self.distribution) / 2, 1, max(2, n - len(special)))
        return np.unique([*(self.distribution.threshold_for(int(count)) for count in tail), *special])


def sweep(
    reader: Reader, query: Any, labels: Any = None, *, where: Any = None, noise: bool | None = None, **words: Any
) -> Sweep:
    """Score every row for a query, once: every threshold can be asked of the result.

    Parameters
    ----------
    reader : Reader
    query
        All that `Concept.of` reads; its `template`, `weights` and `opposing` are taken too.
    labels : optional
        All that `labels.labels_for` reads.
    where : str, Expression or mask, optional
        Only the rows that this keeps are counted.
    noise : bool, optional
        Also know what queries that mean nothing score, see `noise_floor`: eight texts are embedded, once, when
        thresholds are chosen. By default that is done without labels, for a text, where it costs no request.
    """
    concept = Concept.of(query, **words)
    scores, mask = reader.concept_scores(concept), reader.mask(where)
    swept = ScoreDistribution.of(scores if mask is None else scores[mask])
    labelled = None if labels is None else labels_for(reader.rows, labels).within(reader.rows, where)
    curve = None
    if labelled is not None:
        labelled = labelled.to_measure()
        curve = precision_recall(scores[labelled.positions], labelled.values, labelled.weights)
    free = labels is None and reader.space.backend != "nomic-api" and any(q.kind == "text" for q in concept.queries)

    def floor() -> float | None:
        # Where the model is not here the query's own vector may be known, and these not.
        with contextlib.suppress(*() if noise else (EmbedderError,)):
            nonsense = reader.scores(reader.query_vectors(NONSENSE))
            return swept.noise_floor(nonsense if mask is None else nonsense[:, mask], NOISE_SHARE)
        return None

    asked = floor if noise or (noise is None and free) else None
    return Sweep(concept.label, swept, curve, labelled, scores, asked)


def rank(
    reader: Reader,
    queries: Sequence[Any],
    labels: Any = None,
    *,
    where: Any = None,
    confidence: float = 0.95,
    seed: int = 0,
    **words: Any,
) -> list[dict[str, Any]]:
    """Rank queries by how well they sort labelled rows; queries, labels, `where` and `words` are read as in `sweep`.

    By default the labels are those that the store keeps of the first of the queries of which it has any.

    Returns of each query, the best average precision first, ties in the order of the queries: ``query``;
    ``average_precision``, with the ends ``low`` and ``high`` of its interval on further rows, each query taken alone;
    ``behind`` the best, and ``as_good``, whether it cannot be told from the best by these rows; ``corrected``, for the
    best alone (else None): its average precision without the luck of being chosen; ``roc_auc``, None where all labels
    are of one class; and ``best_f1`` (measured on the rows it is chosen on). See `ranking.Ranking`.
    """
    concepts = [Concept.of(query, **words) for query in queries]
    if not concepts:
        raise QueryError("give at least one query to rank")
    names = [_name_of(concept) for concept in concepts]
    known = next((name for name in names if label_log.history(reader.ledger, name, reader.rows).lines), names[0])
    labels = label_log.own_or(reader, labels, known)
    labelled = labels_for(reader.rows, labels).within(reader.rows, where).to_measure()
    scores = np.stack([reader.concept_scores(concept)[labelled.positions] for concept in concepts])
    ranking = rank_scores(
        scores,
        labelled.values,
        copies(reader, labelled.positions),
        sample_weight=labelled.weights,
        confidence=confidence,
        seed=seed,
    )
    ranked = [
        {
            "query": concept.label,
            "average_precision": curve.average_precision,
            "low": ranking.intervals[number][0],
            "high": ranking.intervals[number][1],
            "behind": float(ranking.behind[number]),
            "as_good": bool(ranking.as_good[number]),
            "corrected": ranking.corrected if number == ranking.best else None,
            "roc_auc": None if np.isnan(curve.roc_auc) else curve.roc_auc,
            "best_f1": float(curve.f1.max()),
        }
        for number, (concept, curve) in enumerate(
            zip(concepts, curves(scores, labelled.values, labelled.weights), strict=True)
        )
    ]
    return sorted(ranked, key=lambda row: -float(row["average_precision"]))


def noise_floor(reader: Reader, query: Any, share: float = NOISE_SHARE) -> float:
    """Return the threshold that nonsense queries exceed on at most `share` of the rows each."""
    distribution = ScoreDistribution.of(reader.concept_scores(Concept.of(query)))
    # As vectors, for which nobody is warned that they hold no known word.
    return distribution.noise_floor(reader.scores(reader.query_vectors(NONSENSE)), share)


def calibrate(
    reader: Reader,
    query: Any,
    labels: Any = None,
    *,
    name: str | None = None,
    label: str | None = None,
    where: Any = None,
    **options: Any,
) -> Classifier:
    """Choose a threshold by labelled rows, and measure it on rows that it was not chosen on.

    Parameters
    ----------
    reader : Reader
    query, labels
        As in `sweep`; by default the labels that the store keeps of the class, see `EmbedStore.labels`.
    name, label : str, optional
        Of the classifier, and of its class; by default made from the query.
    where : str, Expression or mask, optional
        Only labelled rows that this keeps, such as ``"split = 'train'"``.
    **options
        `template`, `weights`, `opposing`: see `Concept.of`. The rest, such as ``objective="f2"`` or
        ``min_precision=0.95``: see `choice.Wishes` and `calibration.calibrate_scores`.

    Returns
    -------
    Classifier
        Not saved; see `EmbedStore.save_classifier`. Its `warnings` say why its figures may say little, such as that
        it is no better than matching every row.

    Raises
    ------
    LabelError
        The labels do not fit, or none is positive.
    UnreachableError
        No threshold keeps the constraints; the message says how near one comes.
    """
    concept, wishes = _concept(query, options)
    named = _name_of(concept)
    labelled = labels_for(reader.rows, label_log.own_or(reader, labels, label or named)).within(reader.rows, where)
    groups = copies(reader, labelled.positions)
    calibrated = [_calibrated(reader, concept, labelled, label or named, wishes, where, groups)]
    return _classifier(reader, name or named, calibrated, "single", labelled, where, groups)


def uncalibrated(reader: Reader, query: Any, threshold: float) -> Classifier:
    """Return the classifier of a query with a threshold that nobody has measured: where labelling begins.

    It and its class have the name that `calibrate` gives them. See `review.ScoredRows`.
    """
    concept = Concept.of(query)
    vector, opponents = reader.concept_vectors([concept])[0]
    target = Target(_name_of(concept), as_threshold(threshold), vector, opponents, **concept.words)
    return Classifier(target.label, reader.space, (target,))


def calibrate_classes(
    reader: Reader,
    queries: dict[str, Any],
    labels: str,
    *,
    name: str,
    mode: Mode = "argmax",
    where: Any = None,
    abstain_below: float = 0.0,
    **options: Any,
) -> Classifier:
    """Calibrate one query and threshold for each class of a label column, and what several decide together.

    `queries` says for each class, by its value in the column `labels`, what to look for. With mode ``"argmax"`` a row
    is of one class or none: the likeliest by all the scores, see `competition.compete`. It is of none where that is
    likelier (known only where rows of other values are labelled) or the class is less probable than `abstain_below`.
    The thresholds are for each class alone. With ``"multi-label"`` a row is of any number. `where`, `options` and
    errors are those of `calibrate`.
    """
    if not queries:
        raise LabelError("give at least one class to calibrate, such as {'dog': 'a photo of a dog'}")
    competing = mode == "argmax" and len(queries) > 1
    if abstain_below and not competing:
        raise InputError(f"{option('abstain_below')} is for several classes that one is decided for, of mode 'argmax'")
    classes = classes_for(reader.rows, labels).within(reader.rows, where)
    groups = copies(reader, classes.positions)
    calibrated, names = [], classes.values.copy()
    for value, query in queries.items():
        concept, wishes = _concept(query, options)
        labelled = labels_for(reader.rows, f"{labels}={value}").within(reader.rows, where)
        calibrated.append(_calibrated(reader, concept, labelled, value, wishes, where, groups))
        names[labelled.values] = value
    targets = [target for target, _ in calibrated]
    measured = ((target.label, calibration.metrics) for target, calibration in calibrated)
    warnings = [swallowing(label, metrics) for label, metrics in measured if metrics is not None]
    competition = None
    if competing:
        scores = [target.score(reader.scores(list(target.vectors)))[classes.positions] for target in targets]
        competition = compete(
            np.stack(scores),
            names.tolist(),
            list(queries),
            groups,
            sample_weight=classes.weights,
            abstain_below=abstain_below,
        )
        warnings += competition.doubts
    made = _classifier(reader, name, calibrated, mode, classes, where, groups, competition)
    return dataclasses.replace(made, warnings=(*made.warnings, *filter(None, warnings)))


def _classifier(
    reader: Reader,
    name: str,
    calibrated: list[tuple[Target, Calibration]],
    mode: Mode,
    labelled: Labelled,
    where: Any,
    groups: Ints,
    competition: Competition | None = None,
) -> Classifier:
    """Make the classifier of calibrated classes, which knows on which rows of which store they were."""
    kept = where if isinstance(where, str) else None if where is not None else ""
    origin = (reader.store_id, reader.version, labelled.source, kept)
    seen = PictureSet.of(pictures_of(reader, labelled.positions))
    made = Classifier.of(name, reader.space, calibrated, mode, *origin, competition, seen)
    near = seen.n - len(np.unique(groups))
    if near <= _FEW_COPIES * seen.n:
        return made
    said = f"{near:,} of {seen.n:,} labelled pictures count as copies of others: their cosine is {COPY_COSINE} or more"
    return dataclasses.replace(made, warnings=(*made.warnings, said))


def _concept(query: Any, options: dict[str, Any]) -> tuple[Concept, dict[str, Any]]:
    """Read a concept by those options that are its own, and return the others."""
    words = {key: value for key, value in options.items() if key in ("template", "weights", "opposing")}
    return Concept.of(query, **words), {key: value for key, value in options.items() if key not in words}


def _calibrated(
    reader: Reader,
    concept: Concept,
    labelled: Labelled,
    label: str,
    wishes: dict[str, Any],
    where: Any,
    groups: Ints,
) -> tuple[Target, Calibration]:
    """Make the class of a concept, with the threshold that labels choose for the rows that `where` keeps.

    `groups` are those of `copies`.
    """
    if len(labelled) < 2:
        few = counted(len(labelled), "labelled row is", "labelled rows are")
        raise LabelError(f"{labelled.source}: {few} too few to choose a threshold by")
    vector, opponents = reader.concept_vectors([concept])[0]
    asked = Target(label, 0.0, vector, opponents, **concept.words)
    every, kept = asked.score(reader.scores(list(asked.vectors))), reader.mask(where)
    scores, population = every[labelled.positions], every if kept is None else every[kept]
    calibration = calibrate_scores(
        scores,
        labelled.values,
        groups,
        sample_weight=labelled.weights,
        random=labelled.random,
        population=population,
        **wishes,
    )
    if calibration.ordering.is_reversed:
        worse, *others = calibration.warnings
        warnings = (f"{worse}; {_opposite(concept, labelled)}", *others)
        calibration = dataclasses.replace(calibration, warnings=warnings)
    if labelled.doubts:
        calibration = dataclasses.replace(calibration, warnings=(*calibration.warnings, *labelled.doubts))
    # Given labels are compared with themselves: whether they are like the store is another question.
    picked_from = None if labelled.weights is None else population
    measured = asked.measured(
        scores,
        labelled.values,
        calibration.figures,
        calibration.intervals,
        labelled.weights,
        picked_from,
        prediction_intervals=calibration.prediction_intervals,
    )
    return measured, calibration


def _opposite(concept: Concept, labelled: Labelled) -> str:
    """Say what to ask instead of a query that sorts the rows the wrong way round."""
    named = labelled.positive
    texts = [str(query.value) for query in concept.queries if query.kind == "text"]
    instead = [f"for {named!r}, which the positive rows are called"] if named and named not in texts else []
    instead += [f"for 'a photo' against {texts[0]!r}"] if texts else []
    return f"ask {', or '.join(instead) or 'for what the positive rows show'}, or turn the labels round"


def _name_of(concept: Concept) -> str:
    """Make a name of the letters and digits of a concept, one that a classifier may have."""
    label = f"minus {concept.label[2:]}" if concept.label.startswith("- ") else concept.label
    text = "".join(c if c.isalnum() or c in " _-" else "" for c in label)
    return free_name(" ".join(text.split()).lstrip("- ")[:MOST_OF_NAME].strip() or "classifier")
