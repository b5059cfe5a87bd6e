"""The files of a Delta log: which there are, whether they are whole, and how they reach the disk.

`Log` turns a folder ``_delta_log`` into the files from which a version is read, or says which of them is damaged;
publishes what `deltalake` has written beside it, synced before anyone sees it; and reads, from what is left of a
damaged log, which parts were added and removed. Checksums are kept by whoever gives `Notes`, the ledger. What goes into
a commit is left to `table`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Protocol, TypeVar

import xxhash

from embedstore import files
from embedstore.errors import DamagedStoreError, InputError, StoreError, StoreNotFoundError
from embedstore.storage.arrow_columns import pa

NAME = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*(?:parquet|json)")
_READINGS = 20
"""How often the log is read again because a vacuum has deleted files of it meanwhile."""
_log = logging.getLogger("embedstore")
T = TypeVar("T")


class Notes(Protocol):
    """Who remembers the xxh3 of files of the log, by name."""

    def note(self, checksums: Mapping[str, int | None]) -> None:
        """Remember checksums; None for a file that is gone."""

    def noted(self) -> dict[str, int]:
        """Return what is remembered."""


@dataclass
class History:
    """What can be read of a log.

    Attributes
    ----------
    added : dict of str to int
        Size of each part that was ever added, by its name.
    removed : set of str
        Names of parts that were taken out again, or replaced.
    rewritten : set of str
        Those of `removed` whose rows were only laid out anew, by what the commits say: they are all in other parts.
    transactions : dict of str to int
        Number of the last unit of each series; see `DeltaFolder.applied`.
    schema : str or None
        The newest schema, as Delta's JSON.
    unreadable : list of str
        Names of files that are damaged; what they said is missing here.
    """

    added: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    transactions: dict[str, int] = field(default_factory=dict)
    schema: str | None = None
    unreadable: list[str] = field(default_factory=list)

    @property
    def live(self) -> set[str]:
        """Names of the parts that were added and not removed."""
        return set(self.added) - self.removed

    @classmethod
    def of(cls, actions: Iterable[Mapping[str, Any]]) -> History:
        """Return what these actions come to, in their order."""
        history = cls()
        for action in actions:
            history.take(action)
        return history

    def state(self) -> tuple[Any, ...]:
        """Return what holds in the end: the parts with their sizes, the transactions and the schema."""
        schema = None if self.schema is None else json.loads(self.schema)
        return {name: self.added[name] for name in self.live}, self.transactions, schema

    def take(self, action: Mapping[str, Any], *, summed_up: bool = False) -> None:
        """Take one action of a commit in, in the order of the log; `summed_up`: of a checkpoint."""
        if add := action.get("add"):
            name = urllib.parse.unquote(add["path"])
            self.added[name] = int(add["size"])
            self.removed.discard(name)
            self.rewritten.discard(name)
        if remove := action.get("remove"):
            name = urllib.parse.unquote(remove["path"])
            self.removed.add(name)
            if not summed_up:  # a checkpoint no longer knows which rows have changed
                (self.rewritten.add if remove.get("dataChange") is False else self.rewritten.discard)(name)
        if transaction := action.get("txn"):
            series, number = transaction["appId"], int(transaction["version"])
            self.transactions[series] = max(number, self.transactions.get(series, -1))
        if about := action.get("metaData"):
            self.schema = about["schemaString"]


class Log:
    """The log of one table.

    Parameters
    ----------
    folder : Path
        ``_delta_log``, in the table's folder, which lies in the store's.
    notes : Notes, optional
        Checksums of what this program has published; without, files are only held against themselves.
    """

    def __init__(self, folder: Path, notes: Notes | None = None) -> None:
        self.folder = folder
        self._notes = notes

    def commits(self) -> dict[int, Path]:
        """Return the commits on the disk, by version."""
        return {number: self.folder / names[0] for number, names in self._listed(_COMMIT).items()}

    def checkpoints(self) -> dict[int, list[Path]]:
        """Return the files of the checkpoints on the disk, by version."""
        listed = self._listed(_CHECKPOINT)
        return {number: [self.folder / name for name in names] for number, names in listed.items()}

    def newest(self) -> int:
        """Return the newest version by the names of the commits."""
        try:
            commits = self._listed(_COMMIT)
        except FileNotFoundError as error:
            raise StoreNotFoundError(
                f"{self.folder.parent} has no table; make a store with `embedstore add STORE SOURCE`"
            ) from error
        if not commits:
            raise DamagedStoreError(self.advice(f"{self.folder} holds no commit"))
        return max(commits)

    def checksum(self, version: int) -> str:
        """Return the xxh3 of a commit's bytes, as 16 hex digits; "" when it cannot be read."""
        try:
            return f"{_checksum(self.folder / commit_name(version)):016x}"
        except OSError:
            return ""

    def files_of(self, version: int) -> tuple[list[Path], bool]:
        """Return the files from which a version is read, and whether no damaged checkpoint stands beside them.

        Raises
        ------
        DamagedStoreError
            One of them is missing, torn, or not what was noted; or a newer version than the log has was noted.
        InputError
            They were removed by vacuum.
        """
        noted = self._noted()  # before the listing: what is noted is on the disk
        commits, checkpoints = self._listed(_COMMIT), self.checkpoints()
        self._require_newest(noted, commits, checkpoints)
        base, found, broken = -1, list[Path](), ""
        for number in sorted((n for n in checkpoints if n <= version), reverse=True):
            damage = next(filter(None, (damage_of(path, noted) for path in checkpoints[number])), None)
            if damage is None:
                base, found = number, list(checkpoints[number])
                break
            broken = broken or damage
        for number in range(max(base, 0), version + 1):
            if number in commits:
                path = self.folder / commits[number][0]
                if damage := damage_of(path, noted):
                    raise DamagedStoreError(self.advice(damage))
                found.append(path)
            elif number != base:
                if not broken and number < min(commits) and any(n > version for n in checkpoints):
                    raise InputError(f"version {version} needs files that vacuum has removed; choose a later version")
                raise DamagedStoreError(self.advice(broken or f"{self.folder / commit_name(number)} is not there"))
        if broken:
            _log.warning("%s; the table is read without it", broken)
        return found, not broken

    def names(self) -> set[str]:
        """Return the names of commits and checkpoints on the disk."""
        listed = [*self._listed(_COMMIT).values(), *self._listed(_CHECKPOINT).values()]
        return {name for names in listed for name in names}

    def check(self) -> list[str]:
        """Read every file and return what is damaged, in words; [] for a sound log."""
        return self._settled(self._check)

    def history(self) -> History:
        """Return what the files that can be read say, in their order; nothing where there is no log."""
        return self._settled(self._history) if self.folder.is_dir() else History()

    def _settled(self, read: Callable[[], T]) -> T:
        """Return what a reading gives during which no vacuum has deleted files of the log."""
        for _ in range(_READINGS - 1):
            try:
                listed = self.names()
                result = read()
                if listed <= self.names():
                    return result
            except FileNotFoundError:
                continue
        return read()

    def _check(self) -> list[str]:
        noted = self._noted()
        try:
            commits, checkpoints = self.commits(), self.checkpoints()
        except FileNotFoundError:
            return [f"{self.folder} is not there"]
        if not commits:
            return [f"{self.folder} holds no commit"]
        damage = [damage_of(path, noted) for path in commits.values()]
        damage += [damage_of(path, noted) for paths in checkpoints.values() for path in paths]
        damage.append(self._hint_damage(noted, checkpoints))
        if not any(damage):
            unnoted = [number for number, paths in checkpoints.items() if any(path.name not in noted for path in paths)]
            damage += [_difference(commits, checkpoints[number], number) for number in unnoted]
        problems = [text for text in damage if text]
        first = min(commits)
        problems += [
            f"{self.folder / commit_name(number)} is not there"
            for number in range(first, max(commits))
            if number not in commits
        ]
        if first > 0 and not any(number >= first - 1 for number in checkpoints):
            problems.append(f"{self.folder} has neither the commits before version {first} nor a checkpoint of them")
        # Once more what is noted: a vacuum may have run meanwhile.
        gone = [
            name
            for name in self._noted().keys() & noted.keys()
            if not (self.folder / name).exists() and not _is_before(name, first)
        ]
        problems += [f"{self.folder / name} is not there, and was" for name in sorted(gone)]
        return problems

    def _history(self) -> History:
        history = History()
        noted = self._noted()
        commits, checkpoints = self.commits(), self.checkpoints()
        for number in sorted(commits.keys() | checkpoints.keys()):
            for path in filter(None, [commits.get(number), *checkpoints.get(number, ())]):
                if damage_of(path, noted):
                    history.unreadable.append(path.name)
                    continue
                for action in _actions(path):
                    history.take(action, summed_up=path != commits.get(number))
        return history

    def timestamps(self) -> dict[int, float]:
        """Return when each commit was made, in seconds since 1970, by what it says."""
        found = {}
        for number, path in self.commits().items():
            said = [action["commitInfo"].get("timestamp") for action in _actions(path) if "commitInfo" in action]
            found[number] = said[0] / 1000 if said and said[0] else path.stat().st_mtime
        return found

    def stage(self, version: int, folder: Path, *, linked: bool) -> None:
        """Put the files of a version, as links or as copies, into ``folder/_delta_log``, for `deltalake` to work on."""
        sources, _ = self.files_of(version)
        staged = folder / NAME
        staged.mkdir()
        for path in sources:
            if linked:
                os.link(path, staged / path.name)
            else:
                shutil.copyfile(path, staged / path.name)

    def publish(self, staged: Log, after: int) -> list[int]:
        """Move new commits from a staged log into this one and return their versions; then they outlast a power cut.

        Raises
        ------
        FileExistsError
            Another writer has made such a version meanwhile.
        """
        new = {number: path for number, path in sorted(staged.commits().items()) if number > after}
        for path in new.values():
            _sync(path)
        for path in new.values():
            os.link(path, self.folder / path.name)
        files.sync_folder(self.folder)
        self._note({path.name: _checksum(path) for path in new.values()})
        return list(new)

    def require_behind(self, version: int, made: Sequence[int], began: float) -> None:
        """Raise FileExistsError where commits that were `made` behind a version came too late to count.

        Nobody expires the log between the two here, under the lock. `began` is when the version was the newest.
        """

    def publish_checkpoint(self, staged: Log) -> None:
        """Move the newest checkpoint of a staged log into this one, and then the hint that there is one."""
        number, paths = max(staged.checkpoints().items())
        noted: dict[str, int | None] = {}
        for path in paths:
            _sync(path)
            noted[path.name] = _checksum(path)
            path.replace(self.folder / path.name)
        files.sync_folder(self.folder)
        hint = (staged.folder / LAST_CHECKPOINT).read_bytes()
        files.replace(self.folder / LAST_CHECKPOINT, hint)
        self._note({**noted, LAST_CHECKPOINT: xxhash.xxh3_64_intdigest(hint)})
        _log.debug("made a checkpoint of version %d", number)

    def adopt(self) -> None:
        """Sync a log that was just made, and note what is in it."""
        commits = self.commits()
        self.sync()
        self._note({path.name: _checksum(path) for path in commits.values()})

    def complete(self) -> None:
        """Have the files of all versions in the folder; there is nothing to do where that is the log itself."""

    def sync(self) -> None:
        """Make the log outlast a power cut, whoever has written it."""
        for path in [*self.commits().values(), *(path for paths in self.checkpoints().values() for path in paths)]:
            _sync(path)
        files.sync_folder(self.folder)

    def expire(self, before: int) -> None:
        """Delete the files of versions before one that has a checkpoint."""
        old = [path for number, path in self.commits().items() if number < before]
        old += [path for number, paths in self.checkpoints().items() if number < before for path in paths]
        if old:
            self._note(dict.fromkeys((path.name for path in old), None))
            for path in old:
                path.unlink(missing_ok=True)

    def forget(self, names: Sequence[str]) -> None:
        """Drop what is noted of files; of a log that was put aside, say."""
        if self._notes is not None and names:
            self._notes.note(dict.fromkeys(names, None))

    def noted_names(self) -> list[str]:
        """Return the names of files of which checksums are noted."""
        return sorted(self._noted())

    def _note(self, checksums: Mapping[str, int | None]) -> None:
        if self._notes is None:
            return
        try:
            self._notes.note(checksums)
        except (StoreError, OSError) as error:  # the commit stands; what was noted of it would only watch over it
            _log.warning("checksums of the log could not be noted: %s", error)

    def _noted(self) -> dict[str, int]:
        try:
            return {} if self._notes is None else self._notes.noted()
        except (StoreError, OSError) as error:
            _log.debug("the log is read without its checksums: %s", error)
            return {}

    def _listed(self, pattern: re.Pattern[str]) -> dict[int, list[str]]:
        """Return the names of files of a kind, by version."""
        found: dict[int, list[str]] = {}
        for name in sorted(os.listdir(self.folder)):
            if match := pattern.fullmatch(name):
                found.setdefault(int(match[1]), []).append(name)
        return found

    def _require_newest(
        self, noted: Mapping[str, int], commits: Mapping[int, list[str]], checkpoints: Mapping[int, list[Path]]
    ) -> None:
        last = max(commits, default=-1)
        known = [int(match[1]) for name in noted if (match := _COMMIT.fullmatch(name))]
        if (seen := max([*known, *checkpoints], default=-1)) > last:
            raise DamagedStoreError(
                self.advice(f"{self.folder / commit_name(seen)} is not there: this log has had a version {seen}")
            )

    def _hint_damage(self, noted: Mapping[str, int], checkpoints: Mapping[int, list[Path]]) -> str | None:
        path = self.folder / LAST_CHECKPOINT
        if not path.exists():
            return None
        try:
            if path.name in noted and _checksum(path) != noted[path.name]:
                return f"{path} is damaged (checksum)"
            return None if json.loads(path.read_bytes())["version"] in checkpoints else f"{path} names no checkpoint"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{path} cannot be read ({error})"

    def advice(self, what: str) -> str:
        """Return what was found, with what to do about it."""
        store = self.folder.parent.parent
        return f"{what}; run `embedstore repair {quote(str(store))}`, or restore the file from a copy"


