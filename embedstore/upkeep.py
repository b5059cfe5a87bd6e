"""Looking after a store: what is there to say of it, is it sound, and what can be mended?

`info` and `shown` describe an open store, for programs and for people. `verify` and `repair` take the path of a store,
also of one that cannot be opened, and put together what each package can say of its own files: `storage` of the rows,
the log and the ledger, `searching` of the index, `deciding` of the classifiers. How each is done is theirs.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from embedstore import markup
from embedstore.deciding import classifier
from embedstore.errors import DamagedStoreError
from embedstore.searching.index import IndexFiles
from embedstore.searching.matches import strip
from embedstore.searching.reader import Reader
from embedstore.storage import repair as mending
from embedstore.storage import verify as checking
from embedstore.storage.folder import StoreFolder
from embedstore.storage.repair import RepairReport
from embedstore.storage.table import Snapshot
from embedstore.storage.verify import VerifyReport
from embedstore.wording import counted

_SHOWN = 8


def info(folder: StoreFolder, reader: Reader) -> dict[str, Any]:
    """Return what there is to say of a store, as plain values: counts, bytes, space, columns.

    ``vacuum`` is what older versions hold: the files and bytes that `vacuum` with ``keep_hours=0`` would give back, and
    how many images are in no newer version, and would have to be embedded again; None where the log is damaged.
    ``on_this_machine`` says of a store in a bucket where its home and its cache are and how full that is; else None.
    """
    held: dict[str, int | None] | None
    parts = reader.rows.snapshot.parts
    part_bytes = sum(part.size for part in parts)
    try:
        older = folder.vacuum_plan(keep_hours=0)
        held = {"files": len(older.files), "bytes": older.bytes, "images": older.images}
    except DamagedStoreError:  # the rows can be read without the log's older files
        held = None
    return {
        "path": folder.location,
        "images": len(reader),
        "model": folder.space.model,
        "space": folder.space.to_dict(),
        "store_id": folder.id,
        "created_at": folder.created_at,
        "version": reader.version,
        "columns": reader.rows.columns,
        "parts": len(parts),
        "foreign_parts": sum(not part.mapped for part in parts),
        "bytes": part_bytes,
        "bytes_per_image": round(part_bytes / len(reader), 1) if len(reader) else None,
        "cached_queries": len(reader.queries),
        "waiting_in_ledger": sum(folder.ledger.waiting().values()),
        "vacuum": held,
        "on_this_machine": folder.on_this_machine(),
    }


def shown(folder: StoreFolder, reader: Reader) -> str:
    """Return what a store is, and its first pictures, as HTML for a notebook."""
    first = reader.rows.take(np.arange(min(len(reader), _SHOWN)), ["uri"]).column("uri").to_pylist()
    kept = sorted(file.stem for file in folder.classifiers.glob("*.json"))
    about = [
        ("space", str(folder.space)),
        ("version", f"{reader.version}, store made {folder.created_at}"),
        ("columns", ", ".join(reader.rows.columns)),
        ("classifiers", ", ".join(kept) or "none yet"),
    ]
    pictures = strip(first, [""] * len(first), reader.rows.thumbnails_at, side=96)
    return markup.heading(folder.location, counted(len(reader), "image")) + markup.facts(about) + pictures


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

    return checking.verify(path, deep, version, (index, classifiers))


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

    return mending.repair(path, dry_run=dry_run, further=(index, classifiers))
