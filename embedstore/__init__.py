"""embedstore: embed images once; search, threshold and classify them locally for ever.

The public names live in small modules and are loaded when first used, so that ``import embedstore`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "embedstore.deciding.classifier",
    "Concept": "embedstore.searching.queries",
    "EmbedStore": "embedstore.store",
    "ImageClassifierFromTextQuery": "embedstore.estimator",
    "Matches": "embedstore.searching.matches",
    "Query": "embedstore.searching.queries",
    "Space": "embedstore.space",
    "repair": "embedstore.upkeep",
    "sync": "embedstore.atlas",
    "verify": "embedstore.upkeep",
    "view": "embedstore.page.notebook",
}
_MODULES = {
    "curves": "embedstore.measures.curves",
    "embed": "embedstore.ingest.client_calls",
    "plots": "embedstore.deciding.plots",
}

__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'embedstore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
