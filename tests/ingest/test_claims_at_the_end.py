"""Two adds at once where one is behind: what the other one has stored by now is not paid for again."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from embedstore import images
from embedstore.ingest.row_writer import RowWriter
from embedstore.storage.running import Running
from embedstore.store import EmbedStore


def test_what_was_stored_since_is_not_claimed(tmp_path: Path, pictures: Path) -> None:
    """An add that has read the store before another one stored a picture, and whose claims are gone with that, finds
    the picture there: it took it for nobody's, and paid a second time (308 of 300, once in many runs)."""
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    hashes = [images.content_hash(file) for file in sorted(pictures.rglob("*.png"))]
    with store.folder.running.begun() as run:
        behind = RowWriter(store.folder, [], run)
        assert EmbedStore.open(store.path).add(pictures).embedded == 12
        assert behind.claim(hashes) == set()
        assert store.folder.ledger.owners(hashes) == {}
        found = behind.elsewhere(hashes)
        behind.close()
    assert all(isinstance(vector, np.ndarray) for vector in found.values())


def test_what_nobody_has_stored_is_claimed(tmp_path: Path, pictures: Path) -> None:
    """A newer version with other pictures changes nothing for those that are new."""
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    cats, dogs = (sorted((pictures / name).iterdir()) for name in ("cat", "dog"))
    with store.folder.running.begun() as run:
        behind = RowWriter(store.folder, [], run)
        EmbedStore.open(store.path).add([str(file) for file in cats])
        new = {images.content_hash(file) for file in dogs}
        assert behind.claim([*new, *map(images.content_hash, cats)]) == new
        behind.close()


def test_a_run_whose_file_was_deleted_before_the_lock_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making its file and locking it, another process may take it for a dead run's and delete it: the run would
    be dead for all others from then on, and its claims free."""
    acquire, stolen = filelock.FileLock.acquire, []

    def late(self: Any, *arguments: Any, **options: Any) -> Any:
        done = acquire(self, *arguments, **options)
        name = Path(self.lock_file)
        if not stolen and name.parent.name == ".running":
            stolen.append(name)
            name.unlink()
        return done

    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    running = Running(tmp_path / ".running")
    with running.begun() as name:
        assert stolen
        assert stolen[0].stem != name
        assert running.is_alive(name)
    assert not running.is_alive(uuid.uuid4().hex)
    assert not list((tmp_path / ".running").glob("*.lock"))
