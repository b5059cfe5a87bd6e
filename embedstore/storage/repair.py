"""Mending a store: what can be made again from the rest is, what cannot is named, and nothing is deleted.

Turns the path of a damaged store into a report of what was done, or would be. ``store.json`` comes from its copy in the
ledger, the log from the parts by their ids and the order in which they were written, a damaged part keeps its sound row
groups, a damaged ledger what can be read of it. Damaged files are set aside. What is damaged is told by `verify`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore import files
from embedstore.errors import DamagedStoreError, EmbedStoreError, InputError, StoreLockedError
from embedstore.storage import changes
from embedstore.storage.bucket import is_url
from embedstore.storage.folder import Manifest, StoreFolder, own_columns
from embedstore.storage.ledger import Ledger
from embedstore.storage.parts import Part, open_part
from embedstore.storage.table import Snapshot
from embedstore.vectors import Mask
from embedstore.wording import counted

Mend = Callable[[StoreFolder, Snapshot, bool], tuple[list[str], list[str]]]
"""Mends files that other packages keep in a store, or only looks, as its last argument says; gives steps and losses."""


@dataclass
class RepairReport:
    """What a repair did, or would do.

    Attributes
    ----------
    steps : list of str
        In order.
    lost : list of str
        What cannot be made again from the rest of the store, and where to get it.
    dry_run : bool
        Whether nothing was done.
    """

    steps: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.steps and not self.lost:
            return "nothing to repair"
        lines = [f"{'to do' if self.dry_run else 'done'}: {step}" for step in self.steps]
        return "\n".join(lines + [f"cannot be rebuilt: {what}" for what in self.lost])


def repair(path: str | os.PathLike[str], *, dry_run: bool = False, further: Iterable[Mend] = ()) -> RepairReport:
    """Mend the store at a path.

    Parameters
    ----------
    path : path
    dry_run : bool
        Only say what would be done; nothing is written.
    further : iterable of Mend
        For files that are other packages'.

    Returns
    -------
    RepairReport

    Raises
    ------
    StoreNotFoundError, FormatVersionError
        As `StoreFolder.open`.
    DamagedStoreError
        ``store.json`` is damaged and there is no copy of it: nothing tells whose vectors these are.
    StoreLockedError
        Another process works on the store.
    InputError
        The store is in a bucket.
    """
    if is_url(path):
        raise InputError(
            f"{os.fspath(path)} is in a bucket, and a store is mended where its files are: copy it down, run "
            "`embedstore repair COPY`, and copy that to a new place: README, Stores on S3, says how"
        )
    report, path = RepairReport(dry_run=dry_run), Path(path)
    folder = _opened(path, report)
    if dry_run:
        _Job(folder, report).run(further)
    else:
        with folder.locked():
            _Job(folder, report).run(further)
    return report


def _opened(path: Path, report: RepairReport) -> StoreFolder:
    """Open the folder, if need be by the copy of its manifest."""
    try:
        return StoreFolder.open(path)
    except DamagedStoreError as error:
        ledger = Ledger(path / "ledger.sqlite")
        text = None
        with suppress(EmbedStoreError, OSError):  # a damaged ledger has no copy either
            text = ledger.manifest()
        try:
            about = Manifest.from_text(text or "")
        except ValueError:
            raise DamagedStoreError(
                f"{error}; but the ledger has no copy. It says of which model the vectors are: restore it from a copy"
            ) from error
    report.steps.append("write store.json anew, from its copy in ledger.sqlite")
    if not report.dry_run:
        about.write(path)
    return StoreFolder(path, about)


class _Job:
    """One repair of one store; whoever runs it holds the lock, or changes nothing."""

    def __init__(self, folder: StoreFolder, report: RepairReport) -> None:
        self._folder, self._images, self._report = folder, folder.images, report

    def run(self, further: Iterable[Mend]) -> None:
        self._ledger()
        snapshot = self._log()
        snapshot = self._parts(snapshot)
        for mend in further:
            steps, lost = mend(self._folder, snapshot, self._report.dry_run)
            self._report.steps += steps
            self._report.lost += lost

    def _step(self, what: str) -> bool:
        """Write a step down, and tell whether to take it."""
        self._report.steps.append(what)
        return not self._report.dry_run

    def _ledger(self) -> None:
        """Put a damaged ledger aside, and keep what can be read of it."""
        ledger = self._folder.ledger
        if not ledger.check():
            if ledger.manifest() is None and self._step("keep a copy of store.json in ledger.sqlite"):
                ledger.keep_manifest(self._folder.about.to_text())
            return
        if self._folder.running.anybody():
            raise StoreLockedError(
                f"another process is adding to {self._folder.path}, whose ledger is damaged; end it and try again"
            )
        if self._step("put the damaged ledger.sqlite aside, and keep what can be read of it in a new one"):
            aside = ledger.salvage()
            ledger.keep_manifest(self._folder.about.to_text())
            self._report.lost.append(
                "what was damaged in the ledger: paid rows, if any, are embedded again by the next `add`, labels "
                f"must be given again; see {aside}"
            )

    def _log(self) -> Snapshot:
        """Return the newest version, by a new log where the old one is damaged or names parts that are gone."""
        images = self._images
        if not images.check():
            with suppress(DamagedStoreError):
                return images.snapshot()
        history = images.readable_history()
        found: list[Part] = []
        for file in sorted(images.path.glob("*.parquet")):
            if file.name not in history.removed:
                try:
                    found.append(open_part(file, images.dim))
                except DamagedStoreError as error:
                    self._report.lost.append(f"the rows of {error}")
                    if self._step(f"set images/{file.name} aside"):
                        self._set_aside(file)
        there = {part.name for part in found}
        self._report.lost += [
            f"the rows of images/{name}, which is gone: restore it and repair again, or add the pictures again"
            for name in sorted(history.live - there)
            if not (self._folder.set_aside / name).exists() and not (images.path / name).exists()
        ]
        rows = counted(sum(part.rows for part in found), "row")
        what = f"make the log anew from {counted(len(found), 'part')} with {rows}"
        if history.unreadable or not history.added:
            what += "; rows that it has removed may be back"
        columns = images.columns_of(history, found)
        schema = pa.schema([*columns, *(field for field in own_columns() if field.name not in columns.names)])
        if self._step(f"{what}; the old log is set aside, and older versions end"):
            aside = images.rebuild(found, schema, list(history.transactions.items()))
            if aside.exists():
                self._set_aside(aside)
            return images.snapshot()
        return Snapshot(-1, tuple(found), schema, images.dim)

    def _set_aside(self, path: Path) -> None:
        """Move a file or folder to where damaged things are kept."""
        self._folder.set_aside.mkdir(exist_ok=True)
        path.rename(self._folder.set_aside / path.name)
        files.sync_folder(self._folder.set_aside)

    def _parts(self, snapshot: Snapshot) -> Snapshot:
        """Keep the sound row groups of damaged parts, and one row of each id and uri."""
        added: list[Part] = []
        removed: list[Part] = []
        for part in snapshot.parts:
            damaged = part.damaged_rows()
            if damaged is None:
                continue
            removed.append(part)
            rows = counted(int(damaged.sum()), "row")
            self._report.lost.append(f"{rows} of images/{part.name}, whose bytes are damaged: add the pictures again")
            kept = part.rows - int(damaged.sum())
            if self._step(f"set images/{part.name} aside, and write its {counted(kept, 'sound row')} anew"):
                added += changes.without_rows(self._images, snapshot.schema, part, damaged)
        if removed and self._report.dry_run:
            return snapshot
        if removed:
            snapshot = self._images.commit(added, removed, base=snapshot, operation="repair")
            for part in removed:
                self._set_aside(part.path)
        twice = _twice(snapshot)
        if twice.any() and self._step(f"remove {int(twice.sum()):,} older copies of rows that stand in several parts"):
            snapshot = changes.remove(self._images, snapshot, _twice)
        return snapshot


def _twice(snapshot: Snapshot) -> Mask:
    """Return which rows have a later copy."""
    copies: Mask = np.logical_or.reduce(list(changes.copies(snapshot).values()))
    return copies
