"""A FAISS file beside each part: half the bytes to read for a search, and what they may hide.

`build` turns a part's vectors into an index file and a note that describes it; `Shelf` finds the files that belong
to parts, checks every byte of them, and maps them. Files that are stale or damaged count as not there. An index only
proposes rows: scoring them, and proving that none is missing, is left to `shortlist`.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import DamagedStoreError
from embedstore.storage.parts import Part
from embedstore.vectors import Vectors, norms, rounding

KINDS = ("fp16", "ivf", "rabitq")
"""What can be built: ``fp16`` serves exact answers, the others approximate ones."""

PATIENCE = 16 * 2**30
"""Bytes of vectors that a process scans before it imports FAISS: half a second of reading."""

_FORMAT = 1
_BLOCK_ROWS = 8_192
_CHECK_BYTES = 2**20
_SAMPLE = 100_000
_LISTS_VISITED = 16


@dataclass(frozen=True)
class Note:
    """What an index file was made from, and how far its scores may be off.

    Attributes
    ----------
    kind : str
    part : str
        Name of the part's file.
    part_size, size : int
        Bytes of the part and of the index file.
    rows, dim : int
    checksum : str
        Of the index file; see `checksum`.
    error : float
        The largest distance of a vector from what the index keeps of it; infinity where that is not known.
    longest : float
        No vector, and nothing kept of one, is longer.
    """

    kind: str
    part: str
    part_size: int
    size: int
    rows: int
    dim: int
    checksum: str
    error: float
    longest: float


class PartIndex:
    """The index of one part, mapped."""

    def __init__(self, note: Note, index: Any) -> None:
        self.note = note
        self._index = index

    def nearest(
        self, query: Vectors, k: int, first: int, last: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the `k` rows nearest by the index among rows `first` to `last`, nearest first, with its scores.

        Parameters
        ----------
        query : ndarray of shape (1, dim), float32
        k : int
        first, last : int
        mask : ndarray of bool of shape (last - first,), or None
            Which of these rows take part.
        """
        faiss = _faiss()

        faiss.omp_set_num_threads(1)  # of the thread that calls: the executor has one for each core
        whole = mask is None and (first, last) == (0, self.note.rows)
        if whole:
            parameters = self._parameters(None)
        elif mask is None:
            parameters = self._parameters(faiss.IDSelectorRange(first, last))
        else:
            chosen = np.zeros(self.note.rows, bool)
            chosen[first:last] = mask
            bits = np.packbits(chosen, bitorder="little")
            parameters = self._parameters(faiss.IDSelectorBitmap(bits))
        scores, rows = self._index.search(query, k, params=parameters)
        found = rows[0] >= 0
        return rows[0][found].astype(np.intp), scores[0][found]

    def slack(self, length: float) -> float:
        """Return how far the index's score of a row may be from the row's score, for a query of this length.

        |q·x - q·x'| <= |q| |x - x'| (Cauchy and Schwarz) for the vector x and what the index keeps of it, x';
        and both products are rounded, see `vectors.rounding`.
        """
        off = self.note.error + 2 * rounding(self.note.dim) * self.note.longest
        return off * length * (1 + 1e-6)

    def _parameters(self, selector: Any) -> Any:
        faiss = _faiss()

        if self.note.kind == "fp16":
            return None if selector is None else faiss.SearchParameters(sel=selector)
        options = {} if selector is None else {"sel": selector}
        return faiss.SearchParametersIVF(nprobe=_LISTS_VISITED, **options)


