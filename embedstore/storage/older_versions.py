"""What only older versions of a store hold: vectors that are found again until `vacuum`, and what a vacuum would cost.

`OlderPictures` turns a content hash into the vector that a row had which is no row any more. `VacuumReport` says which
files go and what goes with them. Which parts older versions need is known by `table`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedstore.errors import StoreError
from embedstore.storage.arrow_columns import pa
from embedstore.storage.parts import Part
from embedstore.storage.rows import Lookup, Rows
from embedstore.storage.table import DeltaFolder, conform
from embedstore.vectors import Mask, Positions, Vectors
from embedstore.wording import counted

_log = logging.getLogger("embedstore")

_KEYS = ("content_hash", "id")
_SIZES = ("width", "height")


class OlderPictures:
    """Pictures that older versions hold and the newest does not. Threads may share one.

    Nothing is read before the first question. Then the content hashes are, of the parts that only older versions need;
    and of each part that a picture is asked of every byte, once, to be compared with its checksum. What is damaged, has
    no checksums, or was deleted by a vacuum meanwhile is not there.

    Parameters
    ----------
    table : DeltaFolder
    rows : Rows
        The newest version.
    """

    def __init__(self, table: DeltaFolder, rows: Rows) -> None:
        self._table, self._rows = table, rows
        self._lock = threading.Lock()
        self._gone: _Gone | None = None
        self._checked: dict[str, _SoundPart | None] = {}

    def __contains__(self, content_hash: str) -> bool:
        return self._find(content_hash) is not None

    def vector(self, content_hash: str) -> Vectors | None:
        """Return the vector of a picture, shape (dim,), or None."""
        found = self._find(content_hash)
        return None if found is None else found[0].part.take([found[1]])[0]

    def size(self, content_hash: str) -> tuple[int | None, int | None]:
        """Return (width, height) of a picture, in pixels, upright; None where that is not known."""
        found = self._find(content_hash)
        if found is None:
            return None, None
        part, row = found
        width, height = (column[row].as_py() for column in part.sizes.columns)
        return width, height

    def _find(self, content_hash: str) -> tuple[_SoundPart, int] | None:
        with self._lock:
            if self._gone is None:
                self._gone = _Gone.of(self._table.former(self._rows.snapshot), self._rows)
            for part, row in self._gone.places(content_hash):
                if part.name not in self._checked:
                    self._checked[part.name] = _SoundPart.of(part)
                sound = self._checked[part.name]
                if sound is not None and not sound.damaged[row]:
                    return sound, row
        return None


@dataclass(frozen=True)
class _Gone:
    """The rows of parts whose pictures stand in no row of the newest version."""

    parts: Sequence[Part]
    starts: Positions
    positions: Positions
    lookup: Lookup

    @classmethod
    def of(cls, parts: Sequence[Part], rows: Rows) -> _Gone:
        """Read the content hashes of parts, and keep those that no row has."""
        read = list(_read(parts, ["content_hash"]))
        hashes = pa.chunked_array([chunk for _, table in read for chunk in table.column(0).chunks], pa.string())
        starts = np.cumsum([0, *(part.rows for part, _ in read)])
        gone = np.zeros(0, bool)
        if read:
            gone = _missing(hashes, rows.metadata(["content_hash"]).column(0))
        lookup = Lookup(hashes.filter(pa.array(gone)))
        return cls([part for part, _ in read], starts, np.flatnonzero(gone), lookup)

    def places(self, content_hash: str) -> Iterator[tuple[Part, int]]:
        """Yield where a picture stands: a part and the number of a row in it."""
        for place in self.lookup.positions(content_hash):
            position = int(self.positions[place])
            number = int(np.searchsorted(self.starts, position, side="right")) - 1
            yield self.parts[number], position - int(self.starts[number])


@dataclass(frozen=True)
class _SoundPart:
    """A part that was compared with its checksums, mapped: a vacuum that deletes the file takes nothing away."""

    part: Part
    damaged: Mask
    sizes: pa.Table

    @classmethod
    def of(cls, part: Part) -> _SoundPart | None:
        """Check a part; None where it has no checksums, or its footer is damaged, or it is gone."""
        try:
            if not (part.mapped and part.checked):
                return None
            part.groups()
            damaged = part.damaged_rows()
            sizes = conform(part.read(_SIZES), pa.schema([(name, pa.int64()) for name in _SIZES]))
        except StoreError as error:
            _log.debug("nothing is taken from an older version's part: %s", error)
            return None
        if damaged is not None:
            _log.warning("part %s of an older version is damaged; what it holds is embedded again", part.name)
        return cls(part, np.zeros(part.rows, bool) if damaged is None else damaged, sizes)


@dataclass
class VacuumReport:
    """What `vacuum` has deleted, or would delete.

    Attributes
    ----------
    files : list of str
        Names of parts, of folders of earlier formats, and of small copies of pictures.
    bytes : int
        What they take on the disk.
    images : int or None
        Of a dry run: how many images only they hold. To have these again they must be embedded again.
    dry_run : bool
    """

    files: list[str] = field(default_factory=list)
    bytes: int = 0
    images: int | None = None
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.files:
            return "nothing to delete: younger versions need all files"
        if not self.dry_run:
            return f"{self._size} deleted"
        return f"{self._size} would be deleted; {self.cost}"

    @property
    def _size(self) -> str:
        return f"{counted(len(self.files), 'file')} ({self.bytes / 1e6:,.1f} MB)"

    @property
    def cost(self) -> str:
        """What goes with the files, in words."""
        if not self.images:
            return "no image is in them alone"
        them = counted(self.images, "image is", "images are")
        return f"{them} in them alone, and would have to be embedded again"


def only_in(table: DeltaFolder, going: Collection[str], newest: Rows) -> int:
    """Return how many images stand in parts that are `going`, and in none that stays: what a vacuum would cost.

    Images are told apart by their content, rows without a content hash by their ids.
    """
    former = table.former(newest.snapshot)
    leaves = [keys for _, keys in _read([part for part in former if part.name in going])]
    stays = [keys for _, keys in _read([part for part in former if part.name not in going])] if leaves else []
    if not leaves:
        return 0
    keys = _key(pa.concat_tables(leaves)).unique()
    known = _key(pa.concat_tables([newest.metadata(_KEYS), *stays]))
    return int(_missing(pa.chunked_array([keys]), known).sum())


def _read(parts: Sequence[Part], columns: Sequence[str] = _KEYS) -> Iterator[tuple[Part, pa.Table]]:
    """Yield parts with columns of theirs, without those that cannot be read."""
    schema = pa.schema([(name, pa.string()) for name in columns])
    for part in parts:
        try:
            yield part, conform(part.read(columns), schema)
        except StoreError as error:
            _log.debug("nothing is taken from an older version's part: %s", error)


def _key(keys: pa.Table) -> pa.ChunkedArray:
    """Return what tells images apart: the content hash, or the id where there is none."""
    import pyarrow.compute as pc  # slow to import, and not needed to search

    hashes, ids = keys.column("content_hash"), keys.column("id")
    return pc.if_else(pc.equal(pc.fill_null(hashes, ""), ""), ids, hashes)


def _missing(values: pa.ChunkedArray, known: pa.ChunkedArray) -> Mask:
    """Tell which values, that say something, are not among those that are known."""
    import pyarrow.compute as pc  # as above

    there = pc.is_in(values, value_set=known.combine_chunks(), skip_nulls=True)
    nothing = pc.equal(pc.fill_null(values, ""), "")
    return np.asarray(pc.and_(pc.invert(there), pc.invert(nothing)).to_numpy())
