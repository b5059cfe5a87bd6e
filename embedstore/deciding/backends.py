"""One model, two backends -> how far apart their vectors lie, and what that does to scores and thresholds.

A sample of a store's pictures (`of_rows`) or of a source's (`of_source`) is embedded by both; the `Comparison` prints.
Which embedders are meant is left to the callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore import images
from embedstore.embedders import protocol
from embedstore.embedders.batches import Outcome, embed
from embedstore.embedders.protocol import Embedder
from embedstore.errors import ImageError, InputError
from embedstore.measures.rates import Floats
from embedstore.searching.reader import Reader
from embedstore.sources import open_source, pictures_at
from embedstore.space import Space
from embedstore.vectors import Positions, Vectors
from embedstore.wording import counted

QUERIES = ("a photo of a person", "a photo of an animal", "a photo of food", "a photo of a building", "a vehicle")
"""What is asked when the caller names no queries."""

SHARES = (0.01, 0.05, 0.1, 0.25)
"""Shares of the pictures for which thresholds are compared."""

_PERCENTILES = (50, 95, 99, 100)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two backends on the same pictures and queries; scores have the shape (n_queries, n_pictures)."""

    first: Space
    second: Space
    queries: list[str]
    gaps: Floats
    """``1 - cosine`` of the two vectors of each picture; 0 when they are equal."""
    first_scores: Floats
    """The first's query vectors with its own pictures' vectors; in `second_scores` those of the second."""
    second_scores: Floats
    mixed_scores: Floats
    """Query vectors of the second with pictures' vectors of the first: what ``--allow-mixed-backend`` gives."""

    def thresholds(self, share: float) -> Floats:
        """Return the thresholds above which `share` of the pictures lie, shape (n_queries, 3): first, second, mixed.

        Midway between the neighbouring scores, as calibration places them.
        """
        count = self.gaps.size
        matches = min(max(1, round(share * count)), count - 1)
        ascending: Floats = np.sort([self.first_scores, self.second_scores, self.mixed_scores])
        return (ascending[:, :, -matches] + ascending[:, :, -matches - 1]).T / 2

    def flips(self, share: float) -> tuple[Floats, Floats]:
        """Return the shares of pictures that decide otherwise under the first's threshold, by query: second, mixed."""
        limit = self.thresholds(share)[:, :1]
        own = self.first_scores > limit
        other, mixed = self.second_scores > limit, self.mixed_scores > limit
        return (own != other).mean(axis=1), (own != mixed).mean(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        shifts = {"second": self.second_scores - self.first_scores, "mixed": self.mixed_scores - self.first_scores}
        return {
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "pictures": int(self.gaps.size),
            "queries": self.queries,
            "cosine_gap": {"mean": float(self.gaps.mean())}
            | {f"p{p}": float(np.percentile(self.gaps, p)) for p in _PERCENTILES},
            "score_shift": {
                name: {"mean": float(shift.mean()), "largest": float(np.abs(shift).max())}
                for name, shift in shifts.items()
            },
            "thresholds": [self._at(share) for share in SHARES if self.gaps.size * share >= 1],
        }

    def _at(self, share: float) -> dict[str, Any]:
        """Return what the threshold for a share of the pictures costs, over all queries."""
        first, second, mixed = self.thresholds(share).T
        flips_second, flips_mixed = self.flips(share)
        return {
            "share": share,
            "shift_second": float(np.abs(second - first).max()),
            "shift_mixed": float(np.abs(mixed - first).max()),
            "flips_second": float(flips_second.mean()),
            "flips_mixed": float(flips_mixed.mean()),
        }

    def __str__(self) -> str:
        about = self.to_dict()
        gap, shift = about["cosine_gap"], about["score_shift"]
        lines = [
            f"first   {self.first}",
            f"second  {self.second}",
            f"{counted(self.gaps.size, 'picture')}, {counted(len(self.queries), 'query', 'queries')}",
            "",
            "1 - cosine of a picture's two vectors:  " + "  ".join(f"{key} {value:.2e}" for key, value in gap.items()),
            f"scores, all of the second backend:      shift {shift['second']['mean']:+.5f} on average, at most "
            f"{shift['second']['largest']:.5f}",
            f"scores, only the query of the second:   shift {shift['mixed']['mean']:+.5f} on average, at most "
            f"{shift['mixed']['largest']:.5f}",
        ]
        if about["thresholds"]:
            lines += [
                "",
                "threshold for   shifts by at most         decides otherwise unless moved",
                "                second      mixed         second      mixed",
            ]
        for row in about["thresholds"]:
            lines.append(
                f"top {row['share']:>5.0%}       {row['shift_second']:.5f}     {row['shift_mixed']:.5f}       "
                f"{row['flips_second']:>6.2%}      {row['flips_mixed']:>6.2%}"
            )
        return "\n".join(lines)


def of_rows(
    reader: Reader, second: Embedder, sample: int = 200, queries: Sequence[str] = QUERIES, seed: int = 0
) -> Comparison:
    """Compare a store's own vectors with another backend's, on a sample of its pictures.

    The store's pictures are not embedded again; its query vectors come from its cache where they can. Raises
    SpaceMismatchError where the second embedder is of another model, and InputError where fewer than two of the
    pictures can be read where they were.
    """
    _require_same_model(reader.space, second.space)
    chosen = _sample(len(reader), sample, seed)
    rows = reader.rows.take(chosen, ["uri", "content_hash"]).to_pylist()
    pictures = pictures_at(row["uri"] for row in rows)
    prepared, positions = [], []
    for position, row in zip(chosen.tolist(), rows, strict=True):
        try:
            picture = images.read(pictures[row["uri"]])
        except (KeyError, ImageError, OSError):
            continue  # not there any more: the sample is what can be read, and its size is printed
        if picture.content_hash == row["content_hash"]:
            prepared.append(second.prepare(picture.image))
            positions.append(position)
    if len(positions) < 2:
        raise InputError(
            f"{len(positions)} of {len(chosen)} pictures can be read where they were; name a folder instead"
        )
    return _compared(
        reader.space,
        reader.rows.vectors(np.array(positions, np.int64)),
        reader.query_vectors(list(queries)),
        second,
        _embedded(second, prepared),
        queries,
    )


def of_source(
    source: Any, first: Embedder, second: Embedder, sample: int = 200, queries: Sequence[str] = QUERIES, seed: int = 0
) -> Comparison:
    """Compare two backends on a sample of a source's pictures, each embedded by both.

    Raises SpaceMismatchError where they are of two models, and InputError for a source with fewer than two pictures
    that can be read.
    """
    _require_same_model(first.space, second.space)
    records = list(open_source(source))
    pictures = []
    for place in _sample(len(records), sample, seed):
        try:
            pictures.append(images.read(records[place].load()).image)
        except (ImageError, OSError):
            continue  # as in `of_rows`
    if len(pictures) < 2:
        raise InputError(f"{len(pictures)} of {len(records)} pictures can be read; a comparison needs two")
    one, two = (_embedded(each, [each.prepare(picture) for picture in pictures]) for each in (first, second))
    return _compared(first.space, one, protocol.texts(first, list(queries)), second, two, queries)


def _compared(
    first: Space, one: Vectors, one_texts: Vectors, second: Embedder, two: Vectors, queries: Sequence[str]
) -> Comparison:
    """Compare the vectors of pictures and queries that two backends made."""
    a, b = one.astype(np.float64), two.astype(np.float64)
    p, q = one_texts.astype(np.float64), protocol.texts(second, list(queries)).astype(np.float64)
    gaps = np.square(a - b).sum(axis=1) / 2  # equals 1 - a.b for unit vectors, without its cancellation
    return Comparison(first, second.space, list(queries), gaps, p @ a.T, q @ b.T, q @ a.T)


def _embedded(embedder: Embedder, prepared: Sequence[Any]) -> Vectors:
    """Embed prepared pictures, in order; raises the error of the first that is refused."""
    outcomes: dict[str, Outcome] = {}
    embed(((str(n), item) for n, item in enumerate(prepared)), lambda: embedder, outcomes.update)
    vectors = []
    for number in range(len(prepared)):
        if isinstance(outcome := outcomes[str(number)], Exception):
            raise outcome
        vectors.append(outcome)
    return np.stack(vectors)


def _sample(total: int, size: int, seed: int) -> Positions:
    """Draw positions without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:size])


def _require_same_model(first: Space, second: Space) -> None:
    """Refuse two models with SpaceMismatchError."""
    if not first.same_model(second):
        first.require(second, "the second backend")
