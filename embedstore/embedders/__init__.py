"""What turns pictures and texts into vectors: one protocol, one module for each model family.

The heavy libraries are imported when a model is made, never when this package is.
"""

from __future__ import annotations

from embedstore.embedders.protocol import Embedder

__all__ = ["Embedder"]
