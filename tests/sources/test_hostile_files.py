"""Archives, tables and folders made to cost much, or to name what is none of theirs."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pictures import PICTURE_STRUCT, png, put

from embedstore.errors import ImageError, SourceError
from embedstore.images import turns
from embedstore.sources import hub, open_source, parquet_pages
from embedstore.sources.table_files import TableSource


class Zeros(io.RawIOBase):
    """So many bytes of zeros."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


def tar(path: Path, members: dict[str, bytes | int | tarfile.TarInfo]) -> Path:
    """Write a tar: bytes, so many zeros, or a member of another kind."""
    kind = {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, kind) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = content if isinstance(content, int) else len(content)
            archive.addfile(member, Zeros(content) if isinstance(content, int) else io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar"])
def test_a_member_too_large_is_refused_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    """Nothing of it is held; what comes behind it is there."""
    path = tar(tmp_path / name, {"a.png": png(1), "b.png": turns.LARGEST_FILE + 1, "c.png": png(3)})
    loaded = []
    for record in open_source(path):
        try:
            loaded.append(record.load())
        except ImageError as error:
            loaded.append(str(error))
    assert loaded[0] == png(1)
    assert "104,857,601 bytes, more than the 104,857,600" in loaded[1]
    assert loaded[2] == png(3)


def test_an_archive_that_unpacks_to_far_more_than_pictures_do_is_left(tmp_path: Path) -> None:
    """A tar.gz of zeros ends with a failure of its own, after what came before."""
    path = tar(tmp_path / "a.tar.gz", {"a.png": png(1), "big.bin": 400 << 20, "b.png": png(2)})
    source = open_source(path)
    assert [record.load() for record in source] == [png(1)]
    (failure,) = source.failures
    assert failure.uri == str(path)
    assert "more than 100 times its size" in failure.reason


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    """The lengths in a tar's own headers are bounded too."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 5 << 30
    (tmp_path / "a.tar").write_bytes(header.tobuf() + bytes(10_000))
    with pytest.raises(SourceError, match="a header asks for 5,368,709,120 bytes"):
        open_source(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path, name: str) -> None:
    """They are followed nowhere, and names that lead out are only names."""
    (tmp_path / "secret.png").write_bytes(png(9))
    members: dict[str, Any] = {"../../up.png": png(1), "/etc/root.png": png(2)}
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        special = tarfile.TarInfo(f"{kind.decode()}.png")
        special.type, special.linkname = kind, str(tmp_path / "secret.png")
        members[special.name] = special
    path = tar(tmp_path / name, members)
    assert [(record.uri, record.load()) for record in open_source(path)] == [
        (f"{path}!../../up.png", png(1)),
        (f"{path}!/etc/root.png", png(2)),
    ]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_an_archive_that_is_cut_short_gives_what_can_be_read(tmp_path: Path, name: str) -> None:
    """The pictures before the cut are there, and one failure names the archive."""
    noise = {f"{number}.png": png(number) + os.urandom(2000) for number in range(40)}
    path = tar(tmp_path / name, noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 64 // 100])
    source = open_source(path)
    good = 0
    for record in source:
        try:
            assert record.load() == noise[f"{good}.png"]
            good += 1
        except ImageError:
            pass
    assert 15 < good < 30
    assert [failure.uri for failure in source.failures] == [str(path)]
    assert "cannot be read on" in source.failures[0].reason


def test_members_of_a_compressed_tar_can_be_loaded_later_and_again(tmp_path: Path) -> None:
    """In any order, after the archive has been listed to its end, and none is held for that."""
    path = tar(tmp_path / "a.tar.gz", {f"{number}.png": png(number) for number in range(20)})
    records = list(open_source(path))
    for number in (19, 3, 3, 0):
        assert records[number].load() == png(number)
    carried = [record.carried() for record in open_source(path)]
    assert turns.CARRIED._free == turns.CARRIED.total - sum(len(png(number)) for number in range(20))
    assert [record.load() for record in carried] == [png(number) for number in range(20)]
    assert turns.CARRIED._free == turns.CARRIED.total
    assert carried[7].load() == png(7)


def test_hostile_zips(tmp_path: Path) -> None:
    """A member too large, one that lies about its size, a link: each is a failure or nothing; overlaps are refused."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("big.png", "w") as file:
            for _ in range(101):
                file.write(bytes(1 << 20))
        archive.writestr("lies.png", bytes(1_000_000))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("good.png", png(1))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 1_000)))
    big, lies, good = open_source(path)
    with pytest.raises(ImageError, match="more than the 104,857,600"):
        big.load()
    with pytest.raises(ImageError, match="cannot be unpacked"):
        lies.load()
    assert good.load() == png(1)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.png", png(1) * 100)
        for number in range(50):
            twin = zipfile.ZipInfo(f"{number}.png")
            first = archive.infolist()[0]
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.compress_size = twin.file_size = first.file_size
            archive.filelist.append(twin)
    with pytest.raises(SourceError, match="they overlap"):
        open_source(tmp_path / "b.zip")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe, a socket, a device or a circle of links in a picture's place hangs nobody and names what it is."""
    os.mkfifo(tmp_path / "pipe.jpg")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    put(tmp_path / "folder.jpg" / "real.png", 1)
    started = time.monotonic()
    source = open_source(tmp_path)
    assert [record.load() for record in source] == [png(1)]
    assert {Path(failure.uri).stem for failure in source.failures} == {"pipe", "socket", "device", "circle"}
    for name, kind in (("pipe", "a pipe"), ("socket", "a socket"), ("device", "a device")):
        (record,) = open_source([tmp_path / f"{name}.jpg"])
        with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
            record.load()
    assert time.monotonic() - started < 5
    listener.close()


