"""The vectors that a user's processes keep without a store: one file, bounded, that all of them share.

Turns an embedding space into a place where vectors of that space are kept by text or content hash, and into claims: a
process says what it is about to pay for, so that another waits for it instead of paying too. What is asked for, and
how it is embedded, is `cached_embedder`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock

from embedstore.errors import StoreError
from embedstore.searching.query_vectors import QueryCache
from embedstore.settings import CACHE_DIR, cache_dir
from embedstore.space import Space
from embedstore.storage.ledger import Ledger
from embedstore.storage.ledger_file import DamagedLedgerError, LedgerFile
from embedstore.storage.running import Running
from embedstore.vectors import Vectors
from embedstore.wording import counted

MOST_VECTORS = 250_000
"""Vectors that are kept, about 1 GB of 768 components; those kept longest ago go."""

_log = logging.getLogger("embedstore")
_POLL_SECONDS = 0.2
_said: set[Path] = set()
_failed: set[Path] = set()

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


class Claims:
    """What the processes that share a ledger are about to pay for, apart from the claims of `add`."""

    def __init__(self, ledger: Ledger, running: Running, space: Space) -> None:
        self._ledger, self._running, self._space = ledger, running, space

    @contextlib.contextmanager
    def begun(self, kind: str) -> Iterator[Claim]:
        """Be a run that pays for texts or pictures, as `kind` says, until the end of the block.

        Where nothing can be written down, because the disk is full or may only be read, the run claims nothing and
        waits for nobody.
        """
        with contextlib.ExitStack() as stack:
            run = None
            try:
                run = stack.enter_context(self._running.begun())
            except OSError as error:
                _log.debug("nothing is claimed: %s", error)
            claim = Claim(self._ledger, self._running, run, f"{self._space.key}\n{kind}\n")
            try:
                yield claim
            finally:
                claim.release()


@dataclass
class Claim:
    """The claims of one run; `before` makes names that no `add` claims out of texts and content hashes."""

    ledger: Ledger
    running: Running
    run: str | None
    before: str

    def take(self, keys: Sequence[str]) -> list[str]:
        """Claim what no living run has claimed; return it, in order. All of it where nothing can be written down."""
        if self.run is None:
            return list(keys)
        try:
            mine = self.ledger.claim(self.run, [self.before + key for key in keys], self.running.is_alive)
        except (StoreError, OSError) as error:
            _log.debug("nothing is claimed: %s", error)
            return list(keys)
        return [key for key in keys if self.before + key in mine]

    def release(self) -> None:
        """Give all claims back."""
        if self.run is None:
            return
        try:
            self.ledger.release(self.run)
        except (StoreError, OSError) as error:  # they are free once this run has ended
            _log.debug("claims are not released: %s", error)

    def wait_for(self, keys: Sequence[str]) -> None:
        """Wait until the first of these is claimed by no living run; say so once."""
        name, said = self.before + keys[0], False
        while True:
            try:
                owner, _ = self.ledger.owners([name]).get(name, (None, None))
            except (StoreError, OSError) as error:
                _log.debug("nobody is waited for: %s", error)
                return
            if owner is None or not self.running.is_alive(owner):
                return
            if not said:
                said = True
                waiting = counted(len(keys), "vector is", "vectors are")
                _log.warning("%s being made by another process: waiting", waiting)
            time.sleep(_POLL_SECONDS)


class _MendedLedger(Ledger):
    """A ledger whose file, where SQLite cannot read it, is made anew out of what can be read: it was paid for."""

    def queries(self, space: str, kind: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that are kept, as `Ledger.queries`."""
        return self._mended(super().queries, space, kind, texts)

    def keep_queries(self, space: str, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep vectors, as `Ledger.keep_queries`."""
        self._mended(super().keep_queries, space, kind, texts, vectors)

    def claim(self, run: str, content_hashes: Sequence[str], is_alive: Callable[[str], bool]) -> set[str]:
        """Claim, as `Ledger.claim`."""
        return self._mended(super().claim, run, content_hashes, is_alive)

    def _mended(self, call: Callable[_Given, _Found], *given: _Given.args, **named: _Given.kwargs) -> _Found:
        try:
            return call(*given, **named)
        except DamagedLedgerError:
            self._begin_anew()
        return call(*given, **named)

    def _begin_anew(self) -> None:
        """Make the file anew, unless another process has done so meanwhile."""
        with FileLock(self.path.with_name(self.path.name + ".lock")):
            try:
                if LedgerFile(self.path).read("PRAGMA quick_check") == [("ok",)]:
                    return
                cause = "damaged pages"
            except DamagedLedgerError as error:
                cause = str(error.__cause__)
            aside = self.salvage()
            for suffix in ("", "-journal"):
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)
            [(saved,)] = LedgerFile(self.path).read("SELECT count(*) FROM queries")
        some = f"{counted(saved, 'vector')} of them could be saved" if saved else "nothing could be saved"
        _log.warning("the kept vectors could not be read (%s) and are begun anew: %s", cause, some)


class _KeptVectors(QueryCache):
    """The vectors of one space; that none are kept is said once in a process."""

    def _warn(self, error: Exception) -> None:
        if self.ledger.path not in _failed:
            _failed.add(self.ledger.path)
            _log.warning("vectors are not kept: %s", error)


class UserVectors:
    """The place where vectors of one space are kept for this user.

    It is in the folder ``EMBEDSTORE_CACHE_DIR``, else where the system keeps caches, and may be deleted at any time.
    The first use in a process says on stderr where it is. A damaged file is made anew out of what can be read of it;
    one that cannot be used costs a warning, never an answer.

    Parameters
    ----------
    space : Space

    Attributes
    ----------
    path : Path
        The file.
    cache : QueryCache
    claims : Claims
    """

    def __init__(self, space: Space) -> None:
        nowhere: OSError | None = None
        try:
            folder = (cache_dir() / "vectors").absolute()
        except FileNotFoundError as error:  # a user without a home
            folder, nowhere = Path(os.devnull, "vectors"), error
        self.path = folder / "vectors.sqlite"
        ledger, running = _MendedLedger(self.path, MOST_VECTORS), Running(folder / ".running")
        self.cache, self.claims = _KeptVectors(ledger, space, "vectors"), Claims(ledger, running, space)
        try:
            if nowhere is not None:
                raise nowhere
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ledger.queries(space.key, "text", [""])
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except (OSError, StoreError) as error:
            self.cache._warn(error)
            return
        if self.path not in _said:
            _said.add(self.path)
            _log.warning(
                "vectors are kept in %s (at most %s, the newest); %s names another folder, store=None keeps none",
                self.path,
                f"{MOST_VECTORS:,}",
                CACHE_DIR,
            )
