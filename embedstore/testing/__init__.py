"""A stand-in for Nomic's service, for embedstore's tests and for yours: no key, no network, no money.

>>> from embedstore.testing import NomicServer
>>> with NomicServer() as server:                                             # doctest: +SKIP
...     subprocess.run(["embedstore", "add", ...], env={**os.environ, **server.environment(home)})
...     assert server.images == 64
"""

from __future__ import annotations

from embedstore.testing.faults import FINAL, KINDS, OF_VECTORS, PASSING, Fault, Faults, Kind
from embedstore.testing.nomic_server import NomicServer

__all__ = ["FINAL", "KINDS", "OF_VECTORS", "PASSING", "Fault", "Faults", "Kind", "NomicServer"]