@pytest.mark.parametrize("ending", ["csv", "parquet", "zip", "tar.gz", "txt", "arrow", "jsonl"])
def test_a_pipe_in_the_place_of_a_table_or_archive_hangs_nobody(tmp_path: Path, ending: str) -> None:
    """It is refused as what it is."""
    os.mkfifo(tmp_path / f"a.{ending}")
    with pytest.raises((SourceError, OSError), match="a pipe"):
        open_source(tmp_path / f"a.{ending}")


def test_a_file_that_vanishes_is_a_failure_of_its_own(tmp_path: Path) -> None:
    """What was listed and is gone when it is read raises OSError."""
    put(tmp_path / "a.png")
    (record,) = open_source(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError):
        record.load()


def test_a_table_from_elsewhere_names_no_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of the hub may name what was downloaded with it, and nothing else; others name what they like."""
    import datasets

    cache, secret = tmp_path / "cache", put(tmp_path / "secret.png", 9)
    put(cache / "came-along.png", 5)
    (cache / "link.png").symlink_to(secret)
    paths = [str(secret), str(cache / "came-along.png"), str(cache / "link.png"), f"{cache}/../secret.png"]
    cells = [{"bytes": None, "path": path} for path in paths]
    dataset = datasets.Dataset(pa.table({"image": pa.array(cells, PICTURE_STRUCT)}))
    monkeypatch.setattr(hub, "_download_folders", lambda: [str(cache)])
    first = TableSource(hub.tabular_of(dataset, "hf://org/name"))
    loaded = []
    for record in first:
        try:
            loaded.append(record.load())
        except ImageError as error:
            assert "was downloaded and names the file" in str(error)  # noqa: PT017
            loaded.append(None)
    assert loaded == [None, png(5), None, None]
    assert [record.load() for record in open_source(dataset)] == [png(9), png(5), png(9), png(9)]
    dataset.info.download_checksums = {"hf://datasets/org/name@abc/data.parquet": {}}
    with pytest.raises(ImageError, match="was downloaded"):
        next(iter(open_source(dataset))).load()


def test_rows_of_parquet_are_unpacked_few_at_a_time(tmp_path: Path) -> None:
    """However small a file is in which one large cell stands for many rows."""
    cell = bytes(20_000_000)
    path = tmp_path / "a.parquet"
    table = pa.table({"image": pa.array([cell] * 3, pa.binary())})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 100_000
    assert parquet_pages.rows_at_once(str(path), ["image"], 64) == 1
    assert parquet_pages.rows_at_once(str(path), ["other"], 64) == 64


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_parquet_are_walked_as_they_were_written(tmp_path: Path, version: str) -> None:
    """All kinds of pages, with statistics and checksums: the largest one is found."""
    path = tmp_path / "a.parquet"
    cells = [os.urandom(50_000) for _ in range(200)]
    table = pa.table({"image": pa.array(cells), "n": range(200), "word": ["cat", "dog"] * 100})
    pq.write_table(
        table, path, row_group_size=90, data_page_version=version, data_page_size=200_000, write_batch_size=4,
        write_page_checksum=True, compression="none", use_dictionary=["word", "n"],
    )  # fmt: skip
    with path.open("rb") as file:
        chunks = parquet_pages._chunks(file, "a")
        for number, chunk in enumerate(chunks):
            group = pq.read_metadata(path).row_group(number // 3)
            column = group.column(number % 3)
            start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
            sizes = (column.total_compressed_size, column.total_uncompressed_size)
            assert chunk == (column.path_in_schema, group.num_rows, start, *sizes, column.num_values)
        assert len(chunks) == 9
        for image, _, word in zip(*[iter(chunks)] * 3, strict=True):
            largest, dictionary = parquet_pages._largest_pages(file, image, "a")
            assert 2 * 200_000 <= largest <= 2 * 450_000
            assert dictionary == 0
            assert parquet_pages._largest_pages(file, word, "a")[1] == 2 * 14
    records = list(open_source(path))
    assert [records[row].load() for row in (199, 0, 95)] == [cells[199], cells[0], cells[95]]


FOOTERS = """
import sys
from pathlib import Path
from embedstore.errors import EmbedStoreError
from embedstore.sources import open_source
content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
length = int.from_bytes(content[-8:-4], "little")
refused = 0
for place in range(len(content) - 8 - length, len(content) - 8):
    for bit in range(8):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            list(open_source(path))
        except EmbedStoreError:
            refused += 1
