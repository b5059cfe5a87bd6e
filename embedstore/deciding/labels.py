"""Labels in any form -> which rows are labelled, which of them are positive, and for how many others each stands.

A column of the store, a condition, a file of ids or paths, a mapping, an array, what the store's log holds, or several
of these: each ends as positions and booleans. What is done with them is left to `thresholds`, `evaluation` and
`review`, the log itself to `label_log`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedstore.deciding.label_files import LabelFile, file_of, positions_of, split_value, unquoted, value_among
from embedstore.deciding.label_lines import as_truth, is_missing, is_yes_or_no, matches
from embedstore.deciding.rounds import GIVEN, NO, RANDOM, SAME_SIZE, YES, History, Label, Weighed
from embedstore.errors import FilterError, LabelError, did_you_mean, spelt
from embedstore.measures.samples import as_labels
from embedstore.storage.rows import Rows
from embedstore.vectors import Positions
from embedstore.wording import counted

_log = logging.getLogger("embedstore")
_PLAIN = re.compile(r"""[^=<>!'"()]+==?\s*('[^']*'|"[^"]*"|[^'"=<>()]*)""")
"""A column, and one value of it: nothing that only SQL says."""
_WORDS = re.compile(r"[\w.-]+( (?!and |or |in |is |not |like )[\w.-]+)*")
"""A name, or a value that somebody takes for one."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows that have a label, by ascending positions; all arrays of shape (n,)."""

    positions: Positions
    values: NDArray[Any]
    """bool for one class, or the class's name (object) for several."""
    source: str
    """Where the labels came from, in words."""
    positive: str | None = None
    """The value that counts as positive; None where the labels are yes and no, or classes."""
    picked: NDArray[Any] | None = None
    """How each row was picked, object: given, random, near or search; None where all were given."""
    weights: NDArray[np.float64] | None = None
    """For how many rows of the store each stands, see `rounds.Weighed`: NaN where that is not known. None where all
    were given: they count alike."""
    random: NDArray[np.bool_] | None = None
    """Which rows alone are a simple random sample of the store; None where all were given."""
    history: History | None = None
    """What the three above are told by."""
    doubts: tuple[str, ...] = ()
    """Why some rows stand for no others, in words."""

    def __len__(self) -> int:
        return len(self.positions)

    def within(self, rows: Rows, where: Any) -> Labelled:
        """Return the labels of those rows that a condition keeps; LabelError where it keeps none of them."""
        mask = rows.mask(where)
        if mask is None:
            return self
        words = f"{self.source} where {where if isinstance(where, str) else 'a mask holds'}"
        if not mask[self.positions].any():
            raise LabelError(f"{words}: none of the {len(self)} labelled rows is kept; loosen the condition")
        if self.history is not None:
            return _of_history(rows, self.history, words, condition_text(where), mask)
        kept = mask[self.positions]
        return Labelled(self.positions[kept], self.values[kept], words, self.positive)

    @property
    def described(self) -> str:
        """Where the labels came from, and how they count."""
        return self.source if self.weights is None else f"{self.source}, weighted by how they were picked"

    def to_measure(self) -> Labelled:
        """Return the rows of which it is known how they were picked: figures rest on these alone, by their weights.

        Raises LabelError where there are none.
        """
        if self.weights is None:
            return self
        known = np.isfinite(self.weights)
        if not known.any():
            why = f": {'; '.join(self.doubts)}" if self.doubts else ""
            review = "Label what `embedstore review STORE NAME` picks, all of it"
            raise LabelError(
                f"{self.source}: how these rows were picked is not known, so they can choose a threshold and measure "
                f"none{why}. {spelt(review, review, 'Label what “Next to label” shows, all of it')}"
            )
        assert self.picked is not None
        assert self.random is not None
        return dataclasses.replace(
            self,
            positions=self.positions[known],
            values=self.values[known],
            picked=self.picked[known],
            weights=self.weights[known],
            random=self.random[known],
        )


NO_LABELS = Labelled(np.empty(0, np.int64), np.empty(0, np.bool_), "no labels")