def commit_name(version: int) -> str:
    """Return the name of the file of a commit."""
    return f"{version:020}.json"


def version_of(name: str) -> int:
    """Return the version of a file of the log; -1 for one of none."""
    match = _COMMIT.fullmatch(name) or _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else -1


def is_of_log(name: str) -> bool:
    """Tell whether a name is that of a file of a log: a commit, a checkpoint, or the hint at the last of these."""
    return name == LAST_CHECKPOINT or version_of(name) >= 0


def parts_added(commit: Path) -> set[str]:
    """Return the names of the parts that a commit adds."""
    return {urllib.parse.unquote(action["add"]["path"]) for action in _actions(commit) if action.get("add")}


def _is_before(name: str, first: int) -> bool:
    """Tell whether a file is of a version before the oldest commit: a vacuum that was cut short still notes it."""
    return -1 < version_of(name) < first


def _checksum(path: Path) -> int:
    return int(xxhash.xxh3_64_intdigest(path.read_bytes()))


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _actions(path: Path) -> list[dict[str, Any]]:
    """Return what a commit, or a file of a checkpoint, says."""
    if path.suffix == ".json":
        return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    import pyarrow.parquet as pq  # late: most versions are read from commits

    with pq.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


def damage_of(path: Path, noted: Mapping[str, int] | None = None) -> str | None:
    """Return what is wrong with a commit or a file of a checkpoint, in words; None for a sound one."""
    try:
        if noted and path.name in noted:
            return None if _checksum(path) == noted[path.name] else f"{path} is damaged (checksum)"
        actions = _actions(path)
        if not any(actions):
            return f"{path} is empty"
        History.of(actions).state()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        return f"{path} cannot be read ({error})"
    return None


def _difference(commits: Mapping[int, Path], checkpoint: Sequence[Path], version: int) -> str | None:
    """Return where a checkpoint says something else than the commits that it sums up, as far as they are still there.

    Of a checkpoint that another program has made no checksum is noted, so that this alone tells a damaged name.
    """
    actions = [action for path in checkpoint for action in _actions(path)]
    if any(action.get("sidecar") for action in actions) or not all(number in commits for number in range(version + 1)):
        return None
    summed_up = History.of(actions)
    told = History.of(action for number in range(version + 1) for action in _actions(commits[number]))
    if summed_up.state() == told.state():
        return None
    return f"{checkpoint[0]} is damaged: it does not say what the commits up to version {version} say"
