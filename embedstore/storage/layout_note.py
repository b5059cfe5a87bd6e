"""The layout note: which parts the newest version has and where their vectors lie, so that opening reads one file.

`LayoutNote` is a cache of the log and of the parts' footers. It is believed only if it fits its own checksum, the bytes
of the newest commit, and the sizes of the parts; else it is as if there were none, and `table` makes it anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import xxhash

from embedstore import files
from embedstore.storage.arrow_columns import pa
from embedstore.storage.part_cache import PartCache
from embedstore.storage.parts import Block, Part

_FORMAT = 3


class LayoutNote:
    """The note of one table; disposable.

    Parameters
    ----------
    path : Path
        ``index/images.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(
        self, folder: Path, version: int, commit: str, dim: int, cache: PartCache | None = None
    ) -> tuple[list[Part], bytes] | None:
        """Return the parts in `folder`, and the columns as Arrow writes them; None when the note is not of this commit.

        `commit` is the xxh3 of the bytes of the newest commit. Parts of a `cache` need not be in the folder.
        """
        try:
            raw = self.path.read_bytes()
            body = raw[len(_head(b"")) : -1]
            if not commit or raw != _head(body) + body + b"}":
                return None
            note = json.loads(body)
            if (note["format"], note["version"], note["commit"], note["dim"]) != (_FORMAT, version, commit, dim):
                return None
            found = []
            for entry in note["parts"]:
                path = folder / entry["name"]
                if cache is None and path.stat().st_size != entry["size"]:
                    return None
                blocks = None if entry["blocks"] is None else [Block(*block) for block in entry["blocks"]]
                known = None if cache is None else int(entry["size"])
                found.append(Part(path, entry["rows"], dim, blocks, known, cache))
            return found, base64.b64decode(note["columns"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None  # a note that cannot be read is made again from the log

    def write(self, version: int, commit: str, dim: int, parts: Sequence[Part], schema: pa.Schema) -> None:
        """Write the note. A store on a disk that cannot be written to is read from its log each time."""
        note = {
            "format": _FORMAT,
            "version": version,
            "commit": commit,
            "dim": dim,
            "columns": base64.b64encode(schema.serialize()).decode(),
            "parts": [
                {
                    "name": part.name,
                    "rows": part.rows,
                    "size": part.size,
                    "blocks": None if part.blocks is None else [[b.offset, b.rows] for b in part.blocks],
                }
                for part in parts
            ],
        }
        body = json.dumps(note).encode()
        try:
            self.path.parent.mkdir(exist_ok=True)
            files.replace(self.path, _head(body) + body + b"}", durable=False)
        except OSError:
            return


def _head(body: bytes) -> bytes:
    return f'{{"xxh3": "{xxhash.xxh3_64_hexdigest(body)}", "note": '.encode()