def labels_for(rows: Rows, labels: Any) -> Labelled:
    """Read the labels of one class.

    Parameters
    ----------
    rows : Rows
    labels : str, path, mapping, array-like, History, or a list of these
        ``"animal=dog"``, or ``"animal == 'dog'"``: a column of the store and the value that is positive. Another
        condition, as `where` takes them: ``"animal = 'dog' and width > 300"``. A boolean column's name. Rows where
        any of these is null have no label. A path of a CSV, JSON lines or Parquet file with a column ``id`` (or
        ``uri``, ``path``, ``file_name``) and a column ``label`` of yes and no; ``"file.csv:kind=dog"`` for
        another column and value; where it has columns ``picked``, ``probability`` and ``round``, as a review has, they
        are read too. A mapping from ids to booleans. An array of shape (n_rows,), bool, in the order of the store's
        rows, None for no label. What `EmbedStore.labels` returns. What `labels_for` or `labels_of_column` returned. Of
        several sources in a list the labels add up: of a row that has several the last one counts, which is logged.

    Raises
    ------
    LabelError
        They do not fit the rows; the message says how.
    """
    if (sources := _several(labels)) is not None:
        return _joined(rows, [labels_for(rows, source) for source in sources])
    if isinstance(labels, Labelled):
        return labels
    if isinstance(labels, History):
        if not labels.lines:
            none = f"the store has no labels of {labels.concept!r}"
            others = "`embedstore labels STORE` lists what it has"
            raise LabelError(f"{none}; {spelt(others, others, 'label some pictures, or measure by a column')}")
        return _of_history(rows, labels, f"the store's {counted(said(rows, labels), 'label')} of {labels.concept!r}")
    if isinstance(labels, Mapping):
        return _of_pairs(rows, list(labels), list(labels.values()), None, "a mapping", "id")
    if isinstance(labels, os.PathLike) or (isinstance(labels, str) and file_of(labels)):
        return _of_file(rows, os.fspath(labels))
    if isinstance(labels, str):
        return _of_text(rows, labels)
    values = np.asarray(labels, dtype=object).tolist()
    if len(values) != len(rows):
        found = f"{counted(len(values), 'label')} for {counted(len(rows), 'row')}"
        raise LabelError(f"{found}; give one for each, None where there is none")
    return _of_values(np.arange(len(rows)), values, None, "an array")


def labels_of_column(rows: Rows, column: str, value: str) -> Labelled:
    """Read a column of the store as labels: yes where it has a value, no where another, none where it is null.

    Unlike the text ``column=value``, which may name a file, this opens nothing whatever it is given: it is right for
    what a stranger asks. LabelError where there is no such column, or no row has that value.
    """
    if column not in rows.columns:
        raise LabelError(_no_column(rows, column))
    values = rows.metadata([column]).column(column)
    source = f"{column}={value}"
    if pa.types.is_string(values.type):  # the same without a Python object for each row
        no_text = pc.or_(pc.equal(values, ""), pc.utf8_is_space(values))
        known = np.flatnonzero(~np.asarray(pc.fill_null(no_text, True)))
        truth = np.asarray(pc.fill_null(pc.equal(values, value), False)).astype(np.bool_)[known]
        labelled = Labelled(known, truth, source, value)
    else:
        listed = values.to_pylist()
        labelled = _of_values(np.arange(len(listed)), listed, value, source)
    if not labelled.values.any():
        raise LabelError(_no_row(rows, source, column))
    return labelled


def said(rows: Rows, history: History) -> int:
    """Return how many of the rows that are there have a label in a history: yes or no."""
    there = rows.lookup("id").first_of_each(list(history.rows)) >= 0
    return int((there & np.isin(history.answers.astype(str), (YES, NO))).sum())


def histories_in(rows: Rows, labels: Any) -> list[History]:
    """Read labels with all that is told of how rows were picked, also of rows that nobody has answered yet.

    `labels` is read as by `labels_for`; a file may hold labels of several concepts, each of which is a history. One
    that tells how rows were picked stays as it is, also where none of them is answered. Raises LabelError as there.
    """
    if isinstance(labels, os.PathLike) or (isinstance(labels, str) and file_of(labels)):
        histories = LabelFile.read(os.fspath(labels)).histories(rows)
        if histories is not None:
            return histories
    if isinstance(labels, History) and any(line.picked != GIVEN for line in labels.lines):
        return [labels]
    found = labels_for(rows, labels)
    return [found.history or _given(rows, found)]


def condition_text(where: Any) -> str:
    """Return the text of a condition, by which rounds are told apart: "" for none, ? for one that is no text."""
    return "" if where is None else where.strip() if isinstance(where, str) else "?"


def classes_for(rows: Rows, labels: str) -> Labelled:
    """Read the names of the classes of a column; rows where it is null have no label."""
    if not isinstance(labels, str):
        raise LabelError("of several classes the labels are one column that names each row's class; name it")
    if labels not in rows.columns:
        raise LabelError(_no_column(rows, labels))
    values = np.array(rows.metadata([labels]).column(labels).to_pylist(), dtype=object)
    known = np.flatnonzero([value is not None for value in values])
    if not len(known):
        raise LabelError(f"column {labels!r} is null in every row ({len(values):,}); there is nothing to learn from")
    return Labelled(known, np.array([str(value) for value in values[known]], dtype=object), labels)


