"""Every error that embedstore raises on purpose, by what is wrong: the input, the store, the embedder, a file, Atlas.

A message says what was found, what was expected and what to do. Each class also inherits the builtin that a
caller would think to catch, so ``except FileNotFoundError`` works for a store that is not there. What to do is said
in the words of whoever reads it: `spelt` has them for Python, for the command line, and for the page.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator

_to_shell = False
_to_page = contextvars.ContextVar("told_to_page", default=False)


def spelt(python: str, shell: str, page: str | None = None) -> str:
    """Return one spelling of the same advice: Python's, the command line's while a command runs, or the page's.

    Examples
    --------
    >>> spelt("normalise=True", "--normalise")
    'normalise=True'
    """
    if page is not None and _to_page.get():
        return page
    return shell if _to_shell else python


def option(name: str, value: object = None) -> str:
    """Return how an option that both have is given, or only its name where no value is.

    Examples
    --------
    >>> option("image_column", "img")
    "image_column='img'"
    """
    word, words = f"--{name.replace('_', '-')}", name.replace("_", " ")
    if value is None:
        return spelt(name, word, words)
    return spelt(f"{name}={value!r}", f"{word} {value}", f"{words} {value}")


@contextlib.contextmanager
def told_to_shell() -> Iterator[None]:
    """Until the end of this context, messages of every thread are for somebody who typed a command."""
    global _to_shell
    before, _to_shell = _to_shell, True
    try:
        yield
    finally:
        _to_shell = before


@contextlib.contextmanager
def told_to_page() -> Iterator[None]:
    """Until the end of this context, messages of this thread are for somebody who looks at a page."""
    before = _to_page.set(True)
    try:
        yield
    finally:
        _to_page.reset(before)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest of the words that would have done, after a space; empty for none.

    Examples
    --------
    >>> did_you_mean("lable", ["id", "label"])
    " Did you mean 'label'?"
    """
    import difflib  # late: only for what went wrong

    names = {name.lower(): name for name in known if len(name) > len(word) / 2}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.65)
    return f" Did you mean {names[near[0]]!r}?" if near else ""


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


class NoLabelsError(LabelError):
    """Labels are needed, none are given, and the store has none of its own."""


class NotOursError(InputError, FileExistsError):
    """A file that would be overwritten is not ours, or was changed since we wrote it."""


class UnreachableError(InputError):
    """No threshold keeps the constraints; `best` has the best figures within reach, as ``{"precision": 0.91}``."""

    def __init__(self, message: str, best: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.best = best or {}


class PathError(OSError, InputError):
    """A path at which no file can be read or written: a pipe, a folder, or below a folder that is not there."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


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


class VersionGoneError(StoreError, LookupError):
    """The files of the version that is being read are gone: compact and vacuum have replaced them. Refresh."""


class StoreLockedError(StoreError, TimeoutError):
    """Another process holds the store for rewriting."""


class BucketError(StoreError):
    """A bucket cannot be reached, refuses the key, or answered something that cannot be used.

    `unsettled` tells of a change that it may have been made all the same.
    """

    def __init__(self, message: str, *, unsettled: bool = False) -> None:
        super().__init__(message)
        self.unsettled = unsettled


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


class PlanLimitError(ServiceError):
    """The plan of the account does not allow what was asked for, or a payment is due; the key itself is good."""


class BudgetSpentError(EmbedderError):
    """As many requests as were allowed have been sent; what was embedded is kept."""


class RejectedImagesError(EmbedderError, ValueError):
    """The service refuses this batch of images for good; a part of it may still pass."""


class ClassifierError(EmbedStoreError, ValueError):
    """A saved classifier cannot be read, or does not apply here."""


class ClassifierExistsError(ClassifierError, FileExistsError):
    """The store keeps a classifier of that name already."""


class AtlasError(EmbedStoreError, RuntimeError):
    """A sync with Atlas could not be completed or confirmed."""


class ClusterError(EmbedStoreError, RuntimeError):
    """A Ray cluster cannot be joined, its nodes differ from the driver, or its workers keep dying."""


class MissingDependencyError(EmbedStoreError, ImportError):
    """An optional package is not installed."""
