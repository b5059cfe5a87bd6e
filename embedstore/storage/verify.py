"""Does a store agree with itself? Every part readable, every vector finite and of unit length, every count right."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.errors import DamagedStoreError
from embedstore.files import holder_of
from embedstore.storage.parts import Part, open_part
from embedstore.storage.rows import Rows
from embedstore.vectors import UNIT_TOLERANCE, norms


@dataclass
class VerifyReport:
    """What was checked, and what is wrong.

    Attributes
    ----------
    parts, rows, mapped_parts, foreign_parts : int
    checked_files : int
        Pictures whose bytes were read and hashed again; only with ``deep``.
    missing_files : list of str
        Pictures that are not where their record says. The vectors are here all the same.
    changed_files : list of str
        Pictures whose content is not what was embedded; only with ``deep``. `add` embeds them again.
    problems : list of str
        What is damaged. Empty for a sound store.
    """

    parts: int = 0
    rows: int = 0
    mapped_parts: int = 0
    foreign_parts: int = 0
    checked_files: int = 0
    missing_files: list[str] = field(default_factory=list)
    changed_files: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; files that were moved or changed since are no damage."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} rows in {self.parts} parts: {self.mapped_parts} mapped, {self.foreign_parts} foreign"
            + (" (slower; `embedstore compact` lays them out anew)" if self.foreign_parts else "")
        ]
        if self.checked_files:
            lines.append(f"{self.checked_files:,} pictures hashed again")
        for what, uris in (
            ("not where they were", self.missing_files),
            ("changed since", self.changed_files),
        ):
            if uris:
                lines.append(f"{len(uris):,} pictures {what}, the first is {uris[0]}")
        lines += [f"damaged: {problem}" for problem in self.problems]
        lines.append("the store is sound" if self.ok else f"{len(self.problems)} problems")
        return "\n".join(lines)


def verify(rows: Rows, deep: bool = False) -> VerifyReport:
    """Check a store.

    Parameters
    ----------
    rows : Rows
        Of the version to be checked.
    deep : bool
        Also decode every vector through Parquet and compare it with the mapped one, and hash every picture again.

    Returns
    -------
    VerifyReport
    """
    report = VerifyReport()
    for part in rows.snapshot.parts:
        try:
            _check_part(part, report, deep)
        except DamagedStoreError as error:
            report.problems.append(str(error))
    if report.ok:
        _check_rows(rows, report, deep)
    return report


def _check_part(part: Part, report: VerifyReport, deep: bool) -> None:
    fresh = open_part(part.path, part.dim)
    report.parts += 1
    report.rows += fresh.rows
    report.mapped_parts += fresh.mapped
    report.foreign_parts += not fresh.mapped
    if fresh.rows != part.rows:
        report.problems.append(f"part {part.name} holds {fresh.rows} rows; the log says {part.rows}")
    if fresh.blocks != part.blocks:
        report.problems.append(f"part {part.name} is laid out otherwise than index/images.json says; delete that file")
    decoded = Part(part.path, fresh.rows, part.dim, None).groups() if deep else None
    for number, group in enumerate(fresh.groups()):
        lengths = norms(group)
        off = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(off):
            report.problems.append(
                f"part {part.name}, row group {number}: {len(off)} vectors are not finite or not of unit length, "
                f"the first in row {off[0]}"
            )
        if decoded is not None and not np.array_equal(decoded[number], group, equal_nan=True):
            report.problems.append(f"part {part.name}, row group {number}: mapped and decoded vectors differ")


def _check_rows(rows: Rows, report: VerifyReport, deep: bool) -> None:
    table = rows.metadata(["id", "uri", "content_hash"])
    twice = [name for name, count in Counter(table.column("id").to_pylist()).items() if count > 1]
    if twice:
        report.problems.append(f"{len(twice)} ids stand in several rows, the first is {twice[0]!r}")
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
            report.checked_files += 1
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != row["content_hash"]:
                report.changed_files.append(row["uri"])
