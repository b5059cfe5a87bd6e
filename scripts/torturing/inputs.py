"""Hostile inputs: broken pictures, archives, tables, conditions and JSON in great numbers, and bombs.

What is fed to what, and what may come out, is `feeding`'s; how things are broken, `mutations`'.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

from embedstore.testing import NomicServer
from torturing.figures import Figures
from torturing.forks import Forks, forking
from torturing.stepping import run_steps
from torturing.work import Work, short

_MEMORY = 8 * 2**30
"""Bytes of address space that a bomb may make a process take before it ends, so that the machine survives."""


def run(work: Work) -> Figures:
    """Feed inputs until the time is up, and set off the bombs."""
    figures = Figures("inputs")
    with NomicServer() as server:
        environment = {**server.environment(work.folder / "home"), "EMBEDSTORE_OFFLINE": "1"}
        with forking(work.folder / "jobs", environment) as forks:
            if work.only is None:
                del environment["EMBEDSTORE_OFFLINE"]
                with forking(work.folder / "online", environment) as online:
                    _set_off(work, figures, online)
            until = work.started + work.seconds
            run_steps(work, figures, forks, "feeding:feed", str(work.folder), until=until)
    return figures


def _set_off(work: Work, figures: Figures, forks: Forks) -> None:
    """Add sources that are small on the disk and huge when they are read."""
    large = work.seconds > 120
    bombs = {
        "an archive of huge files": archive_bomb(work.folder / "bomb.tar.gz", 40 if large else 4),
        "huge pictures": picture_bombs(work.folder / "bombs", 17_300 if large else 3_000),
    }
    for what, source in bombs.items():
        store = work.folder / "bombed.store"
        words = ["add", str(store), str(source), "--model", "nomic", "-q"]
        ended = forks.start(words, memory=_MEMORY).wait(120)
        figures.tried += 1
        figures.details["bombs"] += 1
        figures.saw_memory(ended.peak, "bombs", f"adding {what}")
        if ended.hung:
            figures.add("hangs", "bombs", f"adding {what} does not end")
        elif ended.crashed or ended.exit not in (0, 1):
            figures.add("other", "bombs", f"adding {what}: exit {ended.exit}: {short(ended.said)}")


def archive_bomb(file: Path, members: int) -> Path:
    """Write a .tar.gz of members of 100 MB of noughts each."""
    size = 100 * 10**6
    body = gzip.compress(bytes(size + -size % 512), 9)
    with file.open("wb") as sink:
        for number in range(members):
            head = tarfile.TarInfo(f"{number:03}.png")
            head.size = size
            sink.write(gzip.compress(head.tobuf()) + body)
        sink.write(gzip.compress(bytes(1024)))
    return file


def picture_bombs(folder: Path, side: int, number: int = 4) -> Path:
    """Write PNG pictures of side x side transparent pixels, in different files."""
    folder.mkdir()
    for each in range(number):
        packer, row, sink = zlib.compressobj(1), bytes(1 + 4 * side), io.BytesIO()
        packed = [packer.compress(row) for _ in range(side)] + [packer.flush()]
        sink.write(b"\x89PNG\r\n\x1a\n")
        chunks = {
            b"IHDR": struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0),
            b"tEXt": f"number\0{each}".encode(),
            b"IDAT": b"".join(packed),
            b"IEND": b"",
        }
        for name, content in chunks.items():
            sink.write(struct.pack(">I", len(content)) + name + content)
            sink.write(struct.pack(">I", zlib.crc32(name + content)))
        (folder / f"{each}.png").write_bytes(sink.getvalue())
    return folder