def _several(labels: Any) -> Sequence[Any] | None:
    """Return the sources that a list names; None where it is none of sources, but of a value for each row."""
    if not isinstance(labels, list | tuple) or not labels:
        return None
    if any(isinstance(one, Mapping | os.PathLike | History) for one in labels):
        return labels
    texts = all(isinstance(one, str) and not is_missing(one) for one in labels)
    return labels if texts and not any(is_yes_or_no(as_truth(one)) for one in labels) else None


def _joined(rows: Rows, parts: Sequence[Labelled]) -> Labelled:
    """Add up the labels of several sources; of a row that has several the last one counts."""
    if len(parts) == 1:
        return parts[0]
    source = " and ".join(part.source for part in parts)
    positions = np.concatenate([part.positions for part in parts])
    values = np.concatenate([part.values for part in parts])
    found, first = np.unique(positions[::-1], return_index=True)
    last = len(positions) - 1 - first
    if twice := len(positions) - len(found):
        sums = np.zeros((2, len(rows)), np.int64)
        np.add.at(sums, (values.astype(np.int64), positions), 1)
        both = int((sums > 0).all(axis=0).sum())
        _log.warning(
            "%s: %s labelled in several of these; the last one counts%s",
            source,
            counted(twice, "row is", "rows are"),
            f"; {both:,} of them yes in one and no in another" if both else "",
        )
    if all(part.history is None for part in parts):
        positive = {part.positive for part in parts}
        return Labelled(found, values[last], source, positive.pop() if len(positive) == 1 else None)
    history = History("", ())
    for part in parts:
        history = history.joined(part.history or _given(rows, part))
    return _of_history(rows, history, source)


def _given(rows: Rows, labelled: Labelled) -> History:
    """Return labels of which nobody has said how they were picked as a history."""
    ids = rows.take(labelled.positions, ["id"]).column("id").to_pylist()
    answers = [YES if value else NO for value in labelled.values.tolist()]
    return History("", tuple(Label(identity, answer) for identity, answer in zip(ids, answers, strict=True)))


def _of_history(
    rows: Rows, history: History, source: str, where: str = "", mask: NDArray[np.bool_] | None = None
) -> Labelled:
    """Find the rows that were answered yes or no, and what they stand for; rows that are gone by now are left out."""
    positions = rows.lookup("id").first_of_each(list(history.rows))
    answered = np.isin(history.answers.astype(str), (YES, NO)) & (positions >= 0)
    if mask is not None:
        answered &= mask[positions]
    if not answered.any():
        raise LabelError(f"{source}: no row has a label")
    order = np.flatnonzero(answered)[np.argsort(positions[answered])]
    values = history.answers[order] == YES
    picked = history.picked[order]
    if (picked == GIVEN).all():
        return Labelled(positions[order], values.astype(np.bool_), source)
    inside = positions >= 0 if mask is None else (positions >= 0) & mask[positions]
    weighed = history.weighed(where, inside)
    weights, random = weighed.weights[order], weighed.random[order]
    if (picked == RANDOM).all() and not any(line.probability for line in history.lines):
        weights, random = np.ones(len(order)), np.ones(len(order), np.bool_)  # as somebody says that they are
    doubts = (*weighed.doubts, *_of_others(rows, weighed))
    return Labelled(positions[order], values.astype(np.bool_), source, None, picked, weights, random, history, doubts)


def _of_others(rows: Rows, weighed: Weighed) -> list[str]:
    """Say where the rounds were picked of more or fewer rows than there are now."""
    if weighed.population is None:
        return []
    mask = rows.mask(weighed.where or None)
    now = len(rows) if mask is None else int(mask.sum())
    if math.isclose(weighed.population, now, rel_tol=SAME_SIZE):
        return []
    return [
        f"the rounds were picked of {weighed.population:,.0f} rows, and there are {now:,} now: the figures are of "
        "those of then; another round brings them up to date"
    ]


def _of_text(rows: Rows, text: str) -> Labelled:
    """Read a column's name, a column and a value, or a condition."""
    column, value = split_value(text)
    if column in rows.columns:
        values = rows.metadata([column]).column(column).to_pylist()
        chosen = None if value is None else value_among(values, value)
        if value is None or chosen is not None:
            return _of_values(np.arange(len(values)), values, chosen, text, lambda row: _no_truth(text, values[row]))
    plain = (_PLAIN if value is not None else _WORDS).fullmatch(text) is not None
    if plain and column not in rows.columns:
        raise LabelError(_no_labels(rows, text, column))
    try:
        truth = _or_empty(rows, rows.mask(text))
        known = np.flatnonzero(_or_empty(rows, rows.mask(f"({text}\n) is not null")))
    except FilterError as error:
        if plain:
            raise LabelError(_no_row(rows, text, column)) from None
        raise LabelError(f"{error}. Say which rows are positive by COLUMN=VALUE, or by SQL as in --where") from None
    if plain and not truth.any():
        raise LabelError(_no_row(rows, text, column))
    if not len(known):
        raise LabelError(f"{text}: no row has a label")
    return Labelled(known, truth[known], text)


