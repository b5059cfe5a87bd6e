"""Parts: vectors that lie in the Parquet file as they lie in memory."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import KEY, SECRET, S3Server

from embedstore.errors import BucketError, DamagedStoreError, VersionGoneError
from embedstore.storage import parts
from embedstore.storage.bucket import Bucket
from embedstore.storage.part_cache import PartCache
from embedstore.vectors import Vectors


def rows_of(count: int, dim: int, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    table = pa.table(
        {
            "id": [f"{seed}-{n}" for n in range(count)],
            "label": ["cat", None] * (count // 2) + ["dog"] * (count % 2),
        }
    )
    return table, vectors


def write(path: Path, sizes: list[int], dim: int) -> tuple[parts.Part, np.ndarray]:
    groups = [rows_of(size, dim, seed) for seed, size in enumerate(sizes)]
    part = parts.write(path, iter(groups), groups[0][0].schema, dim)
    return part, np.concatenate([vectors for _, vectors in groups])


def test_vectors_are_mapped_without_a_copy(tmp_path: Path) -> None:
    """The view's bytes are the file's bytes at the block's offset, aligned to 64, and read-only."""
    part, vectors = write(tmp_path / "a.parquet", [70, 3], dim=768)
    raw = part.path.read_bytes()
    assert part.mapped
    for block, group in zip(part.blocks or (), part.groups(), strict=True):
        assert raw[block.offset : block.offset + group.nbytes] == group.tobytes()
        assert group.ctypes.data % 64 == 0
        assert not group.flags.owndata
        assert not group.flags.writeable
    assert np.array_equal(part.vectors(), vectors)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4), dim=st.integers(1, 40))
def test_mapped_and_decoded_vectors_agree(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], dim: int) -> None:
    """For any sizes, the mapped block, pyarrow's decoding and the input are equal to the bit."""
    path = tmp_path_factory.mktemp("parts") / "a.parquet"
    part, vectors = write(path, sizes, dim)
    again = parts.open_part(path, dim)
    assert again.blocks == part.blocks
    decoded = np.array(pq.read_table(path).column("embedding").to_pylist(), dtype=np.float32)
    assert np.array_equal(again.vectors(), vectors)
    assert np.array_equal(decoded, vectors)
    assert np.array_equal(parts.Part(path, len(vectors), dim, None).vectors(), vectors)


def test_a_foreign_layout_is_read_with_the_same_numbers(tmp_path: Path) -> None:
    """A file that pyarrow wrote with its defaults is decoded, not mapped."""
    table, vectors = rows_of(20, 8)
    lists = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    pq.write_table(table.append_column("embedding", lists), tmp_path / "f.parquet")
    part = parts.open_part(tmp_path / "f.parquet", 8)
    assert not part.mapped
    assert np.array_equal(part.vectors(), vectors)
    assert np.array_equal(part.take([19, 0]), vectors[[19, 0]])


def test_a_rewritten_file_that_kept_our_footer_is_not_trusted(tmp_path: Path) -> None:
    """An engine that copies the footer but compresses the column gets its file decoded."""
    part, vectors = write(tmp_path / "a.parquet", [50], dim=16)
    footer = pq.read_schema(part.path).metadata
    table = pq.read_table(part.path).replace_schema_metadata(footer)
    pq.write_table(table, tmp_path / "b.parquet", compression="zstd")
    assert b"embedstore.layout" in (pq.read_metadata(tmp_path / "b.parquet").metadata or {})
    copied = parts.open_part(tmp_path / "b.parquet", 16)
    assert not copied.mapped
    assert np.array_equal(copied.vectors(), vectors)
    assert not copied.checked


def test_rows_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    """`read_rows` and `take` follow the given order across row groups, repeats included."""
    part, vectors = write(tmp_path / "a.parquet", [5, 4, 6], dim=4)
    wanted = [14, 0, 7, 7, 4]
    ids = pq.read_table(part.path).column("id").to_pylist()
    assert part.read_rows(wanted, ["id"]).column("id").to_pylist() == [ids[n] for n in wanted]
    assert np.array_equal(part.take(wanted), vectors[wanted])


