"""Make the golden store of the present format: ``tests/golden/store-v1``, which every later version must open.

Run once for each format version, never again: a golden file that is made anew proves nothing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore import EmbedStore
from embedstore.storage.manifest import FORMAT_VERSION


def main() -> None:
    """Write the store, unless it is there."""
    path = Path(__file__).parents[1] / "tests" / "golden" / f"store-v{FORMAT_VERSION}"
    if path.exists():
        sys.exit(f"{path} is there already; golden files are made once")
    store = EmbedStore.create(path, space="golden", dim=4)
    angles = np.arange(10) * 0.3
    vectors = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1).astype(np.float32)
    column = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    names = [f"row-{number}" for number in range(10)]
    store.add(
        pa.table({"id": names, "uri": [f"{n}.jpg" for n in names], "label": ["cat", "dog"] * 5, "v": column}),
        embedding_column="v",
    )
    store.remove(["row-7"])
    shutil.rmtree(path / "index")
    (path / ".lock").unlink()


if __name__ == "__main__":
    main()
