"""Rows -> which of them show the same picture: by content, and by vectors that are nearer than different pictures' are.

A picture that was saved anew has another content hash and nearly the same vector. Counted as another picture it would
be taken for more evidence than it is, and stand on both sides of a fold. Content that is one picture twice is left to
`ingest`, which embeds it once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.measures.rates import Ints
from embedstore.searching.reader import Reader
from embedstore.space import Space
from embedstore.vectors import Positions, Vectors

COPY_COSINE = 0.98
"""Rows whose vectors have at least this cosine are taken for one picture, where `tells_pictures_apart`."""
FEWEST_DIMENSIONS = 16
"""Random directions of fewer dimensions reach that cosine by chance; of 16, one pair in 10**11 does."""
MOST_KEPT = 10_000
"""A `PictureSet` keeps so many fingerprints, and is exact for as many pictures."""
_FINGERPRINT = 6
_HEAD, _BLOCK = (
    31,
    512,
)  # products of so few rows stay in a core's own cache, which makes it twice as fast as with 2,048
_EDGES = 2_000_000


def tells_pictures_apart(space: Space) -> bool:
    """Say whether near vectors of a space are a sign of one picture.

    Not with `objects`: its vectors say what a picture shows, and those of different pictures of one thing coincide. Of
    900 photos 77 % had another above 0.98 and 26 % above 0.9999, where only half of JPEG copies (quality 75) were left.
    """
    return space.model != "objects" and space.dim >= FEWEST_DIMENSIONS


def pictures_of(reader: Reader, positions: Positions) -> list[str]:
    """Name the content of each row; one without a content hash is like no other, by its store and id."""
    table = reader.rows.take(positions, ["id", "content_hash"])
    rows = zip(table.column("id").to_pylist(), table.column("content_hash").to_pylist(), strict=True)
    return [content or f"{reader.store_id}/{name}" for name, content in rows]


def copies(reader: Reader, positions: Positions, bound: float = COPY_COSINE) -> Ints:
    """Number the pictures of rows, shape (n,): rows of one content, and rows linked by a cosine of at least `bound`.

    Links are transitive: a picture between two others joins them. Where vectors do not tell pictures apart, the
    content alone does.
    """
    _, first, groups = np.unique(pictures_of(reader, positions), return_index=True, return_inverse=True)
    if len(first) < 2 or not tells_pictures_apart(reader.space):
        return groups.astype(np.int64)
    return linked(reader.rows.vectors(positions[first]), bound)[groups]


def linked(vectors: Vectors, bound: float = COPY_COSINE) -> Ints:
    """Number unit vectors, shape (n, dim), so that those linked by a cosine of at least `bound` get equal numbers.

    Nothing is left out. Rows that lie too far apart in one direction are passed over; the others are multiplied in the
    `_HEAD` strongest directions, where their dot product, plus the product of the lengths of what is left, is no less
    than the whole (Cauchy and Schwarz); and those that reach the bound so, in all. 100,000 rows of 768 dimensions take
    10 to 20 seconds of one core.
    """
    n = len(vectors)
    labels = np.arange(n, dtype=np.int64)
    edges: list[NDArray[np.int64]] = []
    waiting = 0
    for found in _pairs(vectors, bound):
        edges.append(found)
        waiting += found.shape[1]
        if waiting > _EDGES:
            labels, edges, waiting = _joined(labels, edges), [], 0
    return _joined(labels, edges)


def _joined(labels: Ints, edges: Sequence[NDArray[np.int64]]) -> Ints:
    """Return the numbers of the components that edges, shape (2, n_edges) each, make of components."""
    if not edges:
        return labels
    from scipy import sparse  # to apply a classifier takes none of it
    from scipy.sparse.csgraph import connected_components

    ends = labels[np.concatenate(edges, axis=1)]
    graph = sparse.coo_matrix((np.ones(ends.shape[1], np.int8), tuple(ends)), shape=(len(labels), len(labels)))
    joined: Ints = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    return joined


def _pairs(vectors: Vectors, bound: float) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of rows that reach a cosine, as arrays of shape (2, n_pairs)."""
    outline = _outline(vectors)
    varied = int(np.argmax(outline.var(axis=0)))
    order = np.argsort(outline[:, varied])
    outline = outline[order]
    least = np.float32(bound - 1e-5)  # what float32 rounds off
    furthest = np.sqrt(2 - 2 * float(least))  # how far apart, in any direction, two such vectors may lie
    for top in range(0, len(vectors), _BLOCK):
        here = outline[top : top + _BLOCK]
        for left in range(top, len(vectors), _BLOCK):
            if outline[left, varied] - here[-1, varied] > furthest:
                break
            products = here @ outline[left : left + _BLOCK].T
            if products.max() < least:
                continue
            near = products >= least
            if left == top:
                near[np.tri(len(near), dtype=np.bool_)] = False
            rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
            first, second = order[top + rows], order[left + columns]
            whole = vectors[first] @ vectors[second].T >= np.float32(bound)
            whole &= near[np.ix_(rows, columns)]
            i, j = np.nonzero(whole)
            yield np.stack([first[i], second[j]])


