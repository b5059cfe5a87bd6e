"""Pictures -> a store with vectors that Atlas has made of them, in bulk: no embedding request is sent.

The pictures go up as small JPEG files, Atlas embeds them while it makes a map, and the map's vectors come down, in the
space of `nomic_atlas`. What is known of the pictures before that lies in a store within the store, which has no
vectors: so each step is one that others have too (`plan`, `apply`, `pull`), and one that was cut short goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedstore.atlas.apply import apply_sync
from embedstore.atlas.client import Progress, silent
from embedstore.atlas.outcome import SyncReport
from embedstore.atlas.plan import plan_sync
from embedstore.atlas.pull import PullReport, pull, store_for
from embedstore.embedders.nomic_atlas import SPACE as BY_ATLAS
from embedstore.embedders.protocol import require_rgb
from embedstore.errors import QueryError
from embedstore.ingest.reports import AddReport
from embedstore.settings import Key
from embedstore.space import Space
from embedstore.storage.folder import StoreFolder
from embedstore.store import EmbedStore
from embedstore.wording import counted

if TYPE_CHECKING:
    from PIL import Image

FOLDER: Final = "via-atlas"
"""Where, in a store, the pictures are known that go by way of Atlas."""


@dataclass
class BulkReport:
    """What became of pictures that went by way of Atlas."""

    found: AddReport = field(default_factory=AddReport)  # the pictures, as they were read here
    sync: SyncReport | None = None  # None when the store had all of them already
    pulled: PullReport | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "found": self.found.to_dict(),
            "sync": None if self.sync is None else self.sync.to_dict(),
            "pulled": None if self.pulled is None else self.pulled.to_dict(),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        new = self.found.embedded + self.found.recovered
        lines = [f"{counted(self.found.found, 'picture')} found here, {new:,} of them new", *self.found.notes()]
        if self.found.failures:
            first = self.found.failures[0]
            lines.append(f"{len(self.found.failures):,} could not be read; the first is {first.uri}: {first.reason}")
        if self.sync is None or self.pulled is None:
            lines.append("the store has all of them already: nothing was sent")
        else:
            lines += [
                str(self.sync),
                str(self.pulled),
                "no embedding request was sent: Atlas embedded them in bulk",
            ]
        return "\n".join(lines)


class NoVectors:
    """Stands in the place of an embedder where pictures are only to be known; each gets a direction of its own."""

    space = Space("pictures that Atlas embeds", "none", precision="float32", preprocessing="none", dim=2)
    batch_size, workers = 64, 1

    def prepare(self, image: Image.Image) -> float:
        """Return an angle that follows from the pixels."""
        require_rgb(image)
        return xxhash.xxh3_64_intdigest(image.tobytes()) / 2**64 * 2 * np.pi

    def embed_prepared(self, prepared: Sequence[float]) -> NDArray[np.float32]:
        """Return unit vectors of these angles, shape (n, 2)."""
        return np.stack([np.cos(prepared), np.sin(prepared)], axis=1).astype(np.float32)

    def embed_texts(self, texts: Sequence[str]) -> NoReturn:
        """Raise QueryError: nothing can be asked of pictures without vectors."""
        raise QueryError("these pictures have no vectors here yet")


def add_via_atlas(
    store: EmbedStore | str | os.PathLike[str],
    source: Any,
    name: str,
    *,
    label_from_folder: bool = False,
    image_column: str | None = None,
    split: str | None = None,
    create: bool | None = None,
    public: bool = False,
    description: str | None = None,
    topic_model: bool | str | dict[str, Any] = False,
    map: bool = False,
    key: Key | str | None = None,
    timeout: float = 3600.0,
    progress: Progress = silent,
) -> BulkReport:
    """Let Atlas embed pictures, and store the vectors.

    Every picture is uploaded, at most 512 pixels each way as JPEG of quality 90, and stays in the dataset. At least 20
    rows are needed for a map. Called again after it was cut short, or with more pictures, it sends what is new.

    Parameters
    ----------
    store : EmbedStore or path
        Of the space of `nomic_atlas`, and of no other; a path of no store is made one.
    source
        What `EmbedStore.add` takes, as do `label_from_folder`, `image_column` and `split`.
    name : str
        ``dataset`` or ``organisation/dataset``; as do `create`, `public`, `description` and `topic_model` in
        `plan_sync`.
    map : bool
        Also take what the map has found; see `pull`.
    key : Key or str, optional
    timeout : float
        Seconds for each step; the map, and so the embedding, is one.
    progress : callable

    Returns
    -------
    BulkReport

    Raises
    ------
    SpaceMismatchError
        The store's vectors lie in another space.
    AtlasError, CredentialsError, OfflineError, SourceError
    """
    started = time.perf_counter()
    report = BulkReport()
    target = store_for(store, BY_ATLAS, "what Atlas embeds")
    known = _known(target.path / FOLDER)
    report.found = known.add(
        source, label_from_folder=label_from_folder, image_column=image_column, split=split, progress=False
    )
    progress(f"{counted(len(known), 'picture')} known here; {counted(len(target), 'row')} in the store")
    if not _has_all(target, known):
        options: dict[str, Any] = {
            **{"images": True, "create": create, "public": public, "description": description, "index": True},
            **{"topic_model": topic_model, "key": key, "timeout": timeout, "progress": progress},
        }
        plan = plan_sync(known, name, **options)
        if plan.outdated or plan.bare:  # new columns alone are no reason to make the dataset again
            plan = plan_sync(known, name, replace=True, **options)
        report.sync = apply_sync(plan, progress=progress)
        report.pulled = pull(target, report.sync.dataset, map=map, key=key, timeout=timeout, progress=progress)
    report.seconds = time.perf_counter() - started
    return report


def _known(path: Path) -> EmbedStore:
    """Open or make the store of the pictures that are known."""
    if StoreFolder.is_at(path):
        return EmbedStore.open(path, embedder=NoVectors())
    return EmbedStore.create(path, embedder=NoVectors())


def _has_all(target: EmbedStore, known: EmbedStore) -> bool:
    """Tell whether a store has the pictures that are known, as they are now."""
    target.refresh()
    now, stored = (
        dict(zip(*store.to_table(["id", "content_hash"]).to_pydict().values(), strict=True))
        for store in (known, target)
    )
    return all(stored.get(name) == content for name, content in now.items())