print(refused, length)
"""


def test_no_damaged_footer_of_parquet_ends_the_process(tmp_path: Path) -> None:
    """Whichever bit of it is flipped: 28 of them make pyarrow abort when it is asked for its column chunks."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": None}]}), path, store_schema=False)
    words = [sys.executable, "-c", FOOTERS, str(path), str(tmp_path / "b.parquet")]
    child = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-500:]
    refused, length = map(int, child.stdout.split())
    assert length < refused < 8 * length


@pytest.mark.parametrize("data", [b"\x19" * 5_000, b"\x1c" * 5_000, b"\x15", b"\x19\xfc\xff\xff\xff\x7f", b"\x1d\0"])
def test_a_footer_that_is_none_is_an_error(data: bytes) -> None:
    """Deep, cut short, longer than it is, or of no known kind."""
    content = b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(SourceError, match="its footer cannot be read"):
        parquet_pages._chunks(io.BytesIO(content), "a.parquet")


def test_pages_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how large they are, and how to write the table anew."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [os.urandom(3_000_000)]}), path, use_dictionary=False)
    monkeypatch.setattr(parquet_pages, "MOST_BYTES", 4_000_000)
    with pytest.raises(SourceError, match=r"pages of 6,\d{3},\d{3} bytes.*row groups, of 100 rows"):
        open_source(path)


def test_a_cell_or_a_text_too_large_is_a_failure_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rows are read."""
    monkeypatch.setattr(turns, "LARGEST_FILE", 1_000_000)
    path = tmp_path / "a.parquet"
    cells = [png(1), bytes(1_000_001), png(3)]
    pq.write_table(pa.table({"image": cells, "text": ["", "", "x" * 250_001]}), path)
    source = open_source(path)
    first, second = list(source)
    assert first.load() == png(1)
    with pytest.raises(ImageError, match=r"1,000,001 bytes, more than the 1,000,000"):
        second.load()
    assert [failure.reason for failure in source.failures] == [
        "row 2 has more than 250,000 characters in 'text': leave that column out"
    ]


def test_many_readers_of_one_compressed_tar(tmp_path: Path) -> None:
    """Threads that load while it is listed get the right bytes each."""
    path = tar(tmp_path / "a.tar.gz", {f"{number}.png": png(number) for number in range(30)})
    wrong: list[int] = []

    def check(number: int, record: Any) -> None:
        if record.load() != png(number):
            wrong.append(number)

    threads = []
    for number, record in enumerate(open_source(path)):
        threads.append(threading.Thread(target=check, args=(number, record)))
        threads[-1].start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert len(threads) == 30
