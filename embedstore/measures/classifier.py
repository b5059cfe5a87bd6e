"""A classifier: queries, thresholds, and what is known of them, in one JSON file.

It needs no model and no network: vectors in, decisions out. Making the vectors is left to the embedders,
reading them from a store to `store`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore.errors import ClassifierError, EmbedStoreError
from embedstore.measures.calibration import Calibration
from embedstore.measures.json_files import check_name, read_json, write_json
from embedstore.measures.targets import Target
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, scores

FORMAT = "embedstore.classifier"
FORMAT_VERSION = 1
Mode = Literal["single", "multi-label", "argmax"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """One or several classes that decide on rows of one embedding space.

    Attributes
    ----------
    name : str
        Also the name of its file: letters, digits, ``.``, ``_``, ``-`` and spaces within, at most 100.
    space : Space
        Where the query vectors lie; rows of another space are refused.
    targets : tuple of Target
    mode : str
        ``"single"``: one class, match or not. ``"multi-label"``: each class for itself. ``"argmax"``: the
        class that exceeds its threshold by most, and none (an abstention) where none does.
    objective, constraints, validation : str
        Sentences: what the thresholds were chosen for and how they were measured.
    confidence : float
        Of intervals and guarantees.
    n, n_pos : int
        Labelled rows of the calibration, and positives among them.
    store_id : str
        The store it was calibrated on; "" for none.
    store_version : int or None
        Its version then.
    created_at : str
        ISO 8601, UTC.
    warnings : tuple of str
        Those of the calibration.
    """

    name: str
    space: Space
    targets: tuple[Target, ...]
    mode: Mode = "single"
    objective: str = ""
    constraints: str = ""
    validation: str = ""
    confidence: float = 0.95
    n: int = 0
    n_pos: int = 0
    store_id: str = ""
    store_version: int | None = None
    created_at: str = field(default_factory=lambda: _now())
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are no file names, and classes that do not fit mode or space."""
        check_name(self.name)
        if self.mode not in get_args(Mode):
            raise ClassifierError(f"mode must be one of {get_args(Mode)}, found {self.mode!r}")
        if not self.targets or (self.mode == "single" and len(self.targets) > 1):
            raise ClassifierError(
                f"{len(self.targets)} classes do not make a classifier of mode {self.mode!r}"
            )
        if len(set(self.labels)) < len(self.labels):
            raise ClassifierError(f"each class needs a label of its own, found {list(self.labels)}")
        for target in self.targets:
            if len(target.vector) != self.space.dim:
                raise ClassifierError(
                    f"class {target.label!r} has a vector of {len(target.vector)} numbers, its space {self.space.dim}"
                )

    @classmethod
    def from_calibration(
        cls,
        name: str,
        space: Space,
        calibration: Calibration,
        target: Target,
        store_id: str = "",
        store_version: int | None = None,
    ) -> Classifier:
        """Make the classifier of one class; `target` is what `Target.from_calibration` made of the same."""
        return cls(
            name,
            space,
            (target,),
            objective=str(calibration.choice.objective),
            constraints=str(calibration.choice.constraints),
            validation=calibration.validation,
            confidence=calibration.confidence,
            n=calibration.n,
            n_pos=calibration.n_pos,
            store_id=store_id,
            store_version=store_version,
            warnings=calibration.warnings,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(target.label for target in self.targets)

    @property
    def threshold(self) -> float:
        """The threshold of a classifier of one class."""
        if len(self.targets) > 1:
            raise ClassifierError(f"{self.name!r} has one threshold for each class: see .targets")
        return self.targets[0].threshold

    @property
    def vectors(self) -> Vectors:
        """All query vectors, shape (n_vectors, dim): what must be scored against the rows."""
        return np.concatenate([target.vectors for target in self.targets])

    def scores(self, found: ArrayLike) -> NDArray[np.float32]:
        """Turn the scores of `vectors` over rows, shape (n_vectors, n_rows), into those of the classes.

        Returns
        -------
        ndarray of shape (n_classes, n_rows), float32
        """
        matrix = np.atleast_2d(np.asarray(found, dtype=np.float32))
        if len(matrix) != len(self.vectors):
            raise ClassifierError(
                f"{self.name!r} needs the scores of its {len(self.vectors)} vectors, found {len(matrix)} rows"
            )
        ends = np.cumsum([1 + len(target.opponents) for target in self.targets])
        parts = np.split(matrix, ends[:-1])
        return np.stack([target.score(part) for target, part in zip(self.targets, parts, strict=True)])

    def score_rows(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of the classes for unit vectors of shape (n_rows, dim), as a store computes them."""
        return self.scores(scores(self.vectors, as_vectors(rows, self.space.dim, "rows")))

    def match(self, class_scores: ArrayLike) -> NDArray[np.bool_]:
        """Return which rows match.

        Parameters
        ----------
        class_scores : array-like of shape (n_classes, n_rows), or (n_rows,) with one class
            As from `scores`.

        Returns
        -------
        ndarray of bool, of the same shape
            With mode ``"argmax"`` at most one class matches each row.
        """
        given = np.asarray(class_scores, dtype=np.float32)
        matrix = np.atleast_2d(given)
        if given.ndim > 2 or len(matrix) != len(self.targets):
            raise ClassifierError(
                f"expected scores of {len(self.targets)} classes, found shape {given.shape}"
            )
        matched = np.stack([target.match(row) for target, row in zip(self.targets, matrix, strict=True)])
        if self.mode == "argmax":
            thresholds = np.array([target.threshold for target in self.targets])
            margins = np.where(matched, matrix.astype(np.float64) - thresholds[:, np.newaxis], -np.inf)
            matched &= np.arange(len(matched))[:, np.newaxis] == np.argmax(margins, axis=0)
        return matched.reshape(given.shape)

    def predict(self, what: Any, embedder: Any = None) -> list[str | None]:
        """Return the label of each row or picture, None where nothing matches.

        Parameters
        ----------
        what : EmbedStore, pictures, or ndarray of shape (n_classes, n_rows), floating
            A store's rows; one picture or a list of them (paths, bytes, PIL images, pixel arrays); or class scores.
        embedder : Embedder, optional
            For pictures; by default the one that the classifier's space names.

        Raises
        ------
        ClassifierError
            The mode is ``"multi-label"``, where a row may have several: use `match`.
        """
        if self.mode == "multi-label":
            raise ClassifierError("rows may have several labels with mode 'multi-label': use match()")
        if not (isinstance(what, np.ndarray) and np.issubdtype(what.dtype, np.floating)):
            from embedstore.deciding.predicting import class_scores  # stores and models lie above this module

            what = class_scores(self, what, embedder)
        matched = np.atleast_2d(self.match(what))
        best = np.where(matched.any(axis=0), np.argmax(matched, axis=0), -1)
        return [self.labels[place] if place >= 0 else None for place in best.tolist()]

    def require_space(self, space: Space) -> None:
        """Refuse rows of another space with ClassifierError."""
        try:
            space.require(self.space, f"the classifier {self.name!r}")
        except EmbedStoreError as error:
            raise ClassifierError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = ("name", "mode", "objective", "constraints", "validation", "confidence", "n", "n_pos")
        later = ("store_id", "store_version", "created_at")
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{key: getattr(self, key) for key in (*plain, *later)},
            "space": self.space.to_dict(),
            "warnings": list(self.warnings),
            "targets": [target.to_dict() for target in self.targets],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Classifier:
        """Read what `to_dict` wrote; fields of later versions are ignored.

        Raises
        ------
        ClassifierError
            Not a classifier, of a newer format, or with a field missing or of another kind.
        """
        if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
            raise ClassifierError(f'this is no classifier: it lacks "format": "{FORMAT}"')
        version = fields.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ClassifierError(
                f"the classifier has format version {version!r}, this embedstore reads up to {FORMAT_VERSION}; "
                "upgrade embedstore (pip install -U embedstore), or calibrate again here"
            )
        try:
            space = Space.from_dict(fields["space"])
            plain = ("name", "mode", "objective", "constraints", "validation", "store_id", "created_at")
            return cls(
                **{key: fields[key] for key in plain},
                space=space,
                targets=tuple(Target.from_dict(target, space.dim) for target in fields["targets"]),
                confidence=float(fields["confidence"]),
                n=int(fields["n"]),
                n_pos=int(fields["n_pos"]),
                store_version=fields["store_version"],
                warnings=tuple(map(str, fields["warnings"])),
            )
        except KeyError as error:
            raise ClassifierError(
                f"the classifier lacks the field {error}; calibrate again to make it"
            ) from error
        except (TypeError, ValueError, EmbedStoreError) as error:
            raise ClassifierError(f"the classifier cannot be read: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a file, or to ``NAME.json`` in a folder; readers see the old file or the new, never a
        part.

        Returns
        -------
        Path
            The file written.
        """
        file = Path(path) / f"{self.name}.json" if Path(path).is_dir() else Path(path)
        write_json(file, self.to_dict())
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """Read a saved classifier.

        Raises
        ------
        ClassifierError
            There is no such file, it is not JSON, or not a classifier that this version reads; the message
            names the file.
        """
        fields = read_json(Path(path))
        try:
            return cls.from_dict(fields)
        except ClassifierError as error:
            raise ClassifierError(f"{path}: {error}") from error

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.mode}) in {self.space}"]
        for target in self.targets:
            figures = [
                f"{key} {target.metrics[key]:.4f}"
                for key in ("precision", "recall", "f1")
                if key in target.metrics
            ]
            lines.append(
                f"  {target.label}: score > {target.threshold:.4f}" + "".join(f", {f}" for f in figures)
            )
        if self.objective:
            lines.append(f"  chosen for {self.objective} with {self.constraints}, measured {self.validation}")
        return "\n".join(lines)


def _now() -> str:
    """Return the present time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
