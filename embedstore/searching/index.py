"""A FAISS file beside each part: a quarter or half of the bytes to read for a search, and what they may hide.

`IndexFiles` turns a part's vectors into an index file and a note that describes it, finds the files that belong to
parts, checks every byte of them, and maps them. Files that are stale or damaged count as not there. An index only
proposes rows: scoring them, and proving that none is missing, is left to `shortlist`; which parts
of a store are indexed, and by whom, to `index_build`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import files
from embedstore.errors import DamagedStoreError
from embedstore.storage.parts import Part
from embedstore.vectors import Vectors, norms, rounding

_log = logging.getLogger("embedstore")

EXACT = ("int8", "fp16")
"""Serve exact answers, the one that reads least first. What int8 cannot prove within reason, fp16 may."""
APPROXIMATE = ("ivf", "rabitq")
KINDS = (*EXACT, *APPROXIMATE)
"""What can be built."""
RECALL_AT = 20
"""How many of the nearest rows the recall of an approximate index is measured on."""

PATIENCE = 16 * 2**30
"""Bytes of vectors that a process scans before it imports FAISS: half a second of reading."""

_FORMAT = 3
"""1 had no checksum of the note itself, and one of the file that does not see bytes change places; 2 had no scale."""
_LARGEST_CODE = 127
_BLOCK_ROWS = 8_192
_SAMPLE = 100_000
_LISTS_VISITED = 16


@dataclass(frozen=True)
class Note:
    """What an index file was made from, and how far its scores may be off."""

    kind: str
    part: str
    """Name of the part's file."""
    part_size: int
    size: int
    """Bytes of the part, and of the index file."""
    rows: int
    dim: int
    file_checksum: str
    """Of every byte of the index file; see `files.checksum`."""
    error: float
    """The largest distance of a vector from what the index keeps of it; infinity where that is not known."""
    longest: float
    """No vector, and nothing kept of one, is longer."""
    scale: float
    """What is kept are the components times this; 1 but for int8."""


@dataclass(frozen=True)
class Asked:
    """What the indexes of one kind are asked in place of a query: `vector` / `scale`, `moved` away from it.

    `vector` has the shape (1, dim). Neither the query nor what stands for it is longer than `length`.
    """

    vector: Vectors
    scale: float
    moved: float
    length: float

    @classmethod
    def of(cls, query: Vectors, kind: str) -> Asked:
        """Return what stands for a query, shape (1, dim).

        For int8 it is rounded to whole numbers: then FAISS counts in whole numbers, which are the same on every
        processor, where it is off by thousands for other queries.
        """
        vector, scale = query, 1.0
        if kind == "int8":
            scale = _LARGEST_CODE / (float(np.abs(query).max()) or 1.0)
            vector = np.rint(query.astype(np.float64) * scale).astype(np.float32)
        instead = vector.astype(np.float64) / scale
        return cls(vector, scale, _longest(query - instead), max(_longest(query), _longest(instead)))


@dataclass(frozen=True)
class Question:
    """What one part's index is asked: its scores times `unit` are within `slack` of the rows' scores."""

    vector: Vectors
    """Shape (1, dim)."""
    unit: float
    slack: float


