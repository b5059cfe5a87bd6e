"""Files whole or not at all: the one way in which a file is replaced, and the checksums that tell damage.

Also the rule for names of files to read that come from elsewhere: only regular files are opened. What is written, and
in which order, is left to whoever writes; what may be written under a name that a person gives, to `result_files`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from embedstore.errors import PathError

IN_MEMORY = ("memory:", "table:")
"""So begin the uris of pictures that no file on any machine holds."""

_READ_BYTES = 2**20
_SEAL = "checksum"
_OTHER_FILES = 256
"""Files that a process may have open besides the parts of a store."""


def replace(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write a file beside and rename it into place, so that readers see the old one or the new, never a part.

    Text is written as UTF-8. What is `durable` must outlast a power cut: the file is synced before it is renamed, and
    its folder after. What can be made again needs neither.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
    try:
        with naming(path, beside):
            with beside.open("xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(path)
    finally:
        with contextlib.suppress(NotADirectoryError):
            beside.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], beside: Path | None = None) -> Iterator[None]:
    """Let an error of the operating system name the file that is being written, perhaps in one `beside` it.

    A full disk names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(beside)):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def allow_open(number: int) -> None:
    """Let this process have so many files open besides those that it has, as far as the system lets it.

    Many systems begin with 256 or 1,024; a store of more parts than that has each mapped, which counts.
    """
    try:
        import resource
    except ImportError:  # Windows, which counts otherwise
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * number + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as the files, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder, and their names, outlast a power cut."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            with (Path(place) / name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def checksum(path: Path) -> str:
    """Return 32 hex digits that change when any byte of a file does or changes places, at the speed of reading it.

    XXH3 of 128 bits: it finds accidents, not forgery.
    """
    import xxhash

    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        digest = xxhash.xxh3_128()
        buffer = memoryview(bytearray(_READ_BYTES))
        while length := file.readinto(buffer):
            digest.update(buffer[:length])
    return digest.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a JSON object with a checksum of them all as the last; see `is_intact`."""
    others = {name: value for name, value in content.items() if name != _SEAL}
    return {**others, _SEAL: _seal(others)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Tell whether the fields of a JSON object carry a checksum."""
    return _SEAL in content


def is_intact(content: Mapping[str, Any]) -> bool:
    """Tell whether the fields of a JSON object are what their checksum was made of, in whatever order and spacing."""
    return bool(content.get(_SEAL) == sealed(content)[_SEAL])


def _seal(fields: Mapping[str, Any]) -> str:
    import xxhash

    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(canonical.encode())


def is_in_memory(uri: str) -> bool:
    """Tell whether a uri names a picture that was only in memory."""
    return uri.startswith(IN_MEMORY)


def holder_of(uri: str) -> str | None:
    """Return the file on this machine that a uri names or points into; None when there is none.

    ``photos.parquet#12`` is a row of a table, ``photos.zip!cat.jpg`` a member of an archive. Either sign may stand in
    a name too: the longest path that is a file counts.
    """
    if is_in_memory(uri):
        return None
    ends = [place for place, letter in enumerate(uri) if letter in "!#"] + [len(uri)]
    return next((uri[:end] for end in reversed(ends) if os.path.isfile(uri[:end])), None)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading where it is a regular file; a link is followed.

    Raises PathError, which is an OSError, for a folder, a pipe, a device or a socket, which may never answer or never
    end; FileNotFoundError and other errors of the system as they are.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file has a NUL in its name", os.fspath(path))
    _require_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(os.fstat(descriptor), path)  # it may be another by now
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file; raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if (kind := kind_of(status.st_mode)) is not None:
        raise PathError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def kind_of(mode: int) -> str | None:
    """Return what a file is that is no regular one."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")
