"""One class of a classifier: its query, as words and as vectors, and its threshold.

The vectors are kept to the bit, so that a saved class scores rows without a model.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import ClassifierError
from embedstore.measures.calibration import Calibration
from embedstore.measures.distribution import ScoreDistribution
from embedstore.measures.prompts import opposed
from embedstore.measures.shift import Shift, distribution_shift
from embedstore.measures.thresholds import above
from embedstore.vectors import Vectors, as_vectors


@dataclass(frozen=True, eq=False)
class Target:
    """What one class looks for.

    Attributes
    ----------
    label : str
        The name of the class, such as ``"dog"``.
    threshold : float
        A row matches at ``score > threshold``.
    vector : ndarray of shape (dim,), float32
        The query: one text, or what `prompts.combine` made of several.
    opponents : ndarray of shape (n_opponents, dim), float32
        Opposing queries; with any, the score is that of `vector` minus the best of theirs.
    queries : tuple of str
        The texts (or paths of images) that `vector` was made of, for people to read.
    weights : tuple of float
        The weight of each; empty when all count the same.
    template : str or None
        The prompt template that the texts were set into.
    opposing : tuple of str
        The texts of `opponents`.
    metrics : dict
        Figures by name, as from ``Metrics.to_dict()``; empty when nobody measured.
    intervals : dict
        (low, high) by name, as in `calibration.Calibration`.
    summary : dict
        The scores of the calibration rows, as from ``ScoreDistribution.summary()``; empty when there were
        none.
    matched_share : float
        Share of the calibration rows that matched.
    """

    label: str
    threshold: float
    vector: NDArray[np.float32]
    opponents: Vectors = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    queries: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    template: str | None = None
    opposing: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    matched_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a threshold that nothing can be compared with, and vectors of different length."""
        if not math.isfinite(self.threshold):
            raise ClassifierError(
                f"class {self.label!r}: the threshold must be finite, found {self.threshold!r}"
            )
        object.__setattr__(self, "vector", as_vectors(self.vector, what=f"class {self.label!r}")[0])
        shape = (len(self.opponents), len(self.vector))
        object.__setattr__(self, "opponents", np.asarray(self.opponents, np.float32).reshape(shape))

    @classmethod
    def from_calibration(
        cls,
        label: str,
        calibration: Calibration,
        scores: ArrayLike,
        vector: ArrayLike,
        opponents: ArrayLike | None = None,
        **words: Any,
    ) -> Target:
        """Make a class of a calibration.

        Parameters
        ----------
        label : str
        calibration : Calibration
        scores : array-like of shape (n,)
            The scores that were calibrated on; a summary of them is kept.
        vector, opponents
            See the attributes.
        **words
            `queries`, `weights`, `template`, `opposing`: see the attributes.
        """
        seen = ScoreDistribution.of(scores)
        return cls(
            label,
            calibration.threshold,
            as_vectors(vector)[0],
            np.empty((0, 0), np.float32) if opponents is None else as_vectors(opponents),
            metrics=calibration.metrics.to_dict(),
            intervals=dict(calibration.intervals),
            summary=seen.summary(),
            matched_share=seen.matches(calibration.threshold) / len(seen),
            **words,
        )

    @property
    def vectors(self) -> Vectors:
        """The query and its opponents, shape (1 + n_opponents, dim): what must be scored against the rows."""
        return np.concatenate([self.vector[np.newaxis], self.opponents])

    def score(self, found: ArrayLike) -> NDArray[np.float32]:
        """Turn the scores of `vectors`, shape (1 + n_opponents, n_rows), into this class's score of each row."""
        matrix = np.atleast_2d(np.asarray(found, dtype=np.float32))
        if len(matrix) != 1 + len(self.opponents):
            raise ClassifierError(
                f"class {self.label!r} needs the scores of {1 + len(self.opponents)} vectors, found {len(matrix)}"
            )
        return opposed(matrix[0], matrix[1:]) if len(self.opponents) else matrix[0]

    def match(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Return which scores match: ``score > threshold``."""
        return above(np.asarray(scores), self.threshold)

    def shift(self, scores: ArrayLike) -> Shift | None:
        """Say how scores here differ from those of the calibration; None when nothing is known of those."""
        if not self.summary:
            return None
        return distribution_shift(scores, self.summary, self.threshold, self.matched_share)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; vectors as base64 of little-endian float32."""
        return {
            "label": self.label,
            "threshold": self.threshold,
            "queries": list(self.queries),
            "weights": list(self.weights),
            "template": self.template,
            "opposing": list(self.opposing),
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "summary": dict(self.summary),
            "matched_share": self.matched_share,
            "vector": _encode(self.vector),
            "opponents": [_encode(row) for row in self.opponents],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], dim: int) -> Target:
        """Read what `to_dict` wrote, ignoring fields of later versions.

        Raises
        ------
        KeyError
            A field is missing.
        ClassifierError
            A field holds something else than it should.
        """
        try:
            return cls(
                label=str(fields["label"]),
                threshold=float(fields["threshold"]),
                vector=_decode(fields["vector"], dim),
                opponents=_stack([_decode(text, dim) for text in fields["opponents"]], dim),
                queries=tuple(map(str, fields["queries"])),
                weights=tuple(map(float, fields["weights"])),
                template=fields["template"],
                opposing=tuple(map(str, fields["opposing"])),
                metrics=dict(fields["metrics"]),
                intervals={
                    name: (float(pair[0]), float(pair[1])) for name, pair in fields["intervals"].items()
                },
                summary=dict(fields["summary"]),
                matched_share=float(fields["matched_share"]),
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ClassifierError(f"a class of the classifier cannot be read: {error}") from error


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


def _stack(rows: Sequence[NDArray[np.float32]], dim: int) -> Vectors:
    """Return rows as a matrix, also when there are none."""
    return np.stack(rows) if rows else np.empty((0, dim), dtype=np.float32)