def _or_empty(rows: Rows, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return a mask; all rows where there is none."""
    return np.ones(len(rows), np.bool_) if mask is None else mask


def _no_column(rows: Rows, name: str) -> str:
    guess = did_you_mean(name, rows.columns)
    return f"there is no column {name!r}; the columns are {', '.join(rows.columns)}" + (f".{guess}" if guess else "")


def _no_labels(rows: Rows, text: str, column: str) -> str:
    """Say that a text is neither a file nor a column; and where it is a value, of which column."""
    if text != column:
        return f"{text!r} is neither a file nor a column and its value: {_no_column(rows, column)}"
    held = (name for name, values in _texts(rows) if text in values)
    guess = next((f" Did you mean {name}={text}?" for name in held), did_you_mean(text, rows.columns))
    return (
        f"{text!r} is neither a file nor a column of the store.{guess} Say which rows are positive by COLUMN=VALUE; "
        f"the columns are {', '.join(rows.columns)}"
    )


def _texts(rows: Rows) -> Iterator[tuple[str, set[Any]]]:
    """Yield the columns of texts that are no name of a picture, with their values."""
    for field in rows.snapshot.schema:
        if pa.types.is_string(field.type) and field.name not in ("id", "uri", "content_hash"):
            yield field.name, set(rows.metadata([field.name]).column(0).unique().to_pylist())


def _no_row(rows: Rows, text: str, column: str) -> str:
    """Say that no row has a column's value, and which values there are."""
    seen = sorted({str(one) for one in rows.metadata([column]).column(0).to_pylist() if one is not None})
    shown = ", ".join(seen[:12]) + (", ..." if len(seen) > 12 else "")
    guess = did_you_mean(unquoted(split_value(text)[1] or ""), seen)
    held = f"the values are {shown}" if seen else "no row has any value there"
    return f"no row has {text}; {held}" + (f".{guess}" if guess else "")


def _of_file(rows: Rows, text: str) -> Labelled:
    """Read the labels of a file, by the columns that it has or that the text names."""
    file = LabelFile.read(text)
    histories = file.histories(rows)
    if histories is None:
        found = _of_pairs(rows, file.names, file.values, file.positive, file.path, file.key, file.neither)
        return dataclasses.replace(found, source=text)
    if len(histories) > 1:
        named = ", ".join(history.concept for history in histories)
        raise LabelError(
            f"{text} has labels of {len(histories)} concepts ({named}); keep those of one, as "
            "`embedstore labels STORE NAME --export labels.csv` writes them"
        )
    return _of_history(rows, histories[0], text)


def _of_pairs(
    rows: Rows,
    names: list[Any],
    values: list[Any],
    positive: str | None,
    source: str,
    key: str,
    blame: Callable[[int], str] | None = None,
) -> Labelled:
    """Read the labels of rows that are named, each once."""
    positions = positions_of(rows, names, source, key)
    order = np.argsort(positions)
    positions = positions[order]
    if (positions[1:] == positions[:-1]).any():
        raise LabelError(f"{source} names a row twice; keep one label for each")
    places = order.tolist()
    sorted_blame = None if blame is None else lambda number: blame(places[number])
    return _of_values(positions, [values[place] for place in places], positive, source, sorted_blame)


def _of_values(
    positions: Positions,
    values: list[Any],
    positive: str | None,
    source: str,
    blame: Callable[[int], str] | None = None,
) -> Labelled:
    """Turn values into booleans, leaving out what has no label; `blame` says of one, by its place, what is wrong."""
    known = [number for number, value in enumerate(values) if not is_missing(value)]
    if not known:
        raise LabelError(f"{source}: no row has a label")
    kept = [values[number] for number in known]
    if positive is not None:
        found = np.array([matches(value, positive) for value in kept], dtype=np.bool_)
    else:
        read = [as_truth(value) for value in kept]
        wrong = next((number for number, value in enumerate(read) if not is_yes_or_no(value)), None)
        if wrong is not None and blame is not None:
            raise LabelError(blame(known[wrong]))
        mixed = None if wrong is None else object  # NumPy would make texts of numbers that stand beside texts
        found = as_labels(np.array(read, dtype=mixed), what=source)
    return Labelled(positions[known], found, source, positive)


def _no_truth(column: str, value: Any) -> str:
    return (
        f"{column}: expected true and false (or yes and no), found {value!r}; say which value is positive, as in "
        f"{column}={value}"
    )
