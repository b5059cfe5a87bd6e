"""One class of a classifier: its query, as words and as vectors, its threshold, and what was measured at it.

The vectors are kept to the bit, so that a saved class scores rows without a model. Choosing the threshold is left to
`thresholds`, the file and what several classes decide together to `classifier`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import ClassifierError
from embedstore.measures.chance import Interval
from embedstore.measures.choice import Wishes
from embedstore.measures.curves import above
from embedstore.measures.explanations import Advice, advise
from embedstore.measures.score_summary import ScoreSummary
from embedstore.measures.shift import ERROR, Shift, shift_of
from embedstore.searching.queries import opposed
from embedstore.vectors import Vectors, as_vectors
from embedstore.wording import counted


@dataclass(frozen=True, eq=False)
class Target:
    """What one class looks for."""

    label: str
    """The name of the class, such as ``"dog"``."""
    threshold: float
    """A row matches at ``score > threshold``; 0 while none is chosen."""
    vector: NDArray[np.float32]
    """The query, shape (dim,): one text, or what `queries.combine` made of several."""
    opponents: Vectors = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """Opposing queries, shape (n_opponents, dim); with any, the score is that of `vector` minus the best of theirs."""
    queries: tuple[str, ...] = ()
    """What `vector` and `opponents` were made of, for people to read: see `queries.Concept`."""
    weights: tuple[float, ...] = ()
    template: str | None = None
    opposing: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures by name, as from `Metrics.to_dict`; empty when nobody measured."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """(low, high) by name, as in `calibration.Calibration`."""
    prediction_intervals: Mapping[str, Interval] = field(default_factory=dict)
    """The same; files of before have none, and in their `intervals` what these are now."""
    summary: ScoreSummary | None = None
    """Of the scores of the calibration rows; None when there were none."""

    def __post_init__(self) -> None:
        """Refuse a threshold that nothing can be compared with, and vectors of different length."""
        if not math.isfinite(self.threshold):
            raise ClassifierError(f"class {self.label!r}: the threshold must be finite, found {self.threshold!r}")
        object.__setattr__(self, "vector", as_vectors(self.vector, what=f"class {self.label!r}")[0])
        shape = (len(self.opponents), len(self.vector))
        object.__setattr__(self, "opponents", np.asarray(self.opponents, np.float32).reshape(shape))

    def measured(
        self,
        scores: ArrayLike,
        labels: ArrayLike,
        figures: Mapping[str, float],
        intervals: Mapping[str, Interval] | None = None,
        weights: ArrayLike | None = None,
        population: ArrayLike | None = None,
        *,
        prediction_intervals: Mapping[str, Interval] | None = None,
    ) -> Target:
        """Return this class with the threshold of `figures`, which are named as by `Metrics.to_dict`, and with them.

        Of the scores of the labelled rows, shape (n,), as from `score`, a summary is kept, in which each row counts by
        its weight, and of all the rows that they were picked from, where these are told: see `ScoreSummary.of`.
        """
        return dataclasses.replace(
            self,
            threshold=figures["threshold"],
            metrics=dict(figures),
            intervals=dict(intervals or {}),
            prediction_intervals=dict(prediction_intervals or {}),
            summary=ScoreSummary.of(scores, labels, figures["threshold"], weights, population),
        )

    @property
    def matched_share(self) -> float:
        """Share of the calibration rows that matched; 0 when there were none."""
        return 0.0 if self.summary is None else self.summary.matched_share

    @property
    def figures(self) -> dict[str, float]:
        """The threshold, and what was measured at it, by name."""
        return {"threshold": self.threshold, **self.metrics}

    @property
    def vectors(self) -> Vectors:
        """The query and its opponents, shape (1 + n_opponents, dim): what must be scored against the rows."""
        return np.concatenate([self.vector[np.newaxis], self.opponents])

    def score(self, vector_scores: ArrayLike) -> NDArray[np.float32]:
        """Turn the scores of `vectors`, shape (1 + n_opponents, n_rows), into this class's score of each row."""
        matrix = np.atleast_2d(np.asarray(vector_scores, dtype=np.float32))
        if len(matrix) != 1 + len(self.opponents):
            needed = counted(1 + len(self.opponents), "vector")
            raise ClassifierError(f"class {self.label!r} needs the scores of {needed}, found {len(matrix)}")
        return opposed(matrix[0], matrix[1:]) if len(self.opponents) else matrix[0]

    def match(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Return which scores match: ``score > threshold``."""
        return above(np.asarray(scores), self.threshold)

    def shift(self, scores: ArrayLike, error: float = ERROR) -> Shift | None:
        """Say how scores here differ from those of the calibration; None when nothing is known of those."""
        return None if self.summary is None else shift_of(scores, self.summary, self.threshold, error)

    def advice(self, scores: ArrayLike, wishes: Wishes, error: float = ERROR) -> Advice | None:
        """Say why they differ, and which threshold fits what is wished; None when nothing is known of those there."""
        if self.summary is None:
            return None
        return advise(scores, self.summary, self.threshold, wishes.goal, wishes.limits, error=error)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; vectors as base64 of little-endian float32."""
        others = {name: list(pair) for name, pair in self.prediction_intervals.items()}
        return {
            "label": self.label,
            "threshold": self.threshold,
            "queries": list(self.queries),
            "weights": list(self.weights),
            "template": self.template,
            "opposing": list(self.opposing),
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            **({"prediction_intervals": others} if others else {}),
            "summary": {} if self.summary is None else self.summary.to_dict(),
            "matched_share": self.matched_share,
            "vector": _encode(self.vector),
            "opponents": [_encode(row) for row in self.opponents],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], dim: int) -> Target:
        """Read what `to_dict` wrote, ignoring fields of later versions.

        Raises KeyError where a field is missing, and ClassifierError where one holds something else than it should.
        """
        try:
            summary = dict(fields["summary"])
            return cls(
                label=str(fields["label"]),
                threshold=float(fields["threshold"]),
                vector=_decode(fields["vector"], dim),
                opponents=np.array([_decode(text, dim) for text in fields["opponents"]]),
                queries=tuple(map(str, fields["queries"])),
                weights=tuple(map(float, fields["weights"])),
                template=fields["template"],
                opposing=tuple(map(str, fields["opposing"])),
                metrics=dict(fields["metrics"]),
                intervals=_pairs(fields["intervals"]),
                prediction_intervals=_pairs(fields.get("prediction_intervals", {})),
                summary=ScoreSummary.from_dict(summary, float(fields["matched_share"])) if summary else None,
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ClassifierError(f"a class of the classifier cannot be read: {error}") from error


def _pairs(intervals: Mapping[str, Any]) -> dict[str, Interval]:
    """Read intervals by name."""
    return {name: (float(pair[0]), float(pair[1])) for name, pair in intervals.items()}


def _encode(vector: NDArray[np.float32]) -> str:
    """Write a vector as text, to the bit."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _decode(text: str, dim: int) -> NDArray[np.float32]:
    """Read a vector of `dim` numbers."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ClassifierError(f"a vector is not base64: {error}") from error
    if len(raw) != 4 * dim:
        raise ClassifierError(f"a vector holds {len(raw)} bytes, {4 * dim} are expected for {dim} dimensions")
    return np.frombuffer(raw, dtype="<f4").astype(np.float32)
