"""Is a store sound? Every file that it is made of is compared with its checksum, and the files with one another.

Turns the path of a store, also of one that cannot be opened, into a report that names each damaged file: never into a
traceback. Mending is `repair`'s business; how a part, the log and the ledger tell damage is theirs.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from embedstore.errors import DamagedStoreError, EmbedStoreError, InputError
from embedstore.files import holder_of
from embedstore.storage import changes
from embedstore.storage.folder import StoreFolder
from embedstore.storage.parts import Part
from embedstore.storage.rows import Rows
from embedstore.storage.table import Snapshot
from embedstore.vectors import UNIT_TOLERANCE, norms
from embedstore.wording import counted, quoted

_Result = TypeVar("_Result")

Check = Callable[[StoreFolder, Snapshot], Iterable[str]]
"""A check of files that other packages keep in a store; gives a line for each problem."""


@dataclass
class VerifyReport:
    """What was checked, and what is wrong.

    Attributes
    ----------
    parts, rows, mapped_parts, foreign_parts : int
    unsealed_parts : int
        Parts without checksums: of another program, or of an early embedstore. `compact` gives them some.
    checked_files : int
        Pictures whose bytes were read and hashed again; only with ``deep``.
    waiting : int
        Paid rows in the ledger that the next `add` takes in.
    missing_files : list of str
        Pictures that are not where their record says, or cannot be read. The vectors are here all the same.
    changed_files : list of str
        Pictures whose content is not what was embedded; only with ``deep``. `add` embeds them again.
    set_aside : list of str
        Files with what was found damaged earlier and could not be used.
    unnamed_parts : list of str
        Parts that no version needs, of changes that were cut short; `vacuum` deletes them.
    problems : list of str
        What is damaged, each with the name of the file. Empty for a sound store.
    """

    parts: int = 0
    rows: int = 0
    mapped_parts: int = 0
    foreign_parts: int = 0
    unsealed_parts: int = 0
    checked_files: int = 0
    waiting: int = 0
    missing_files: list[str] = field(default_factory=list)
    changed_files: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    unnamed_parts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; files that were moved or changed since are no damage."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        rows, parts = counted(self.rows, "row"), counted(self.parts, "part")
        lines = [
            f"{rows} in {parts}: {self.mapped_parts} mapped, {self.foreign_parts} foreign"
            + (" (slower; `embedstore compact STORE` lays them out anew)" if self.foreign_parts else "")
        ]
        if self.unsealed_parts:
            parts = counted(self.unsealed_parts, "part has", "parts have")
            lines.append(f"{parts} no checksums yet; `embedstore compact STORE` gives them some")
        if self.waiting:
            images = counted(self.waiting, "image waits", "images wait")
            lines.append(f"{images} in the ledger; the next `embedstore add STORE SOURCE` takes them in")
        if self.checked_files:
            lines.append(f"{counted(self.checked_files, 'picture')} hashed again")
        for one, what, names in (
            ("picture", "not where it was when it was added", self.missing_files),
            ("picture", "changed since", self.changed_files),
            ("damaged file", "set aside earlier", self.set_aside),
            ("file", "of no version, which `embedstore vacuum STORE` deletes", self.unnamed_parts),
        ):
            if names:
                lines.append(f"{counted(len(names), one)} {what}; the first is {quoted(names[0])}")
        lines += [f"damaged: {problem}" for problem in self.problems]
        lines.append("the store is sound" if self.ok else self._how_many())
        return "\n".join(lines)

    def _how_many(self) -> str:
        return f"{counted(len(self.problems), 'problem')}; `embedstore repair STORE` says what can be mended"


def verify(
    path: str | os.PathLike[str], deep: bool = False, version: int | None = None, further: Iterable[Check] = ()
) -> VerifyReport:
    """Check the store at a path, also one that cannot be opened.

    Parameters
    ----------
    path : path
    deep : bool
        Read every byte again, of the store and of the pictures, and compare with its checksum. Without, that is done
        to the log, the ledger and the notes; of the parts the places and the lengths of the vectors are checked.
    version : int, optional
        Check the parts of an older version.
    further : iterable of Check
        Checks of files that are other packages'.

    Returns
    -------
    VerifyReport

    Raises
    ------
    StoreNotFoundError
        There is no store at all.
    FormatVersionError
        A newer embedstore wrote it.
    InputError
        There is no such version.
    """
    report = VerifyReport()
    try:
        folder = StoreFolder.open(path, version)
    except DamagedStoreError as error:
        report.problems.append(str(error))
        return report
    for what, check in (("ledger.sqlite", folder.ledger.check), ("images/_delta_log", folder.images.check)):
        report.problems += _found(report, what, check) or []
    report.waiting = _found(report, "ledger.sqlite", lambda: sum(folder.ledger.waiting().values())) or 0
    report.set_aside = _set_aside(folder)
    report.unnamed_parts = _found(report, "images", folder.images.orphans) or []
    snapshot = _found(report, "images/_delta_log", folder.snapshot)
    if snapshot is not None:
        _check_version(folder, snapshot, report, deep)
        for further_check in further:
            of_this = functools.partial(further_check, folder, snapshot)
            report.problems += _found(report, folder.location, of_this) or []
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _found(report: VerifyReport, what: str, check: Callable[[], _Result]) -> _Result | None:
    """Return what a check finds; one that fails is a problem of its file, whatever it fails with."""
    try:
        return check()
    except InputError:
        raise  # a version that is not there is no damage
    except Exception as error:  # noqa: BLE001 - damage may make the libraries that read it fail with anything
        line = " ".join(str(error).split()) or type(error).__name__
        report.problems.append(line if isinstance(error, EmbedStoreError) else f"{what} cannot be read: {line}")
        return None


def _set_aside(folder: StoreFolder) -> list[str]:
    """Return the files with what was found damaged earlier, relative to the store."""
    patterns = ("set-aside/*", "*.damaged-*", "journal/*.damaged")
    return sorted(str(file.relative_to(folder.path)) for pattern in patterns for file in folder.path.glob(pattern))


def _check_version(folder: StoreFolder, snapshot: Snapshot, report: VerifyReport, deep: bool) -> None:
    """Check the parts of a version, and the rows in them if they can be read."""
    sound = True
    for part in snapshot.parts:
        problems = _found(report, f"images/{part.name}", functools.partial(_check_part, folder, part, report, deep))
        sound = sound and problems == []
        report.problems += problems or []
    if deep:
        current = {part.name for part in snapshot.parts} | set(report.unnamed_parts)
        for name in folder.images.names_on_disk():
            if name not in current:
                problems = _found(report, f"images/{name}", folder.images.bare_part(name).check) or []
                report.problems += [f"{problem}; only older versions need it" for problem in problems]
    if sound:
        report.problems += _found(report, "images", lambda: _check_rows(Rows(snapshot), report, deep)) or []


def _check_part(folder: StoreFolder, part: Part, report: VerifyReport, deep: bool) -> list[str]:
    """Count a part, and return what is wrong with it."""
    problems = part.check() if deep else []
    fresh = folder.images.part(part.name, part.size)
    report.parts += 1
    report.rows += fresh.rows
    report.mapped_parts += fresh.mapped
    report.foreign_parts += not fresh.mapped
    report.unsealed_parts += fresh.mapped and not fresh.checked
    if fresh.rows != part.rows:
        problems.append(f"part {part.name} holds {counted(fresh.rows, 'row')}; the log says {part.rows}")
    if fresh.blocks != part.blocks:
        problems.append(f"part {part.name} is laid out otherwise than index/images.json says; delete that file")
    for number, group in enumerate(fresh.groups()):
        lengths = norms(group)
        off = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(off):
            problems.append(
                f"part {part.name}, row group {number}: {len(off)} vectors are not finite or not of unit length, "
                f"the first in row {off[0]}"
            )
    if deep:
        problems += _check_decoding(fresh)
    return problems


def _check_decoding(part: Part) -> list[str]:
    """Compare the mapped vectors with what any reader of Parquet makes of the file."""
    decoded = Part(part.path, part.rows, part.dim, None).groups()
    return [
        f"part {part.name}, row group {number}: mapped and decoded vectors differ"
        for number, (group, other) in enumerate(zip(part.groups(), decoded, strict=True))
        if not np.array_equal(group, other, equal_nan=True)
    ]


def _check_rows(rows: Rows, report: VerifyReport, deep: bool) -> list[str]:
    """Return which ids and uris stand in several rows; look for the pictures."""
    table = rows.metadata(["id", "uri", "content_hash"])
    problems = []
    for name, older in changes.copies(rows.snapshot).items():
        if older.any():
            first = table.column(name)[int(np.argmax(older))].as_py()
            problems.append(f"{int(older.sum())} {name}s stand in several rows, the first is {first!r}")
    for row in table.to_pylist():
        path = Path(row["uri"] or "")
        if not path.is_absolute():
            continue  # no file at all
        holder = holder_of(row["uri"])
        if holder is None:
            report.missing_files.append(row["uri"])
        elif holder != row["uri"]:
            continue  # a row of a table, or a member of an archive
        elif deep and row["content_hash"]:
            digest = _digest(path)
            report.checked_files += digest is not None
            if digest is None:
                report.missing_files.append(row["uri"])
            elif digest != row["content_hash"]:
                report.changed_files.append(row["uri"])
    return problems


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a picture; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
