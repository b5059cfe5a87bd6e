"""Every error that embedstore raises on purpose.

A message says what was found, what was expected and what to do. Each class also inherits the builtin that a
caller would think to catch, so ``except FileNotFoundError`` works for a store that is not there.

::

    EmbedStoreError
    ├── InputError (ValueError)               something passed in cannot be used
    │   ├── ImageError                        one picture cannot be read
    │   ├── VectorError                       vectors of a wrong shape, not finite or of length zero
    │   ├── QueryError                        a query that cannot be turned into a vector
    │   ├── FilterError                       a ``where`` that does not parse or names no column
    │   ├── UnreachableError                  no threshold keeps the constraints; says how near one comes
    │   ├── LabelError                        labels that do not fit the rows, or leave nothing to measure
    │   └── SourceError                       a source with nothing in it, or not of a known kind
    │       └── SourceNotFoundError (FileNotFoundError)
    ├── StoreError                            the folder of the store
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── StoreExistsError (FileExistsError)
    │   ├── FormatVersionError                written by a newer embedstore
    │   ├── SpaceMismatchError (ValueError)   vectors of two embedding spaces do not mix
    │   ├── DamagedStoreError                 a file is missing, short or not what the log says
    │   └── StoreLockedError (TimeoutError)   another process is rewriting the store
    ├── EmbedderError                         what turns pictures and texts into vectors
    │   ├── ModelNotFoundError (LookupError)  no such model, or its weights are not here
    │   ├── CredentialsError (PermissionError) no key, or a key that was refused
    │   ├── OfflineError (ConnectionError)    the network was needed and is switched off
    │   ├── ServiceError (ConnectionError)    the service failed, hung or answered nonsense
    │   ├── BudgetSpentError                  as many requests as were allowed have been sent
    │   └── RejectedImagesError (ValueError)  the service refuses this batch; a smaller one may pass
    ├── ClassifierError (ValueError)          a saved classifier that cannot be read or does not apply
    ├── AtlasError (RuntimeError)             a sync that could not be completed or confirmed
    └── MissingDependencyError (ImportError)  an optional package; the message names the pip command
"""

from __future__ import annotations


class EmbedStoreError(Exception):
    """Base of all errors raised by embedstore."""


class InputError(EmbedStoreError, ValueError):
    """Something passed in cannot be used."""


class ImageError(InputError):
    """One picture cannot be read."""


class VectorError(InputError):
    """Vectors of a wrong shape, not finite, or of length zero."""


class QueryError(InputError):
    """A query that cannot be turned into a vector."""


class FilterError(InputError):
    """A ``where`` expression that does not parse or names no column."""


class LabelError(InputError):
    """Labels that do not fit the rows, or leave nothing to measure."""


class UnreachableError(InputError):
    """No threshold keeps the constraints.

    Attributes
    ----------
    best : dict of str to float
        The best figures that can be reached, such as ``{"precision": 0.91, "recall": 1.0}``.
    """

    def __init__(self, message: str, best: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.best = best or {}


class SourceError(InputError):
    """A source with nothing in it, or not of a known kind."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A source that is not there."""


class StoreError(EmbedStoreError):
    """The folder of the store is not as it should be."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path."""


class StoreExistsError(StoreError, FileExistsError):
    """There is already a store, or another folder with content, at this path."""


class FormatVersionError(StoreError):
    """The store was written by a newer embedstore."""


class SpaceMismatchError(StoreError, ValueError):
    """Vectors of two embedding spaces cannot be compared."""


class DamagedStoreError(StoreError):
    """A file of the store is missing, short, or not what the log says."""


class StoreLockedError(StoreError, TimeoutError):
    """Another process holds the store for rewriting."""


class EmbedderError(EmbedStoreError):
    """What turns pictures and texts into vectors has failed."""


class ModelNotFoundError(EmbedderError, LookupError):
    """There is no such model, or its weights are not on this machine."""


class CredentialsError(EmbedderError, PermissionError):
    """There is no API key, or it was refused."""


class OfflineError(EmbedderError, ConnectionError):
    """The network was needed and is switched off."""


class ServiceError(EmbedderError, ConnectionError):
    """A remote service failed, hung, or answered something that cannot be used."""


class BudgetSpentError(EmbedderError):
    """As many requests as were allowed have been sent; what was embedded is kept."""


class RejectedImagesError(EmbedderError, ValueError):
    """The service refuses this batch of images for good; a part of it may still pass."""


class ClassifierError(EmbedStoreError, ValueError):
    """A saved classifier cannot be read, or does not apply here."""


class AtlasError(EmbedStoreError, RuntimeError):
    """A sync with Atlas could not be completed or confirmed."""


class MissingDependencyError(EmbedStoreError, ImportError):
    """An optional package is not installed."""
