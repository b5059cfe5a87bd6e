"""embedstore: embed images once; search, threshold and classify them locally for ever.

The public names live in small modules and are loaded when first used, so that ``import embedstore`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "EmbedStore": "embedstore.store",
    "ImageClassifierFromTextQuery": "embedstore.estimators",
    "Query": "embedstore.queries",
    "Matches": "embedstore.matches",
    "Space": "embedstore.space",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'embedstore' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