class PartIndex:
    """The index of one part, mapped."""

    def __init__(self, note: Note, index: Any) -> None:
        self.note = note
        self._index = index

    def question(self, asked: Asked) -> Question:
        """Return what this index is asked, and how far it may be off.

        With x' for what the index keeps of a vector x, and q' for what is asked in place of the query q,
        |q·x - q'·x'| <= |q - q'| |x| + |q'| |x - x'| (Cauchy and Schwarz); and both products are rounded, see
        `vectors.rounding`.
        """
        note = self.note
        off = asked.moved * note.longest + asked.length * (note.error + 2 * rounding(note.dim) * note.longest)
        return Question(asked.vector, 1 / (asked.scale * note.scale), off * (1 + 1e-6))

    def nearest(
        self, asked: Question, k: int, first: int, last: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the `k` rows nearest by the index among rows `first` to `last`, nearest first, with its scores.

        The scores are in the unit of the rows' own. `mask`, of shape (last - first,), says which of these rows take
        part.
        """
        faiss = imported_faiss()
        faiss.omp_set_num_threads(1)  # of the thread that calls: the executor has one for each core
        options: dict[str, Any] = {}
        if mask is not None:
            chosen = np.zeros(self.note.rows, bool)
            chosen[first:last] = mask
            bits = np.packbits(chosen, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        elif (first, last) != (0, self.note.rows):
            options["sel"] = faiss.IDSelectorRange(first, last)
        if self.note.kind in EXACT:
            parameters = faiss.SearchParameters(**options) if options else None
        else:
            parameters = faiss.SearchParametersIVF(nprobe=_LISTS_VISITED, **options)
        scores, rows = self._index.search(asked.vector, k, params=parameters)
        found = rows[0] >= 0
        return rows[0][found].astype(np.intp), scores[0][found].astype(np.float64) * asked.unit


class IndexFiles:
    """The index files of a store, in its folder ``index/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[tuple[str, str], PartIndex] = {}
        self._refused: set[tuple[str, str, int]] = set()
        self._scanned = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without what is mapped here."""
        return (IndexFiles, (self._folder.absolute(),))

    def pays(self, parts: Sequence[Part], kinds: Sequence[str]) -> bool:
        """Tell whether to search by an index from now on; asked before each search.

        To import FAISS and check the files takes as long as several scans, so a process that searches once or
        twice is better off without. It pays once the scans have read `PATIENCE` bytes.
        """
        if self._open:
            return True
        noted = [
            part
            for part in parts
            if part.mapped and any(_note_beside(self._path(part, kind)).exists() for kind in kinds)
        ]
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
        path = self._path(part, kind)
        try:
            refused = (part.name, kind, _note_beside(path).stat().st_mtime_ns)
        except OSError:
            return None
        if refused in self._refused:
            return None
        try:
            found = self._open[part.name, kind] = _load(path, part, kind)
        except _UnusableError as why:
            self._refused.add(refused)
            if why.damaged:
                _log.warning("index/%s, so it is not used; `embedstore index STORE --kind %s` makes it anew", why, kind)
            return None
        return found

    def get_all(self, parts: Sequence[Part], kind: str, executor: Any) -> dict[str, PartIndex]:
        """Return what `get` returns for each part, by its name, without the parts that have none."""
        missing = [part for part in parts if part.mapped and (part.name, kind) not in self._open]
        if missing:
            list(executor.map(lambda part: self.get(part, kind), missing))
        indexes = {part.name: self._open.get((part.name, kind)) for part in parts}
        return {name: index for name, index in indexes.items() if index is not None}

    def build(self, part: Part, kind: str) -> PartIndex:
        """Make the index of a part; a reader never meets half a file."""
        path = self._path(part, kind)
        self._folder.mkdir(exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.{uuid.uuid4().hex[:6]}")
        try:
            faiss = imported_faiss()
            index, error, longest, scale = _made(part, kind)
            try:
                faiss.write_index(index, str(beside))
            except RuntimeError as refused:
                why = str(refused).rpartition(": ")[2]
                raise OSError(errno.EIO, f"the index cannot be written: {why}", str(beside)) from refused
            about = {**_about(part, kind), "size": beside.stat().st_size, "file_checksum": files.checksum(beside)}
            note = Note(**about, error=error, longest=longest, scale=scale)
            _note_beside(path).unlink(missing_ok=True)
            beside.replace(path)
            files.replace(_note_beside(path), _written({"format": _FORMAT, **asdict(note)}), durable=False)
        finally:
            beside.unlink(missing_ok=True)
        self._open.pop((part.name, kind), None)
        built = self.get(part, kind)
        if built is None:
            raise DamagedStoreError(f"the index of {part.name} cannot be read back; is the disk full?")
        return built

    def check(self, parts: Iterable[Part]) -> list[str]:
        """Read every byte of the index files of parts again; return a line for each file that is damaged.

        A file that is not there, or that an earlier embedstore wrote, is no damage: it is not used.
        """
        return [
            f"index/{why}; searches do without, `embedstore index STORE --kind {kind}` makes it anew"
            for _, kind, why in self._damaged(parts)
        ]

    def discard_damaged(self, parts: Iterable[Part], *, dry_run: bool = False) -> list[str]:
        """Delete the index files of parts that are damaged, with their notes; return their names."""
        names = []
        for path, _, _ in self._damaged(parts):
            names.append(path.name)
            if not dry_run:
                _note_beside(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        return names

    def _damaged(self, parts: Iterable[Part]) -> Iterator[tuple[Path, str, _UnusableError]]:
        """Read every byte of the index files of parts; yield those that are damaged, of which kind, and why."""
        for part in parts:
            for kind in KINDS if part.mapped else ():
                path = self._path(part, kind)
                try:
                    _read(path, part, kind)
                except _UnusableError as why:
                    if why.damaged:
                        yield path, kind, why

    def prune(self, parts: Iterable[Part]) -> list[str]:
        """Delete the index files of parts that are not among these, and half-made ones; return their names.

        The caller holds the store's lock, so nobody is making one.
        """
        stems = {part.path.stem for part in parts}
        gone = [
            path
            for path in self._folder.glob("part-*.*")
            if path.name.split(".")[0] not in stems or path.suffix not in (".faiss", ".json")
        ]
        for path in gone:
            path.unlink(missing_ok=True)
        for opened in list(self._open):
            if Path(opened[0]).stem not in stems:
                self._open.pop(opened, None)  # the part may come back, by `restore`, without these files
        return sorted(path.name for path in gone)

    def _path(self, part: Part, kind: str) -> Path:
        return self._folder / f"{part.path.stem}.{kind}.faiss"


def _note_beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _about(part: Part, kind: str) -> dict[str, Any]:
    """Return what a note says of the part."""
    return {"kind": kind, "part": part.name, "part_size": part.size, "rows": part.rows, "dim": part.dim}


def imported_faiss() -> Any:
    """Import FAISS, which takes a third of a second; its stubs lack the constructors that Python code uses."""
    import faiss

    return faiss


class _UnusableError(Exception):
    """Why an index file is not used; one that is `damaged` is worth a word."""

    def __init__(self, reason: str, *, damaged: bool = True) -> None:
        super().__init__(reason)
        self.damaged = damaged


def _read_note(path: Path, part: Part, kind: str) -> Note:
    """Return the note beside an index file, if it is whole and of this part.

    A note that is not, to the byte, what this module writes is damaged.
    """
    beside = _note_beside(path)
    try:
        raw = beside.read_bytes()
    except FileNotFoundError as error:
        raise _UnusableError("it is not there", damaged=False) from error
    except OSError as error:
        raise _UnusableError(f"{beside.name} cannot be read ({error})") from error
    try:
        fields = json.loads(raw)
        sealed = files.is_sealed(fields)
        if sealed and (not files.is_intact(fields) or _written(fields) != raw):
            raise _UnusableError(f"{beside.name} does not fit its checksum")
        if fields["format"] in range(1, _FORMAT) and sealed == (fields["format"] > 1):
            raise _UnusableError(f"{beside.name} was written by an earlier embedstore", damaged=False)
        if not sealed:
            raise _UnusableError(f"{beside.name} has no checksum")
        if fields["format"] != _FORMAT:
            raise _UnusableError(f"{beside.name} was written by a later embedstore", damaged=False)
        note = Note(**{name: fields[name] for name in Note.__dataclass_fields__})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _UnusableError(f"{beside.name} is no note of an index") from error
    try:
        about = _about(part, kind)
    except OSError as error:
        raise _UnusableError(f"{part.name} is gone", damaged=False) from error
    if {**asdict(note), **about} != asdict(note):
        raise _UnusableError(f"{beside.name} is of another part, or of this one before it changed")
    return note


def _written(fields: dict[str, Any]) -> bytes:
    return json.dumps(files.sealed(fields)).encode()


def _read(path: Path, part: Part, kind: str) -> Note:
    """Return the note of an index file, every byte of which was found to be as it was written."""
    note = _read_note(path, part, kind)
    try:
        if path.stat().st_size != note.size:
            raise _UnusableError(f"{path.name} has another length than it was written with")
        if files.checksum(path) != note.file_checksum:
            raise _UnusableError(f"{path.name} does not fit its checksum")
    except OSError as error:
        raise _UnusableError(f"{path.name} cannot be read ({error})") from error
    return note


def _load(path: Path, part: Part, kind: str) -> PartIndex:
    """Open an index file if it is what its note says, and the note is of this part."""
    note = _read(path, part, kind)
    faiss = imported_faiss()
    flag = faiss.IO_FLAG_MMAP_IFC if kind in EXACT else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), flag)
    except (OSError, RuntimeError) as error:
        raise _UnusableError(f"{path.name} cannot be read ({error})") from error
    if (index.ntotal, index.d, index.metric_type) != (part.rows, part.dim, faiss.METRIC_INNER_PRODUCT):
        raise _UnusableError(f"{path.name} holds other rows than {part.name}")
    return PartIndex(note, index)


def _made(part: Part, kind: str) -> tuple[Any, float, float, float]:
    """Return a part's index, the largest distance of a vector from what it keeps, the largest length, and the scale."""
    if kind not in EXACT:
        index = _trained(part, kind)
        for _, rows in part.pieces(0, part.rows, _BLOCK_ROWS):
            index.add(np.ascontiguousarray(rows))
        return index, float("inf"), part.longest, 1.0
    faiss = imported_faiss()
    codes, scale = faiss.ScalarQuantizer.QT_fp16, 1.0
    if kind == "int8":
        # One scale for all, so that a whole-number query has whole-number scores.
        codes = faiss.ScalarQuantizer.QT_8bit_direct_signed
        scale = _LARGEST_CODE / (max(_largest(rows) for _, rows in part.pieces(0, part.rows, _BLOCK_ROWS)) or 1.0)
    index = faiss.IndexScalarQuantizer(part.dim, codes, faiss.METRIC_INNER_PRODUCT)
    error, longest = 0.0, part.longest
    for start, rows in part.pieces(0, part.rows, _BLOCK_ROWS):
        wide = rows.astype(np.float64)
        index.add(np.rint(wide * scale).astype(np.float32) if kind == "int8" else np.ascontiguousarray(rows))
        kept = index.reconstruct_n(start, len(rows)).astype(np.float64) / scale
        error = max(error, _longest(wide - kept))
        longest = max(longest, _longest(kept))
    return index, error, longest, scale


def _largest(vectors: Vectors) -> float:
    """Return the largest component, without its sign; a damaged vector's NaN does not count."""
    return float(np.fmax.reduce(np.abs(vectors), axis=None, initial=0.0))


def _trained(part: Part, kind: str) -> Any:
    """Return an index that divides a part into lists by nearness, ready to be filled."""
    faiss = imported_faiss()
    lists = max(1, min(int(4 * np.sqrt(part.rows)), part.rows // 39))  # FAISS wants 39 rows a list
    coding = "SQfp16" if kind == "ivf" else "RaBitQ"
    index = faiss.index_factory(part.dim, f"IVF{lists},{coding}", faiss.METRIC_INNER_PRODUCT)
    chosen = np.linspace(0, part.rows - 1, min(part.rows, _SAMPLE)).astype(np.intp)
    index.train(part.take(chosen))
    return index


def _longest(vectors: NDArray[Any]) -> float:
    """Return the largest length, rounded up; that of a damaged vector, NaN, does not count."""
    return float(np.fmax.reduce(norms(np.asarray(vectors)), initial=0.0)) * (1 + 1e-9)
