"""A classifier and the rows of another store -> the classifier that fits there, or the rows to label first.

Nothing is known of the labels there: what can be told from scores alone is told by `explanations`, and a threshold is
chosen anew only where the scores say that it may be. The list to label is a `review`; what its labels are worth is
measured by `calibrate`, there.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore.deciding.classifier import Classifier
from embedstore.deciding.evaluation import advices
from embedstore.deciding.review import Review, ScoredRows
from embedstore.deciding.target import Target
from embedstore.errors import ClassifierError, spelt
from embedstore.measures.explanations import Advice
from embedstore.measures.shift import percent
from embedstore.searching.reader import Reader


@dataclass(frozen=True, eq=False)
class Carried:
    """What became of a classifier on the rows of another store."""

    advice: Mapping[str, Advice]
    """By class: whether the scores differ from those of the calibration, why, and which threshold fits."""
    classifier: Classifier | None
    """The classifier to use there, of the same name; None where some class needs labels first."""
    review: Review | None
    """The rows to label; None where none need be, or where there are several classes, which are carried one by one."""

    @property
    def moved(self) -> tuple[str, ...]:
        """The classes that have another threshold there."""
        return tuple(label for label, advice in self.advice.items() if self.classifier and advice.verdict != "none")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the advice by class, and the thresholds to use there, null where there are none."""
        kept = self.classifier
        return {
            "advice": {label: advice.to_dict() for label, advice in self.advice.items()},
            "thresholds": None if kept is None else {target.label: target.threshold for target in kept.targets},
            "to_label": 0 if self.review is None else len(self.review),
        }

    def __str__(self) -> str:
        """Say for each class what was found, and what was taken for true where scores alone cannot tell."""
        told = {
            label: f"{advice.findings} It is taken that only the share of positives changed."
            if self.classifier is not None and advice.verdict == "unclear"
            else str(advice)
            for label, advice in self.advice.items()
        }
        return "\n".join(f"{label}: {said}" for label, said in told.items())


def carry(
    reader: Reader,
    classifier: Classifier,
    *,
    where: Any = None,
    only_prevalence: bool = False,
    over: str | os.PathLike[str] | None = None,
) -> Carried:
    """Say whether a classifier fits the rows of another store, and make the one that does, or a list to label.

    A class whose scores do not differ keeps its threshold. One whose prevalence alone changed gets the threshold that
    was wished for, at the prevalence that is estimated there. Any other needs labels. Nothing is written.

    Parameters
    ----------
    reader : Reader
        The rows there.
    classifier : Classifier
        Chosen by labels, elsewhere.
    where : str, Expression or mask, optional
        Only the rows there that this keeps.
    only_prevalence : bool
        Take it that positives and negatives score there as they did, where scores alone cannot tell: only their shares
        may be others. Where that cannot be, labels are needed all the same.
    over : path, optional
        The review that a list to label will be written over: see `review.ScoredRows.to_label`.

    Raises
    ------
    ClassifierError
        The rows are of another space; or no labels are known that a threshold was chosen by, so that nothing can be
        compared.
    """
    unknown = [target.label for target in classifier.targets if target.summary is None]
    if unknown:
        raise ClassifierError(
            f"{classifier.name!r} does not know which scores its threshold for {unknown[0]!r} was chosen by, so there "
            "is nothing to compare; calibrate it "
            + spelt("(`store.calibrate`)", "(`embedstore calibrate STORE TEXT --label LABELS --name NAME`)")
            + ", here or there"
        )
    found = advices(reader, classifier, where)
    fits = {label: _fits(advice, only_prevalence) for label, advice in found.items()}
    alone = len(classifier.targets) == 1
    # Of classes that compete, a threshold that moves alone takes rows from the others.
    competing = classifier.mode == "argmax" and not alone
    if all(advice.verdict == "none" if competing else fits[label] for label, advice in found.items()):
        return Carried(found, _moved(classifier, found), None)
    review = ScoredRows.of(reader, classifier, where=where).to_label(over=over) if alone else None
    return Carried(found, None, review)


def _fits(advice: Advice, only_prevalence: bool) -> bool:
    """Say whether a threshold can be told without labels."""
    if advice.verdict == "none":
        return True
    return advice.threshold is not None and (advice.verdict == "prevalence" or only_prevalence)


def _moved(classifier: Classifier, found: Mapping[str, Advice]) -> Classifier:
    """Return the classifier with the thresholds that fit, which says that nobody has measured them."""
    targets = tuple(_target(target, found[target.label]) for target in classifier.targets)
    notes = [
        f"{target.label}: score > {target.threshold:.4f} was chosen without labels, for an estimated prevalence of "
        f"{percent(advice.prevalence or 0)} (score > {old.threshold:.4f} by labels elsewhere, where it was "
        f"{percent(advice.prevalence_there or 0)}); its figures are expected, not measured"
        for target, old in zip(targets, classifier.targets, strict=True)
        if (advice := found[target.label]).verdict != "none"
    ]
    if not notes:
        return classifier
    return dataclasses.replace(
        classifier,
        targets=targets,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        warnings=(*classifier.warnings, *notes),
    )


def _target(target: Target, advice: Advice) -> Target:
    """Return a class with the threshold that fits, and with what is then expected of its scores."""
    if advice.verdict == "none" or advice.threshold is None or advice.prevalence is None or target.summary is None:
        return target
    return dataclasses.replace(
        target,
        threshold=advice.threshold,
        metrics={"threshold": advice.threshold, **advice.expected},
        intervals={},
        summary=target.summary.at_prevalence(advice.prevalence, advice.threshold),
    )
