"""Classes -> a classifier: queries, thresholds, and what is known of them, in one JSON file.

It needs no model and no network to decide on rows: vectors in, decisions out. One class is a `target`, what several
decide together a `competition`; both are made by `thresholds`, how right they are is measured by `evaluation`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedstore import files
from embedstore.deciding.labels import Labelled
from embedstore.deciding.same_pictures import PictureSet, pictures_of
from embedstore.deciding.target import Target
from embedstore.errors import ClassifierError, EmbedStoreError, did_you_mean, spelt
from embedstore.measures.calibration import FIGURES, Calibration, figure_rows
from embedstore.measures.competition import Competition, words_of
from embedstore.measures.rates import name_in_words
from embedstore.searching.reader import Reader
from embedstore.space import Space
from embedstore.vectors import Vectors, as_vectors, scores

if TYPE_CHECKING:
    import pandas as pd

    from embedstore.embedders.protocol import Embedder

FORMAT = "embedstore.classifier"
FORMAT_VERSION = 2
Mode = Literal["single", "multi-label", "argmax"]

_ORIGIN = ("store_id", "store_version", "created_at")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


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
        The classes, each with its query and threshold.
    mode : str
        ``"single"``: one class, match or not. ``"multi-label"``: each class for itself. ``"argmax"``: the
        likeliest class, or none (an abstention), by `competition`; in a classifier without one, such as one saved in
        format version 1, the class that exceeds its threshold by most, which compares what cannot be compared.
    objective, constraints, validation, confidence, n, n_pos, warnings
        What the thresholds were chosen for and how they were measured, as in `calibration.Calibration`, but in words.
    store_id, store_version : str, int or None
        The store that it was calibrated on, "" for none, and its version then.
    created_at : str
        ISO 8601, UTC.
    labelled : str
        Where the labels came from that the thresholds were chosen by, in words.
    where : str or None
        The condition that kept the rows they were chosen on; "" for none, None where it was no text or is not known.
    competition : Competition, optional
        How several classes decide for one of them: only with mode ``"argmax"``.
    chosen_on : PictureSet, optional
        The labelled pictures that all this was chosen on, None where they are not known.
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
    created_at: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    warnings: tuple[str, ...] = ()
    labelled: str = ""
    where: str | None = None
    competition: Competition | None = None
    chosen_on: PictureSet | None = None

    def __post_init__(self) -> None:
        """Refuse names that are no file names, and classes that do not fit mode or space."""
        check_name(self.name)
        if self.mode not in get_args(Mode):
            raise ClassifierError(f"mode must be one of {get_args(Mode)}, found {self.mode!r}")
        if not self.targets or (self.mode == "single" and len(self.targets) > 1):
            raise ClassifierError(f"{len(self.targets)} classes do not make a classifier of mode {self.mode!r}")
        if len(set(self.labels)) < len(self.labels):
            raise ClassifierError(f"each class needs a label of its own, found {list(self.labels)}")
        for target in self.targets:
            if len(target.vector) != self.space.dim:
                raise ClassifierError(
                    f"class {target.label!r} has a vector of {len(target.vector)} numbers, its space {self.space.dim}"
                )
        competing = self.competition
        if competing is not None and (self.mode != "argmax" or competing.classes != self.labels):
            raise ClassifierError(
                f"{', '.join(competing.classes)} compete; they do not fit a classifier of mode {self.mode!r} with the "
                f"classes {', '.join(self.labels)}"
            )

    @classmethod
    def of(
        cls,
        name: str,
        space: Space,
        calibrated: Sequence[tuple[Target, Calibration]],
        mode: Mode = "single",
        store_id: str = "",
        store_version: int | None = None,
        labelled: str = "",
        where: str | None = None,
        competition: Competition | None = None,
        chosen_on: PictureSet | None = None,
    ) -> Classifier:
        """Make the classifier of classes, each with its calibration; all of them asked for the same."""
        first = calibrated[0][1]
        how = {target.label: calibration.validation for target, calibration in calibrated}
        validation = "; ".join(f"{label}: {one}" for label, one in how.items())
        warnings = [
            text if mode == "single" else f"{target.label}: {text}"
            for target, calibration in calibrated
            for text in calibration.warnings
        ]
        return cls(
            name,
            space,
            tuple(target for target, _ in calibrated),
            mode,
            objective=str(first.choice.objective),
            constraints=str(first.choice.constraints),
            validation=first.validation if len(set(how.values())) == 1 else validation,
            confidence=first.confidence,
            n=first.n,
            n_pos=sum(calibration.n_pos for _, calibration in calibrated),
            store_id=store_id,
            store_version=store_version,
            warnings=tuple(warnings),
            labelled=labelled,
            where=where,
            competition=competition,
            chosen_on=chosen_on,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(target.label for target in self.targets)

    @property
    def target(self) -> Target:
        """The class of a classifier of one class; ClassifierError where there are several."""
        if len(self.targets) > 1:
            raise ClassifierError(
                f"{self.name!r} has {len(self.targets)} classes, with one threshold for each"
                f"{spelt(' (see .targets)', '')}; this is done for one class at a time, choose from "
                f"{', '.join(self.labels)}"
            )
        return self.targets[0]

    def of_class(self, label: str) -> Classifier:
        """Return the classifier of one of several classes, which decides by that class's threshold alone.

        Raises ClassifierError where there is no such class.
        """
        if label not in self.labels:
            raise ClassifierError(f"{self.name!r} has no class {label!r}; choose from {', '.join(self.labels)}")
        target = self.targets[self.labels.index(label)]
        return dataclasses.replace(self, targets=(target,), mode="single", competition=None)

    @property
    def threshold(self) -> float:
        """The threshold of a classifier of one class."""
        return self.target.threshold

    @property
    def vectors(self) -> Vectors:
        """All query vectors, shape (n_vectors, dim): what must be scored against the rows."""
        return np.concatenate([target.vectors for target in self.targets])

    def scores(self, vector_scores: ArrayLike) -> NDArray[np.float32]:
        """Turn the scores of `vectors`, shape (n_vectors, n_rows), into those of the classes, (n_classes, n_rows)."""
        matrix = np.atleast_2d(np.asarray(vector_scores, dtype=np.float32))
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
        """Return which rows match, in the shape of the scores; with mode ``"argmax"`` at most one class for each row.

        The scores are those of the classes, as from `scores`: shape (n_classes, n_rows), or (n_rows,) with one class.
        """
        matrix, shape = self._lines(class_scores)
        if self.competition is not None:
            matched: NDArray[np.bool_] = np.arange(len(matrix))[:, np.newaxis] == self.competition.decide(matrix)
            return matched.reshape(shape)
        matched = np.stack([target.match(row) for target, row in zip(self.targets, matrix, strict=True)])
        if self.mode == "argmax":
            thresholds = np.array([target.threshold for target in self.targets])
            margins = np.where(matched, matrix.astype(np.float64) - thresholds[:, np.newaxis], -np.inf)
            matched &= np.arange(len(matched))[:, np.newaxis] == np.argmax(margins, axis=0)
        return matched.reshape(shape)

    def probabilities(self, class_scores: ArrayLike) -> NDArray[np.float64]:
        """Return how probable each class is for each row, shape (n_classes, n_rows), for scores of that shape.

        What is missing to 1 is the probability of none of them. They are those of rows among which the classes are as
        frequent as among the labelled ones. ClassifierError where the classes do not compete by probability.
        """
        if self.competition is None:
            raise ClassifierError(
                f"the classes of {self.name!r} do not compete by probability: that is so after calibrate_classes with "
                "mode 'argmax' and several classes"
            )
        return self.competition.probabilities(self._lines(class_scores)[0])

    def _lines(self, class_scores: ArrayLike) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Return scores of the classes as a matrix, and the shape that they came in."""
        values = np.asarray(class_scores, dtype=np.float32)
        matrix = np.atleast_2d(values)
        if values.ndim > 2 or len(matrix) != len(self.targets):
            raise ClassifierError(f"expected scores of {len(self.targets)} classes, found shape {values.shape}")
        return matrix, values.shape

    def predict(self, what: Any, embedder: Embedder | None = None) -> list[str | None]:
        """Return the label of each row or picture, None where nothing matches.

        Parameters
        ----------
        what : EmbedStore or Reader, pictures, or ndarray of shape (n_classes, n_rows), floating
            A store's rows; one picture or a list of them (paths, bytes, PIL images, pixel arrays), each embedded once
            in a process; or class scores.
        embedder : Embedder, optional
            For pictures; by default the one that the classifier's space names.

        Raises
        ------
        ClassifierError
            The mode is ``"multi-label"``, where a row may have several: use `match`.
        """
        if self.mode == "multi-label":
            raise ClassifierError("rows may have several labels with mode 'multi-label': use match()")
        reader = getattr(what, "reader", what)
        if isinstance(reader, Reader):
            what = self.scores_in(reader)
        elif not (isinstance(what, np.ndarray) and np.issubdtype(what.dtype, np.floating)):
            from embedstore.embedders.registry import embedder_for_space  # only pictures need a model
            from embedstore.ingest.cached_embedder import CachedEmbedder

            cached = CachedEmbedder(self.space, lambda: embedder or embedder_for_space(self.space))
            what = self.score_rows(cached.pictures(what if isinstance(what, list | tuple) else [what]))
        matched = np.atleast_2d(self.match(what))
        best = np.where(matched.any(axis=0), np.argmax(matched, axis=0), -1)
        return [self.labels[place] if place >= 0 else None for place in best.tolist()]

    def scores_in(self, reader: Reader) -> NDArray[np.float32]:
        """Return the scores of the classes for a reader's rows; ClassifierError if its space is another."""
        self.require_space(reader.space)
        return self.scores(reader.scores(list(self.vectors)))

    def held_out(self, reader: Reader, labelled: Labelled) -> str:
        """Say in words whether it was chosen on other pictures than those of these labelled rows of a reader.

        Pictures are known by their content, in other stores too; copies that were encoded anew are others.
        """
        if not self.n:
            return "the threshold was chosen by no labels"
        if self.chosen_on is None:
            return "whether the rows were held out is not known"
        shared, exact = self.chosen_on.shared(pictures_of(reader, labelled.positions))
        if not shared:
            elsewhere = " on another store" if self.store_id not in ("", reader.store_id) else " on other pictures"
            return f"held out: the threshold was chosen{f' where {self.where}' if self.where else elsewhere}"
        if shared == len(labelled):
            return "not held out: the threshold was chosen on these rows"
        some = f"{'' if exact else 'about '}{shared:,} of these {len(labelled):,} rows"
        return f"not held out: the threshold was chosen on {some} ({self.labelled})"

    def require_space(self, space: Space) -> None:
        """Refuse rows of another space with ClassifierError."""
        try:
            space.require(self.space, f"the classifier {self.name!r}")
        except EmbedStoreError as error:
            raise ClassifierError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        measured = ("objective", "constraints", "validation", "confidence", "n", "n_pos")
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{key: getattr(self, key) for key in ("name", "mode", *measured, *_ORIGIN)},
            "space": self.space.to_dict(),
            "warnings": list(self.warnings),
            **({"labelled": self.labelled, "where": self.where} if self.labelled else {}),
            **({"competition": self.competition.to_dict()} if self.competition is not None else {}),
            **({"chosen_on": self.chosen_on.to_dict()} if self.chosen_on is not None else {}),
            "targets": [target.to_dict() for target in self.targets],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Classifier:
        """Read what `to_dict` wrote, or the content of a file; fields of later versions are ignored.

        Raises ClassifierError for what is no classifier, is of a newer format, does not fit its checksum where there
        is one, or lacks a field or has one of another kind.
        """
        if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
            raise ClassifierError(f'this is no classifier: it lacks "format": "{FORMAT}"')
        version = fields.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ClassifierError(
                f"the classifier has format version {version!r}, this embedstore reads up to {FORMAT_VERSION}; "
                "use a newer embedstore, or calibrate again here"
            )
        if files.is_sealed(fields) and not files.is_intact(fields):
            raise ClassifierError(
                "the classifier does not fit its checksum: it is damaged, or was edited. Restore it from a copy or "
                'calibrate again; to accept an edit, delete the line of the "checksum"'
            )
        try:
            space = Space.from_dict(fields["space"])
            plain = ("name", "mode", "objective", "constraints", "validation", *_ORIGIN)
            targets = tuple(Target.from_dict(target, space.dim) for target in fields["targets"])
            competing, chosen_on = fields.get("competition"), fields.get("chosen_on")
            return cls(
                **{key: fields[key] for key in plain},
                space=space,
                targets=targets,
                confidence=float(fields["confidence"]),
                n=int(fields["n"]),
                n_pos=int(fields["n_pos"]),
                warnings=tuple(map(str, fields["warnings"])),
                labelled=str(fields.get("labelled", "")),
                where=None if (where := fields.get("where")) is None else str(where),
                competition=None if competing is None else Competition.from_dict(competing, [t.label for t in targets]),
                chosen_on=None if chosen_on is None else PictureSet.from_dict(chosen_on),
            )
        except KeyError as error:
            raise ClassifierError(f"the classifier lacks the field {error}; calibrate again to make it") from error
        except (TypeError, ValueError, OverflowError, EmbedStoreError) as error:
            raise ClassifierError(f"the classifier cannot be read: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a file, or to ``NAME.json`` in a folder, and return the file; readers see the old or the new.

        The file carries a checksum of all its fields, on a line that can be taken out by who edits others.
        """
        file = Path(path) / f"{self.name}.json" if Path(path).is_dir() else Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        plain = self.to_dict()
        checksum = files.sealed(plain)["checksum"]
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "checksum": checksum, **plain}
        files.replace(file, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
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
        try:
            return cls.from_dict(json.loads(files.read_regular(path)))
        except ClassifierError as error:
            raise ClassifierError(f"{path}: {error}") from error
        except FileNotFoundError as error:
            saved = spelt("calibrate one and save it there", "a store keeps its own in STORE/classifiers/NAME.json")
            raise ClassifierError(f"there is no classifier at {path}; {saved}") from error
        except OSError as error:
            raise ClassifierError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ClassifierError(
                f"{path} is not JSON ({error}); restore it from a copy, or calibrate again"
            ) from error

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a row for each class.

        Columns ``label``, ``queries``, ``opposing``, ``threshold``, and what was measured at it: ``precision``,
        ``recall``, ``f1``, each with ``_low`` and ``_high``, the ends of its interval; NaN where nobody measured.
        """
        import pandas as pd

        rows = []
        for target in self.targets:
            row: dict[str, Any] = {"label": target.label, "queries": list(target.queries)}
            row |= {"opposing": list(target.opposing), "threshold": target.threshold}
            for name in FIGURES:
                low, high = target.intervals.get(name, (math.nan, math.nan))
                row |= {name: target.figures.get(name, math.nan), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        if self.mode == "single":
            decides = _in_a_line(self.target)
        else:
            decides = f"{self.mode} of {len(self.targets)} classes ({', '.join(self.labels)})"
        return f"Classifier({self.name!r}, {decides}, {self.space.model})"

    def _repr_html_(self) -> str:
        """Show the classes, their thresholds and figures in a notebook."""
        from embedstore import markup  # only a notebook needs it

        head = ("class", "looks for", "score >", *map(name_in_words, FIGURES))
        rows = []
        for target in self.targets:
            against = f" against {', '.join(target.opposing)}" if target.opposing else ""
            figures = (_with_interval(target, name) for name in FIGURES)
            rows.append((target.label, ", ".join(target.queries) + against, f"{target.threshold:.4f}", *figures))
        chosen = ""
        if self.objective:
            chosen = f", chosen for {self.objective} with {self.constraints}, measured {self.validation}"
        about = f"{self.mode}, in {self.space}{chosen}"
        page = markup.heading(self.name, about) + markup.table(head, rows, texts=2)
        if self.competition is not None:
            page += markup.heading("Which class", words_of(self.competition)) + _decided_table(self.competition)
        return page + "".join(map(markup.warning, self.warnings))

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.mode}) in {self.space}"]
        lines += [f"  {target.label}: {_in_a_line(target)}" for target in self.targets]
        if self.objective:
            lines.append(f"  chosen for {self.objective} with {self.constraints}, measured {self.validation}")
        if self.competition is not None:
            lines.append(f"  {words_of(self.competition)}")
        elif self.mode == "argmax" and len(self.targets) > 1:
            lines.append(
                "  warning: it compares what classes exceed their thresholds by, which means little; calibrate again"
            )
        lines += [f"  warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def _in_a_line(target: Target) -> str:
    """Return the threshold and the figures of a class."""
    (_, threshold, _), *figures = figure_rows(target.figures, target.intervals)
    return f"score > {threshold:.4f}" + "".join(f", {name_in_words(name)} {value:.4f}" for name, value, _ in figures)


def _decided_table(competition: Competition) -> str:
    """Show what was decided for each class of the labelled rows."""
    from embedstore import markup

    counts = competition.confusion
    if counts is None:
        return ""
    rows = [(name, *(f"{getattr(one, figure):.4f}" for figure in FIGURES)) for name, one in counts.by_class.items()]
    return markup.table(("class", *map(name_in_words, FIGURES)), rows, texts=1)


def _with_interval(target: Target, name: str) -> str:
    if name not in target.figures:
        return ""
    ends = target.intervals.get(name)
    return f"{target.figures[name]:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


def find(folder: Path, name: str) -> Classifier:
    """Return a classifier that a store keeps in its ``classifiers/``.

    Raises ClassifierError where there is none of that name; the message names those that there are.
    """
    file = folder / f"{check_name(name)}.json"
    if not file.exists():
        kept = sorted(file.stem for file in folder.glob("*.json"))
        raise ClassifierError(
            f"this store keeps no classifier {name!r}; it keeps {', '.join(kept) or 'none yet'}."
            f"{did_you_mean(name, kept)} "
            + spelt(
                "`store.save_classifier(store.calibrate(query, labels))` keeps one",
                "`embedstore calibrate STORE TEXT --label LABELS --name NAME` makes one",
            )
        )
    return Classifier.load(file)


def check(folder: Path) -> list[str]:
    """Return a line for each file in a store's ``classifiers/`` that cannot be read as it was saved."""
    problems = []
    for file in sorted(folder.glob("*.json")):
        try:
            Classifier.load(file)
        except ClassifierError as error:
            problems.append(str(error))
    return problems


def free_name(name: str) -> str:
    """Return a name with a hyphen after it where a system has it reserved, such as ``con``; else as it is."""
    return f"{name}-" if _RESERVED.fullmatch(name) else name


def check_name(name: str) -> str:
    """Return a name that can be a file's on every system, or raise ClassifierError."""
    well_formed = isinstance(name, str) and re.fullmatch(r"\w(?:[\w .-]{0,98}[\w-])?", name)
    if not well_formed or _RESERVED.fullmatch(name):
        raise ClassifierError(
            f"{name!r} cannot name a classifier: use up to 100 letters, digits, '.', '_', '-' or spaces, "
            "starting with a letter or digit"
        )
    return name
