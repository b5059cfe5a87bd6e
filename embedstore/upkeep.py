"""Looking after a store by its path, also one that cannot be opened: is it sound, and what can be mended?

`verify` and `repair` put together what each package can say of its own files: `storage` of the rows, the log and the
ledger, `searching` of the index, `deciding` of the classifiers. How each is done is theirs.
"""

from __future__ import annotations

import os
from pathlib import Path

from embedstore.deciding import classifier
from embedstore.searching.index import IndexFiles
from embedstore.storage import repair as mending
from embedstore.storage import verify as checking
from embedstore.storage.folder import StoreFolder
from embedstore.storage.repair import RepairReport
from embedstore.storage.table import Snapshot
from embedstore.storage.verify import VerifyReport


def verify(path: str | os.PathLike[str], deep: bool = False, version: int | None = None) -> VerifyReport:
    """Check the store at a path, also one that cannot be opened; nothing is written but a layout note.

    Parameters
    ----------
    path : path
    deep : bool
        Read every byte again, of the store and of the pictures, and compare with its checksum.
    version : int, optional
        Check the parts of an older version.

    Returns
    -------
    VerifyReport
        Its `problems` name each damaged file; `ok` is true for a sound store.

    Raises
    ------
    StoreNotFoundError, FormatVersionError, InputError
        There is no store; a newer embedstore wrote it; there is no such version.
    """

    def index(folder: StoreFolder, snapshot: Snapshot) -> list[str]:
        return IndexFiles(folder.index).check(snapshot.parts) if deep else []

    def classifiers(folder: StoreFolder, _: Snapshot) -> list[str]:
        return classifier.check(folder.classifiers)

    return checking.verify(Path(path), deep, version, (index, classifiers))


def repair(path: str | os.PathLike[str], *, dry_run: bool = False) -> RepairReport:
    """Mend the store at a path: make again what the rest of it tells, and name what is lost.

    ``store.json`` comes from its copy in the ledger, the log from the parts, a damaged part keeps its sound row groups,
    a damaged ledger what can be read of it, damaged index files go. What is damaged is set aside, never deleted; rows
    that are lost come back with an `add` of their pictures, which pays for these only.

    Parameters
    ----------
    path : path
    dry_run : bool
        Only say what would be done.

    Returns
    -------
    RepairReport
        The `steps` that were taken, and what is `lost`.

    Raises
    ------
    StoreNotFoundError, FormatVersionError
    DamagedStoreError
        ``store.json`` is damaged and there is no copy of it.
    StoreLockedError
        Another process works on the store.
    """

    def index(folder: StoreFolder, snapshot: Snapshot, look: bool) -> tuple[list[str], list[str]]:
        damaged = IndexFiles(folder.index).discard_damaged(snapshot.parts, dry_run=look)
        return [f"delete the damaged index/{name}; `embedstore index STORE` makes it anew" for name in damaged], []

    def classifiers(folder: StoreFolder, _: Snapshot, __: bool) -> tuple[list[str], list[str]]:
        return [], classifier.check(folder.classifiers)

    return mending.repair(Path(path), dry_run=dry_run, further=(index, classifiers))
