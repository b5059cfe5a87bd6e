"""``store.json``: what makes a folder a store, and which embedding space its vectors lie in."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedstore.errors import DamagedStoreError, FormatVersionError, StoreExistsError, StoreNotFoundError
from embedstore.space import Space

FORMAT_VERSION = 1
_NAME = "store.json"


@dataclass(frozen=True)
class Manifest:
    """The content of ``store.json``.

    Attributes
    ----------
    store_id : str
        32 hex digits, drawn at creation.
    created_at : str
        ISO 8601, UTC.
    space : Space
    """

    store_id: str
    created_at: str
    space: Space

    @classmethod
    def new(cls, space: Space) -> Manifest:
        """Return the manifest of a store made now."""
        return cls(uuid.uuid4().hex, datetime.now(UTC).isoformat(timespec="seconds"), space)

    def write(self, path: Path) -> None:
        """Write ``store.json`` in one step; from then on the folder is a store."""
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "store_id": self.store_id,
            "created_at": self.created_at,
            "space": self.space.to_dict(),
        }
        beside = path / f"{_NAME}.new"
        beside.write_text(json.dumps(content, indent=2) + "\n")
        beside.replace(path / _NAME)


def read(path: Path) -> Manifest:
    """Read the manifest of the store at `path`.

    Raises
    ------
    StoreNotFoundError
        There is no store there.
    FormatVersionError
        A newer embedstore wrote it.
    DamagedStoreError
        The file is not what it should be.
    """
    file = path / _NAME
    try:
        content = json.loads(file.read_bytes())
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"{path} has format version {version}; this embedstore reads up to {FORMAT_VERSION}. "
                "Upgrade with: pip install -U embedstore"
            )
        return Manifest(content["store_id"], content["created_at"], Space.from_dict(content["space"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "is a folder without store.json" if path.is_dir() else "does not exist"
        what = "is a file" if path.is_file() else what
        raise StoreNotFoundError(
            f"{path} is no store: it {what}. Make one with `embedstore add {path} FOLDER`, or EmbedStore.create"
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedStoreError(f"{file} cannot be read ({error}); restore it from a copy") from error


def require_free(path: Path) -> None:
    """Refuse to make a store over something else.

    Raises
    ------
    StoreExistsError
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "is a store already" if (path / _NAME).exists() else "is not an empty folder"
        raise StoreExistsError(f"{path} {kind}; open it with EmbedStore.open, or choose another path")
