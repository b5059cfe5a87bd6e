"""Parts: vectors that lie in the Parquet file as they lie in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import DamagedStoreError
from embedstore.storage import parts


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
