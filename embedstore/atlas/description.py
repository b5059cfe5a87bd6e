"""What a dataset's description tells besides words for people: whose vectors they are, and what the columns were.

A description is all that travels with a dataset unchanged, so a line of JSON stands at its end: the embedding space,
whether Atlas embedded pictures itself, and for each column that Atlas holds in another form its name and type in the
store. `columns` says what there is to tell, `restoring` uses it. How long a description may be is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from embedstore.embedders.nomic_atlas import SPACE as BY_ATLAS
from embedstore.space import Space

_MARK: Final = '{"embedstore"'
_VERSION: Final = 1


@dataclass
class Described:
    """What a description says."""

    text: str = ""  # for people
    space: Space | None = None
    escaped: bool = False  # whether empty texts can be told from missing ones
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)  # by column there: name and type in the store
    unsent: list[str] = field(default_factory=list)  # columns of the store that could not be sent


def write(text: str, space: Space, origins: Mapping[str, tuple[str, str]], unsent: list[str], *, images: bool) -> str:
    """Return a description; with `images` the vectors will be Atlas's own, of the pictures, whatever `space` is."""
    about = {
        "version": _VERSION,
        "space": (BY_ATLAS if images else space).to_dict(),
        "columns": {name: list(origin) for name, origin in origins.items()},
        "unsent": unsent,
    }
    return f"{text.strip()}\n{json.dumps({'embedstore': about}, ensure_ascii=False)}"


def read(description: Any) -> Described:
    """Return what a description says; of those that somebody else wrote, or an earlier version, as much as it does."""
    whole = str(description or "")
    start = whole.rfind(_MARK)
    if start < 0:
        return Described(whole, Space.from_text(whole))
    try:
        about = json.loads(whole[start:])["embedstore"]
        origins = {str(name): (str(here), str(kind)) for name, (here, kind) in about["columns"].items()}
        unsent = [str(name) for name in about["unsent"]]
        return Described(whole[:start].strip(), Space.from_dict(about["space"]), True, origins, unsent)
    except (ValueError, KeyError, TypeError, AttributeError, LookupError):
        return Described(whole, Space.from_text(whole))  # somebody has changed it by hand
