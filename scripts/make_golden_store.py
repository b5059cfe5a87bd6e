"""Make the golden store of the present format: ``tests/golden/store-v1``, which every later version must open.

Run once for each format version, never again: a golden file that is made anew proves nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore import EmbedStore, Space
from embedstore.storage.folder import FORMAT_VERSION


class North:
    """An embedder for whom every text is the first axis."""

    space = Space.given("golden", 4)
    batch_size = workers = 1

    def prepare(self, image: Any) -> Any:
        """Return the picture; none is ever embedded here."""
        return image

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        """Return the first axis for each."""
        return np.eye(4, dtype=np.float32)[[0] * len(prepared)]

    def embed_texts(self, texts: Sequence[str]) -> Any:
        """Return the first axis for each."""
        return self.embed_prepared(texts)


def main() -> None:
    """Write the store, unless it is there."""
    path = Path(__file__).parents[1] / "tests" / "golden" / f"store-v{FORMAT_VERSION}"
    if path.exists():
        sys.exit(f"{path} is there already; golden files are made once")
    store = EmbedStore.create(path, embedder=North())
    angles = np.arange(10) * 0.3
    vectors = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1).astype(np.float32)
    column = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    names = [f"row-{number}" for number in range(10)]
    store.add(
        pa.table({"id": names, "uri": [f"{n}.jpg" for n in names], "label": ["cat", "dog"] * 5, "v": column}),
        embedding_column="v",
    )
    store.remove(["row-7"])
    store.save_classifier(store.calibrate("north", "label=cat", name="north", validation="none", resamples=0))
    shutil.rmtree(path / "index")
    for lock in path.rglob("*.lock"):
        lock.unlink()
    for log in path.glob("*/_delta_log/*.json"):
        log.write_text(re.sub(r'"location":"[^"]*"', '"location":"file:///golden"', log.read_text()))


if __name__ == "__main__":
    main()