class Shelf:
    """The index files of a store.

    Parameters
    ----------
    folder : Path
        The store's ``index/``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[tuple[str, str], PartIndex] = {}
        self._refused: set[tuple[str, str, int]] = set()
        self._scanned = 0

    def pays(self, parts: Sequence[Part], kind: str) -> bool:
        """Tell whether to search by an index from now on; asked before each search.

        To import FAISS and check the files takes as long as several scans, so a process that searches once or
        twice is better off without. It pays once the scans have read `PATIENCE` bytes.
        """
        if self._open:
            return True
        noted = [part for part in parts if part.mapped and self._note_path(part, kind).exists()]
        self._scanned += sum(part.rows * part.dim * 4 for part in noted)
        return self._scanned >= PATIENCE

    def get(self, part: Part, kind: str) -> PartIndex | None:
        """Return the index of a part, or None when there is none that can be trusted.

        The file is read once in sequence to check it. That also brings it into the page cache: FAISS tells the
        kernel that it reads at random, with which a first search from a slow disk takes ten times as long.
        """
        known = self._open.get((part.name, kind))
        if known is not None:
            return known
        note_path = self._note_path(part, kind)
        try:
            refused = (part.name, kind, note_path.stat().st_mtime_ns)
        except OSError:
            return None
        if refused in self._refused:
            return None
        found = _load(note_path, self._path(part, kind), part, kind)
        if found is None:
            self._refused.add(refused)
        else:
            self._open[part.name, kind] = found
        return found

    def get_all(self, parts: Sequence[Part], kind: str, executor: Any) -> dict[str, PartIndex]:
        """Return what `get` returns for each part, by its name, without the parts that have none."""
        found = {part.name: self._open.get((part.name, kind)) for part in parts}
        missing = [part for part in parts if found[part.name] is None and part.mapped]
        if missing:
            names = [part.name for part in missing]
            found.update(zip(names, executor.map(lambda part: self.get(part, kind), missing), strict=True))
        return {name: index for name, index in found.items() if index is not None}

    def build(self, part: Part, kind: str) -> PartIndex:
        """Make the index of a part; a reader never meets half a file."""
        path = self._path(part, kind)
        self._folder.mkdir(exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.{uuid.uuid4().hex[:6]}")
        try:
            faiss = _faiss()

            index, error, longest = _made(part, kind)
            faiss.write_index(index, str(beside))
            note = Note(
                kind=kind,
                part=part.name,
                part_size=part.path.stat().st_size,
                size=beside.stat().st_size,
                rows=part.rows,
                dim=part.dim,
                checksum=checksum(beside),
                error=error,
                longest=longest,
            )
            self._note_path(part, kind).unlink(missing_ok=True)
            beside.replace(path)
            beside.write_text(json.dumps({"format": _FORMAT, **asdict(note)}))
            beside.replace(self._note_path(part, kind))
        finally:
            beside.unlink(missing_ok=True)
        self._open.pop((part.name, kind), None)
        built = self.get(part, kind)
        if built is None:
            raise DamagedStoreError(f"the index of {part.name} cannot be read back; is the disk full?")
        return built

    def prune(self, parts: Iterable[Part]) -> list[str]:
        """Delete the index files of parts that are not among these; return their names."""
        stems = {part.path.stem for part in parts}
        gone = [path for path in self._folder.glob("part-*.*") if path.name.split(".")[0] not in stems]
        for path in gone:
            path.unlink(missing_ok=True)
        return sorted(path.name for path in gone)

    def _path(self, part: Part, kind: str) -> Path:
        return self._folder / f"{part.path.stem}.{kind}.faiss"

    def _note_path(self, part: Part, kind: str) -> Path:
        return self._folder / f"{part.path.stem}.{kind}.json"


def _faiss() -> Any:
    """Import FAISS, which takes a third of a second; its stubs lack the constructors that Python code uses."""
    import faiss

    return faiss


def checksum(path: Path) -> str:
    """Return 64 hex digits that change when any bit of a file does, at the speed of reading it.

    The SHA-256 of the file's size and of the sums, modulo 2**64, of the 64-bit words of each of its mebibytes. It
    finds accidents, not forgery.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        buffer = bytearray(_CHECK_BYTES)
        words = np.frombuffer(buffer, "<u8")
        while length := file.readinto(buffer):
            used = -(-length // 8)
            buffer[length : used * 8] = bytes(used * 8 - length)
            digest.update(int(np.add.reduce(words[:used])).to_bytes(8, "little"))
    return digest.hexdigest()


def _load(note_path: Path, path: Path, part: Part, kind: str) -> PartIndex | None:
    """Open an index file if it is what its note says, and the note is of this part."""
    try:
        fields = json.loads(note_path.read_bytes())
        if fields.pop("format") != _FORMAT:
            return None
        note = Note(**fields)
        expected = (kind, part.name, part.path.stat().st_size, part.rows, part.dim)
        if (note.kind, note.part, note.part_size, note.rows, note.dim) != expected:
            return None
        if path.stat().st_size != note.size or checksum(path) != note.checksum:
            return None
        faiss = _faiss()

        flag = faiss.IO_FLAG_MMAP_IFC if kind == "fp16" else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index = faiss.read_index(str(path), flag)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None  # what cannot be read is not there; `build` makes it again
    if (index.ntotal, index.d, index.metric_type) != (part.rows, part.dim, faiss.METRIC_INNER_PRODUCT):
        return None
    return PartIndex(note, index)


def _made(part: Part, kind: str) -> tuple[Any, float, float]:
    """Return a part's index, the largest distance of a vector from what it keeps, and the largest length."""
    faiss = _faiss()

    if kind == "fp16":
        index = faiss.IndexScalarQuantizer(
            part.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    else:
        index = _trained(part, kind)
    error, longest = 0.0, part.longest
    for start, rows in part.pieces(0, part.rows, _BLOCK_ROWS):
        index.add(np.ascontiguousarray(rows))
        if kind == "fp16":
            kept = index.reconstruct_n(start, len(rows))
            error = max(error, _longest(rows.astype(np.float64) - kept))
            longest = max(longest, _longest(kept))
    return index, error if kind == "fp16" else float("inf"), longest


def _trained(part: Part, kind: str) -> Any:
    """Return an index that divides a part into lists by nearness, ready to be filled."""
    faiss = _faiss()

    lists = max(1, min(int(4 * np.sqrt(part.rows)), part.rows // 39))  # FAISS wants 39 rows a list
    coding = "SQfp16" if kind == "ivf" else "RaBitQ"
    index = faiss.index_factory(part.dim, f"IVF{lists},{coding}", faiss.METRIC_INNER_PRODUCT)
    chosen = np.linspace(0, part.rows - 1, min(part.rows, _SAMPLE)).astype(np.intp)
    index.train(part.take(chosen))
    return index


def _longest(vectors: NDArray[Any]) -> float:
    """Return the largest length, rounded up."""
    return float(norms(np.asarray(vectors)).max(initial=0.0)) * (1 + 1e-9)
