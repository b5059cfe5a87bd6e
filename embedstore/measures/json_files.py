"""One JSON document in, one file out, and back: whole or not at all."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

from embedstore.errors import ClassifierError

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def write_json(file: Path, fields: dict[str, Any]) -> None:
    """Write beside the file and replace it, so that readers see the old one or the new, never a part."""
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with beside.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def read_json(file: Path) -> Any:
    """Read a document.

    Raises
    ------
    ClassifierError
        There is no such file, it cannot be read or is not JSON; the message names the file and what to do.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ClassifierError(f"there is no classifier at {file}; calibrate one and save it there") from error
    except OSError as error:
        raise ClassifierError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ClassifierError(
            f"{file} is not JSON ({error}); restore it from a copy, or calibrate again"
        ) from error


def check_name(name: str) -> str:
    """Return a name that can be a file's on every system, or raise ClassifierError."""
    well_formed = isinstance(name, str) and re.fullmatch(r"\w(?:[\w .-]{0,98}[\w-])?", name)
    if not well_formed or _RESERVED.fullmatch(name):
        raise ClassifierError(
            f"{name!r} cannot name a classifier: use up to 100 letters, digits, '.', '_', '-' or spaces, "
            "starting with a letter or digit"
        )
    return name
