"""Whatever an `add` is given, its process stays below 1.5 GB, ends, and can be interrupted."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedstore.embedders import batches
from embedstore.embedders.objects import ObjectsEmbedder
from embedstore.ingest import executor
from embedstore.store import EmbedStore

BOUND = 1_500_000_000


MEASURE = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "embedstore", "add", *sys.argv[1:]])
_, status, usage = os.wait4(child, 0)
print("memory", usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured_add(store: Path, *words: object) -> int:
    """Run `embedstore add` in a process of its own; return the most memory that it had, in bytes.

    It is started by a small process, as a system counts the memory of the one that starts another for that one too.
    """
    command = [sys.executable, "-c", MEASURE, str(store), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "images in the store" in done.stdout, done.stderr  # with status 1 where every picture failed
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def failures(store: Path) -> dict[str, str]:
    with (store / "failures.csv").open(newline="") as file:
        return {Path(row["uri"]).name: row["reason"] for row in csv.DictReader(file)}


def png_of_zeros(path: Path, width: int, height: int, colour: int) -> None:
    """Write a PNG of black pixels: RGBA (6), RGB (2) or grey (0)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    row = bytes(1 + width * {6: 4, 2: 3, 0: 1}[colour])
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_pictures_of_many_pixels(tmp_path: Path) -> None:
    """Huge pictures at once: what fits is embedded, one at a time; what does not is a failure with its size."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    png_of_zeros(folder / "bomb.png", 17_300, 17_300, 6)
    for name in ("a", "b"):
        png_of_zeros(folder / f"{name}.png", 9_000 + ord(name), 9_000, 6)
    png_of_zeros(folder / "grey.png", 10_000, 10_000, 0)
    Image.new("RGB", (9_000, 8_000), "teal").save(folder / "large.jpg", progressive=True)
    store = tmp_path / "s.store"
    assert measured_add(store, folder, "--model", "objects", "--workers", 8) < BOUND
    assert failures(store).keys() == {"bomb.png"}
    assert "17,300 x 17,300 pixels (PNG RGBA)" in failures(store)["bomb.png"]
    table = EmbedStore.open(store).to_table(["uri", "width", "height"])
    sizes = {Path(row["uri"]).name: (row["width"], row["height"]) for row in table.to_pylist()}
    assert sizes.pop("large.jpg") == (9_000, 8_000)
    assert sizes == {"a.png": (9_097, 9_000), "b.png": (9_098, 9_000), "grey.png": (10_000, 10_000)}


def test_archives_and_tables_of_many_bytes(tmp_path: Path) -> None:
    """A few MB that unpack to gigabytes, in a tar.gz, in a table, and in files of noise that are no pictures."""
    bomb = tmp_path / "bomb.tar.gz"
    with tarfile.open(bomb, "w:gz", compresslevel=1) as archive:
        for number in range(5):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = 100_000_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    members = tmp_path / "members.tar.gz"
    noise = np.random.default_rng(1).bytes(2_000_000)
    with tarfile.open(members, "w:gz", compresslevel=1) as archive:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.png")
            data = noise + bytes(70_000_000)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    table = tmp_path / "table.parquet"
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 25, pa.int32()), pa.array([bytes(60_000_000)]))
    pq.write_table(pa.table({"image": cells}), table, compression="zstd", store_schema=False)
    assert sum(path.stat().st_size for path in (bomb, members, table)) < 40_000_000
    store = tmp_path / "s.store"
    assert measured_add(store, bomb, members, table, "--model", "objects") < BOUND
    assert len(EmbedStore.open(store)) == 0
    assert "more than 100 times its size" in failures(store)["bomb.tar.gz"]
    assert len(failures(store)) >= 4 + 25


def test_an_interrupt_does_not_wait_for_a_server_that_drips(tmp_path: Path) -> None:
    """Ctrl-C while readers hang on a server that sends a byte now and then ends the process within 2 seconds or so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = threading.Event()

        def drip(connection: socket.socket) -> None:
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                asked.set()
                try:
                    for _ in range(600):
                        connection.sendall(b"x")
                        time.sleep(0.1)
                except OSError:
                    return

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        urls = tmp_path / "urls.txt"
        urls.write_text("\n".join(f"http://127.0.0.1:{listener.getsockname()[1]}/{n}.png" for n in range(20)))
        command = [sys.executable, "-m", "embedstore", "--allow-private-urls", "add"]
        command += [str(tmp_path / "s.store"), str(urls), "--model", "objects"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "EMBEDSTORE_OFFLINE": "0"},
            stderr=subprocess.PIPE,
            # A shell that runs the tests in the background has them ignore the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert asked.wait(60)
            time.sleep(0.3)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert time.monotonic() - started < 4
            assert process.returncode == 130
        finally:
            process.kill()


def test_records_of_a_list_of_files_and_archives_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for hardly two members, files before an archive and the archive itself are all read."""
    from embedstore.images import turns

    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(2)
    pictures = [Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)) for _ in range(60)]
    for number, picture in enumerate(pictures[:30]):
        picture.save(folder / f"{number}.png")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for number, picture in enumerate(pictures[30:]):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    for name in ("FILES", "CARRIED"):
        monkeypatch.setattr(turns, name, turns.Budget(25_000))
    monkeypatch.setattr(turns, "PIXELS", turns.Budget(5_000_000))
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    report = store.add([folder, tmp_path / "a.tar.gz"], progress=False)
    assert (report.embedded, report.failures) == (60, [])


def test_prepared_pictures_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many workers and large batches: what has left and not come back takes no more than the bound."""
    monkeypatch.setattr(batches, "MOST_BYTES", 1000)
    lock, under_way, most, sizes = threading.Lock(), 0, 0, []

    class Slow(ObjectsEmbedder):
        def embed_prepared(self, prepared: object) -> np.ndarray:
            nonlocal under_way, most
            with lock:
                under_way += sum(map(len, prepared))
                most = max(most, under_way)
                sizes.append(len(prepared))
            time.sleep(0.01)
            with lock:
                under_way -= sum(map(len, prepared))
            return np.ones((len(prepared), self.space.dim), np.float32)

    kept: list[str] = []
    items = ((str(number), bytes(60)) for number in range(200))
    batches.embed(items, Slow().__class__, lambda lot: kept.extend(key for key, _ in lot), workers=100, batch_size=1000)
    assert sorted(kept, key=int) == [str(number) for number in range(200)]
    assert 300 < most <= 1000
    assert max(sizes) == 5


def test_a_file_that_changes_between_two_looks_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is read twice, for its hash and for its picture; no row joins two versions of it."""
    from embedstore import images
    from embedstore.images import decoding

    monkeypatch.setattr(decoding, "_IN_ONE_GO", 10)
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 30), "red").save(path)
    first = images.content_hash

    def change(source: object) -> str:
        digest = first(source)
        Image.new("RGB", (30, 30), "blue").save(path)
        return digest

    monkeypatch.setattr(images, "content_hash", change)
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    report = store.add(path, progress=False)
    assert (report.embedded, [failure.reason for failure in report.failures]) == (0, [executor.CHANGED])