def test_a_cut_file_is_damage_not_garbage(tmp_path: Path) -> None:
    """A part that is shorter than its layout raises, whether its footer is asked or not."""
    part, _ = write(tmp_path / "a.parquet", [50], dim=16)
    data = part.path.read_bytes()
    part.path.write_bytes(data[: len(data) // 3])
    fresh = parts.Part(part.path, part.rows, 16, part.blocks)
    with pytest.raises(DamagedStoreError, match="bytes long"):
        fresh.groups()
    with pytest.raises(DamagedStoreError, match="cannot be read"):
        parts.open_part(part.path, 16)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    """When the batches break off with an error, the half part is gone."""

    def broken():
        yield rows_of(3, 4)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        parts.write(tmp_path / "a.parquet", broken(), rows_of(1, 4)[0].schema, 4)
    assert list(tmp_path.iterdir()) == []


NAME = "part-01795447014962723389-55d61b7f837e.parquet"


def test_every_flipped_bit_of_a_part_is_named(tmp_path: Path) -> None:
    """600 flips anywhere, 200 in the footer, and cuts of every length: `check` names the part each time."""
    part, _ = write(tmp_path / NAME, [40, 25], dim=8)
    assert part.checked
    assert part.check() == []
    data = part.path.read_bytes()
    rng = np.random.default_rng(3)
    places = [*rng.integers(0, len(data), 600), *rng.integers(len(data) - 1500, len(data), 200), 0, len(data) - 1]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        part.path.write_bytes(flipped)
        found = parts.Part(part.path, part.rows, 8, part.blocks).check()
        assert found, place
        assert all(NAME in problem for problem in found)
    for length in range(0, len(data), 61):
        part.path.write_bytes(data[:length])
        assert parts.Part(part.path, part.rows, 8, part.blocks).check(), length
    part.path.write_bytes(data)
    assert part.check() == []


def test_damage_is_named_by_row_group_and_kind(tmp_path: Path) -> None:
    """A flip among the vectors of the second row group, and one behind them, are told apart."""
    part, _ = write(tmp_path / NAME, [40, 25], dim=8)
    data = part.path.read_bytes()
    block = (part.blocks or ())[1]
    for place, words in ((block.offset + 9, "the vectors are"), (block.offset + 25 * 32 + 9, "the other columns are")):
        flipped = bytearray(data)
        flipped[place] ^= 1
        part.path.write_bytes(flipped)
        assert parts.open_part(part.path, 8).check() == [f"part {NAME}, row group 1: {words} damaged (checksum)"]


def test_swapped_row_groups_and_pages_are_found(tmp_path: Path) -> None:
    """Blocks of equal size that change places are damage, though every sum of words would fit."""
    part, _ = write(tmp_path / NAME, [40, 40], dim=8)
    first, second = (block.offset for block in part.blocks or ())
    data = bytearray(part.path.read_bytes())
    size = 40 * 32
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]
    part.path.write_bytes(data)
    assert len(part.check()) == 2


def test_a_value_that_looks_like_a_seal_confuses_nothing(tmp_path: Path) -> None:
    """Metadata hold the very bytes that mark the footer's sum, also as statistics."""
    mark = "embedstore.footer\x18\x15xxh3:0000000000000000"
    table = pa.table({"id": ["a", "b"], "note": [mark, mark]})
    part = parts.write(tmp_path / NAME, iter([(table, np.eye(2, 4, dtype=np.float32))]), table.schema, 4)
    assert parts.open_part(part.path, 4).check() == []
    assert part.read(["note"]).column("note").to_pylist() == [mark, mark]


def test_an_empty_part_is_checked_too(tmp_path: Path) -> None:
    """A part without rows has a seal; its first byte counts."""
    part = parts.write(tmp_path / NAME, iter([]), pa.schema([("id", pa.string())]), 4)
    assert part.check() == []
    data = bytearray(part.path.read_bytes())
    data[0] ^= 4
    part.path.write_bytes(data)
    assert parts.Part(part.path, 0, 4, []).check()


@pytest.fixture
def cache(s3: S3Server, tmp_path: Path) -> PartCache:
    """An empty cache of an empty bucket."""
    return PartCache(Bucket(f"{s3.bucket()}/cats.store") / "images", tmp_path / "cache" / "images", 2**30)


def upload(cache: PartCache, part: parts.Part) -> parts.Part:
    """Return a part as it is in the bucket, where it is put."""
    cache.bucket.upload(part.name, part.path)
    return parts.Part(cache.folder / part.name, part.rows, part.dim, part.blocks, part.size, cache)


def test_a_part_in_a_bucket_is_opened_by_its_footer(s3: S3Server, tmp_path: Path, cache: PartCache) -> None:
    """One request of 64 kB says all that the local file says: less than a twentieth of this small one."""
    local, _ = write(tmp_path / NAME, [500, 500], dim=768)
    upload(cache, local)
    s3.reset()
    there = parts.open_part(cache.folder / NAME, 768, local.size, cache)
    assert (there.rows, there.blocks, there.size, there.checked) == (1000, local.blocks, local.size, True)
    assert s3.counts() == {"get": 1}
    assert sum(one.answered for one in s3.requests()) == 65_536 < local.size / 20
    assert not cache.has(NAME, local.size)
    assert parts.open_part(cache.folder / NAME, 768, cache=cache).size == local.size


def test_a_part_in_a_bucket_says_what_the_local_file_says(s3: S3Server, tmp_path: Path, cache: PartCache) -> None:
    """Vectors, rows and columns, equal to the bit; columns alone fetch no vectors, vectors fetch the file once."""
    local, vectors = write(tmp_path / NAME, [500, 400], dim=768)
    there = upload(cache, local)
    s3.reset()
    assert there.exists()
    wanted = [899, 3, 500, 3]
    assert there.columns() == local.columns()
    assert there.read(["id", "label"]).equals(local.read(["id", "label"]))
    assert there.read_rows(wanted, ["label", "id"]).equals(local.read_rows(wanted, ["label", "id"]))
    assert sum(one.answered for one in s3.requests()) < local.size / 5
    assert not cache.has(NAME, local.size)
    s3.reset()
    assert all(np.array_equal(one, other) for one, other in zip(there.groups(), local.groups(), strict=True))
    assert there.groups()[0].ctypes.data % 64 == 0
    assert not there.groups()[0].flags.writeable
    assert np.array_equal(there.take(wanted), vectors[wanted])
    assert there.longest == local.longest
    assert there.read(["id"]).equals(local.read(["id"]))
    assert s3.counts() == {"get": 1}


def test_columns_of_several_row_groups_are_asked_for_side_by_side(
    s3: S3Server, tmp_path: Path, cache: PartCache
) -> None:
    """Behind the footer, one request for each of three row groups, all of them under way before one is answered."""
    local, _ = write(tmp_path / NAME, [100, 100, 100], dim=768)
    there = upload(cache, local)
    s3.reset()
    s3.fail("hold-before", "get", nth=2, times=100)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(there.read, ["label", "id"])
        s3.wait_held(3)
        s3.release()
        assert found.result().equals(local.read(["label", "id"]))
    assert s3.counts() == {"get": 4}


def test_a_part_of_another_writer_in_a_bucket_is_decoded(tmp_path: Path, cache: PartCache) -> None:
    """A file that pyarrow wrote with its defaults, found by its footer."""
    table, vectors = rows_of(20, 8)
    lists = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    pq.write_table(table.append_column("embedding", lists), tmp_path / "f.parquet")
    cache.bucket.upload("f.parquet", tmp_path / "f.parquet")
    there = parts.open_part(cache.folder / "f.parquet", 8, None, cache)
    assert not there.mapped
    assert np.array_equal(there.vectors(), vectors)


def test_vectors_in_use_outlive_their_file(tmp_path: Path, cache: PartCache) -> None:
    """A part is evicted between two rows of an answer: what was taken of it stays right."""
    local, vectors = write(tmp_path / NAME, [50], dim=16)
    there = upload(cache, local)
    groups = there.groups()
    cache.drop([NAME])
    assert not cache.has(NAME, local.size)
    assert np.array_equal(groups[0], vectors)
    assert np.array_equal(there.vectors(), vectors)


def test_a_part_keeps_no_file_that_was_evicted(tmp_path: Path, cache: PartCache) -> None:
    """Once its vectors are let go of, no mapping keeps the disk space of an evicted file."""
    there = upload(cache, write(tmp_path / NAME, [50], dim=16)[0])
    there.vectors()
    assert NAME not in Path("/proc/self/maps").read_text()
    held = there.groups()
    assert NAME in Path("/proc/self/maps").read_text()
    del held


def _digest(part: parts.Part) -> tuple[Vectors, list[str]]:
    return part.vectors(), part.read(["id"]).column("id").to_pylist()


def test_a_part_in_a_bucket_travels_to_another_process(tmp_path: Path, cache: PartCache) -> None:
    """As names and numbers: the process fetches it by itself, with the key in its own environment."""
    local, vectors = write(tmp_path / NAME, [50], dim=16)
    there = upload(cache, local)
    packed = pickle.dumps(there)
    assert KEY.encode() not in packed
    assert SECRET.encode() not in packed
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        found, ids = processes.submit(_digest, there).result()
    assert np.array_equal(found, vectors)
    assert ids == local.read(["id"]).column("id").to_pylist()


def test_damage_in_a_bucket_is_found_behind_a_sound_copy(tmp_path: Path, cache: PartCache) -> None:
    """A flipped bit of the object is named though the file on this machine is sound; one of the file is got over."""
    local, _ = write(tmp_path / NAME, [40, 25], dim=8)
    there = upload(cache, local)
    assert there.check() == []
    place = (local.blocks or ())[1].offset + 9
    flipped = bytearray(local.path.read_bytes())
    flipped[place] ^= 1
    cache.bucket.write(NAME, bytes(flipped))
    named = [f"part {NAME}, row group 1: the vectors are damaged (checksum)"]
    assert there.check(afresh=False) == []
    assert there.check() == named
    damaged = there.damaged_rows()
    assert damaged is not None
    assert np.flatnonzero(damaged).tolist() == list(range(40, 65))
    cache.bucket.write(NAME, local.path.read_bytes())
    assert there.check(afresh=False) == []
    assert there.damaged_rows() is None


@pytest.mark.parametrize("length", [0, 7, -1, 1])
def test_an_object_of_another_size_is_damage(tmp_path: Path, cache: PartCache, length: int) -> None:
    """Cut or grown, it is neither mapped nor opened by its footer, and nothing of it stays here."""
    local, _ = write(tmp_path / NAME, [40, 25], dim=8)
    there, data = upload(cache, local), local.path.read_bytes()
    cache.bucket.write(NAME, data[:length] if length < 1 or length == 7 else data + b"x")
    for ask in (there.groups, lambda: there.read(["id"]), lambda: parts.open_part(there.path, 8, there.size, cache)):
        with pytest.raises(DamagedStoreError, match=rf"part {NAME} cannot be read: .*where {local.size} were expected"):
            ask()
    assert len(there.check()) == 1
    assert not there.exists()
    assert not there.path.exists()


def test_a_part_that_is_gone_is_a_past_version_or_damage(tmp_path: Path, cache: PartCache) -> None:
    """The log in the bucket decides, whatever an older one on this machine says."""
    local, _ = write(tmp_path / NAME, [40], dim=8)
    there = upload(cache, local)
    cache.bucket.delete([NAME])
    added = f'{{"add": {{"path": "{NAME}", "size": {local.size}}}}}\n'
    (cache.folder / "_delta_log").mkdir(parents=True)
    (cache.folder / "_delta_log" / f"{0:020}.json").write_text(added)
    cache.bucket.create(f"_delta_log/{0:020}.json", added.encode())
    asked = (there.groups, lambda: there.read(["id"]), lambda: parts.open_part(there.path, 8, None, cache))
    assert not there.exists()
    for ask in asked:
        with pytest.raises(DamagedStoreError, match=rf"part {NAME} is in the table's log but not at s3://"):
            ask()
    assert len(there.check()) == 1
    cache.bucket.create(f"_delta_log/{1:020}.json", f'{{"remove": {{"path": "{NAME}"}}}}\n'.encode())
    for ask in asked:
        with pytest.raises(VersionGoneError, match="compact and vacuum have replaced its part"):
            ask()


def test_a_service_that_fails_is_no_damage(s3: S3Server, tmp_path: Path, cache: PartCache) -> None:
    """A refused key or a broken network is named as what it is, whichever way the part is read."""
    there = upload(cache, write(tmp_path / NAME, [40], dim=8)[0])
    s3.fail("status", "get", times=100, status="403 AccessDenied")
    for ask in (there.groups, lambda: there.read(["id"]), there.check, lambda: there.columns()):
        with pytest.raises(BucketError, match="was refused"):
            ask()