def _outline(vectors: Vectors) -> Vectors:
    """Return vectors whose dot products are no less than those of the given ones, of fewer dimensions."""
    if vectors.shape[1] <= _HEAD or len(vectors) <= _BLOCK:
        return vectors
    sample = vectors[:: max(1, len(vectors) // 10_000)].astype(np.float64)
    directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :_HEAD].astype(np.float32)
    head = vectors @ directions
    rest = np.sqrt(np.maximum(np.vecdot(vectors, vectors) - np.vecdot(head, head), 0))
    return np.column_stack([head, rest])


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Which pictures something was chosen on, as fingerprints: uint64, ascending, the smallest of them if many."""

    fingerprints: NDArray[np.uint64]
    n: int
    """Number of different pictures."""

    @classmethod
    def of(cls, pictures: Sequence[str]) -> PictureSet:
        """Make the set of pictures, named as by `pictures_of`."""
        found = np.unique(_fingerprints(pictures))
        return cls(found[:MOST_KEPT], len(found))

    def shared(self, pictures: Sequence[str]) -> tuple[int, bool]:
        """Return how many of these rows show a picture of the set, and whether that is exact.

        Of a set that keeps only the smallest fingerprints, rows with as small ones are looked up, and their share is
        taken for that of all (a bottom-k sketch, Cohen and Kaplan 2007).
        """
        asked = _fingerprints(pictures)
        if self.n <= len(self.fingerprints):
            return int(np.isin(asked, self.fingerprints).sum()), True
        small = asked[asked <= self.fingerprints[-1]]
        if not len(small):
            return 0, False
        return round(float(np.isin(small, self.fingerprints).mean()) * len(asked)), False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; fingerprints as base64 of 6 bytes each."""
        raw = self.fingerprints.astype(">u8").view(np.uint8).reshape(-1, 8)[:, -_FINGERPRINT:]
        return {"n": self.n, "pictures": base64.b64encode(raw.tobytes()).decode("ascii")}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PictureSet:
        """Read what `to_dict` wrote; KeyError, TypeError or ValueError for anything else."""
        return cls(_widened(base64.b64decode(fields["pictures"], validate=True)), int(fields["n"]))


def _fingerprints(pictures: Sequence[str]) -> NDArray[np.uint64]:
    """Return 48 bits of the SHA-256 of each name."""
    return _widened(b"".join(hashlib.sha256(name.encode()).digest()[:_FINGERPRINT] for name in pictures))


def _widened(raw: bytes) -> NDArray[np.uint64]:
    """Read numbers of 6 bytes, the most significant first."""
    short = np.frombuffer(raw, np.uint8).reshape(-1, _FINGERPRINT)
    wide = np.zeros((len(short), 8), np.uint8)
    wide[:, -_FINGERPRINT:] = short
    return wide.view(">u8").astype(np.uint64).reshape(-1)
